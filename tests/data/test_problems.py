"""Bad records are counted by reason, listed, and never raise, unless asked to."""

import json
import logging
import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import annotation_files as files
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from annotation_files import Given

from gpt4roi_nb.data import BadRecord, RegionDataset, json_stream, load
from gpt4roi_nb.data.coco import CROWDS, category_name
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.llava import read_detections
from gpt4roi_nb.data.pickles import read_pickle
from gpt4roi_nb.data.problems import (
    AMBIGUOUS,
    BROKEN_JSON,
    MISSING,
    NO_IMAGE,
    OUT_OF_RANGE,
    OUTSIDE,
    OUTSIDE_FOLDER,
    UNREADABLE_IMAGE,
    WRONG_TURNS,
    WRONG_TYPE,
    ZERO_AREA,
    Problems,
    is_blank,
    text_field,
)
from gpt4roi_nb.data.record import as_boxes

INFINITY = float("inf")


def opened(given: Given, **more: Any) -> RegionDataset:
    cache = given.annotations.parent / "cache"
    return load(given.format, given.annotations, given.images, cache=cache, **{**given.options, **more})


def edited(given: Given, edit: Callable[[Any], None]) -> Given:
    content = json.loads(given.annotations.read_text())
    edit(content)
    given.annotations.write_text(json.dumps(content))
    return given


def of_first(key: str, **changes: Any) -> Callable[[Any], None]:
    """Changes the first entry of a table; None takes a field away."""

    def edit(content: Any) -> None:
        entry = (content[key] if key else content)[0]
        entry.update(changes)
        for name in [name for name, value in changes.items() if value is None]:
            del entry[name]

    return edit


def segments(edit: Callable[[list[Any]], Any]) -> Callable[[Any], None]:
    return lambda content: edit(content["annotations"][0]["segments_info"])


BAD = [
    (files.coco, of_first("annotations", bbox=[5, 5, 0, 9]), ZERO_AREA, 1),
    (files.coco, of_first("annotations", bbox=[5, 5, -3, 9]), ZERO_AREA, 1),
    (files.coco, of_first("annotations", bbox=[100, 5, 9, 9]), OUTSIDE, 1),
    (files.coco, of_first("annotations", bbox=[1, 2, 3]), WRONG_TYPE, 1),
    (files.coco, of_first("annotations", bbox=[1, 2, 3, "4"]), WRONG_TYPE, 1),
    (files.coco, of_first("annotations", bbox=[1, 2, 3, float("nan")]), WRONG_TYPE, 1),
    (files.coco, of_first("annotations", bbox=None), MISSING, 1),
    (files.coco, of_first("annotations", category_id=7), OUT_OF_RANGE, 1),
    (files.coco, of_first("annotations", category_id="7"), WRONG_TYPE, 1),
    (files.coco, of_first("annotations", image_id=123), OUT_OF_RANGE, 1),
    (files.coco, lambda content: content["annotations"].append(5), WRONG_TYPE, 1),
    (files.coco, lambda content: [a.update(category_id=7) for a in content["annotations"]], OUT_OF_RANGE, 2),
    (files.panoptic, segments(lambda parts: parts[0].update(bbox=[1, 2, 3])), WRONG_TYPE, 1),
    (files.panoptic, segments(lambda parts: parts.insert(0, 5)), WRONG_TYPE, 1),
    (files.panoptic, segments(lambda parts: [parts.insert(0, {"category_id": 1}) for _ in range(2)]), MISSING, 2),
    (files.panoptic, of_first("annotations", segments_info=3), WRONG_TYPE, 1),
    (files.refcoco, of_first("images", caption=None), MISSING, 1),
    (files.refcoco, of_first("images", caption=["a"]), WRONG_TYPE, 1),
    (files.refcoco, of_first("images", width="wide"), WRONG_TYPE, 1),
    (files.refcoco, of_first("images", file_name="none.jpg"), NO_IMAGE, 1),
    (files.flickr, of_first("annotations", tokens_positive=[[3, 400]]), OUT_OF_RANGE, 1),
    (files.flickr, lambda content: [a.update(tokens_positive=[[3, 400]]) for a in content["annotations"][:2]],
     OUT_OF_RANGE, 2),
    (files.flickr, of_first("annotations", tokens_positive=[[3]]), WRONG_TYPE, 1),
    (files.flickr, of_first("annotations", tokens_positive=None), MISSING, 1),
    (files.vg_train, of_first("annotations", caption="  "), MISSING, 1),
    (files.vg_train, of_first("annotations", caption="\u200b\ufeff \x07"), MISSING, 1),
    (files.vg_regions, lambda content: content[0]["regions"][0].update(width=0), ZERO_AREA, 1),
    (files.vg_regions, lambda content: content[0]["regions"].append("x"), WRONG_TYPE, 1),
    (files.vg_regions, lambda content: content.append({"id": 5}), MISSING, 1),
    (files.llava, lambda content: content[0]["conversations"].pop(), WRONG_TURNS, 1),
    (files.llava, lambda content: content[0]["conversations"].reverse(), WRONG_TURNS, 1),
    (files.conversations, lambda content: content[0]["conversations"].pop(), WRONG_TURNS, 1),
    (files.conversations, lambda content: content[0].update(boxes=[[1, 2, 30, 40]]), OUT_OF_RANGE, 1),
    (files.conversations, lambda content: content[0]["boxes"].append([1, 2, 3, 4]), OUT_OF_RANGE, 1),
    (files.conversations, lambda content: content[1]["conversations"][1].update(value="<region1>"), OUT_OF_RANGE, 1),
    (files.conversations, lambda content: content[1]["conversations"][0].update(value="<region 1>?"), OUT_OF_RANGE, 1),
    (files.conversations, lambda content: content[0].update(boxes=[[1, 2, 1, 4], [1, 2, 3, 4]]), ZERO_AREA, 1),
    (files.conversations, lambda content: content[1].update(boxes="x"), WRONG_TYPE, 1),
]  # fmt: skip


@pytest.mark.parametrize(("make", "edit", "reason", "count"), BAD)
def test_a_bad_record_is_counted_and_the_others_stay(
    make: Callable[[Path], Given], edit: Callable[[Any], None], reason: str, count: int, tmp_path: Path
) -> None:
    whole = len(opened(make(tmp_path / "whole")))
    dataset = opened(edited(make(tmp_path / "bad"), edit))
    assert dataset.problems.counts() == {reason: count}, dataset.report()
    assert whole - 1 <= len(dataset) <= whole
    assert len(list(dataset)) == len(dataset)
    with pytest.raises(BadRecord, match=reason):
        opened(edited(make(tmp_path / "strict"), edit), strict=True)


def test_the_other_segments_of_a_panoptic_image_stay(tmp_path: Path) -> None:
    bad = segments(lambda parts: parts.insert(0, {"id": 100, "category_id": 1, "bbox": "x"}))
    dataset = opened(edited(files.panoptic(tmp_path), bad))
    assert dataset.annotation(0).texts == ("person", "tree-merged", "person")
    assert "panoptic_train2017.json: annotations, id 100" in dataset.report()


def test_an_id_of_a_wrong_type_costs_its_sentences(tmp_path: Path) -> None:
    given = files.unc_refs(tmp_path)
    refs = pickle.loads(given.annotations.read_bytes())
    sentences = len(opened(given))
    refs[0]["ann_id"] = [refs[0]["ann_id"]]
    given.annotations.write_bytes(pickle.dumps(refs))
    instances = given.options["instances"]
    content = json.loads(instances.read_text())
    content["annotations"].append({**content["annotations"][0], "id": {}})
    instances.write_text(json.dumps(content))
    dataset = opened(given)
    assert dataset.problems.counts() == {WRONG_TYPE: 2}, dataset.report()
    assert len(dataset) == sentences - len(refs[0]["sentences"])


VCR_BAD = [
    ({"question": ["Who", "is", [3], "?"]}, OUT_OF_RANGE),
    ({"rationale_choices": [["a"], ["b"], ["c"], [[-1]]]}, OUT_OF_RANGE),
    ({"answer_label": 4}, OUT_OF_RANGE),
    ({"answer_label": None}, MISSING),
    ({"answer_label": "1"}, WRONG_TYPE),
    ({"answer_choices": [["a"]]}, WRONG_TYPE),
    ({"question": [["x"]]}, WRONG_TYPE),
    ({"question": "Who?"}, WRONG_TYPE),
    ({"objects": ["person"]}, OUT_OF_RANGE),
    ({"metadata_fn": "none.json"}, MISSING),
    ({"img_fn": "none.jpg"}, NO_IMAGE),
]


@pytest.mark.parametrize(("changes", "reason"), VCR_BAD)
def test_a_bad_line_of_vcr_is_counted_and_the_others_stay(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    lines = [files.vcr_line(), files.vcr_line(annot_id="train-1", **changes)]
    dataset = opened(files.vcr(tmp_path, lines=lines))
    assert dataset.problems.counts() == {reason: 1}, dataset.report()
    assert [record.id for record in dataset] == ["train-0/all"]


def test_an_object_of_vcr_that_nobody_cites_may_be_bad(tmp_path: Path) -> None:
    given = files.vcr(tmp_path, lines=[files.vcr_line(answer_choices=[["a"], [[1]], ["b"], ["c"]])])
    boxes = [[0, 0, 0, 0, 0.9], *files.VCR_BOXES[1:]]
    files.write(given.images / "lsmdc_1/1_A@0.json", {"boxes": boxes, "width": 64, "height": 48})
    dataset = opened(given)
    assert dataset.problems.counts() == {ZERO_AREA: 1}
    assert dataset.annotation(0).texts[0].startswith("Why is <region1>'s")
    assert dataset.annotation(0).boxes[:, 0].tolist() == [20, 40]


def test_broken_lines_and_cut_files_cost_what_is_broken(tmp_path: Path) -> None:
    given = files.vcr(tmp_path / "vcr")
    text = given.annotations.read_text().splitlines()
    given.annotations.write_text("\n".join([text[0], text[1][:50], "", text[1]]) + "\n")
    dataset = opened(given)
    assert dataset.problems.counts() == {BROKEN_JSON: 1}
    assert len(dataset) == 2
    given = files.refcoco(tmp_path / "refcoco")
    given.annotations.write_text(given.annotations.read_text()[:-60])
    dataset = opened(given)
    assert dataset.problems.counts() == {BROKEN_JSON: 1}
    assert len(dataset) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", []),
        ("{}", []),
        (' [1, 23 , "a"] ', [("", 1), ("", 23), ("", "a")]),
        ('{"a": [{"b": [1]}, 2], "c": {"d": []}, "e": 3}', [("a", {"b": [1]}), ("a", 2), ("c", {"d": []}), ("e", 3)]),
        ('\ufeff{"a": 12345}', [("a", 12345)]),
    ],
)
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_json_is_read_an_element_at_a_time(
    text: str, expected: list[Any], chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt4roi_nb.data.json_stream.CHUNK", chunk)
    file = tmp_path / "file.json"
    file.write_text(text)
    problems = Problems(strict=True)
    assert list(elements(file, problems)) == expected
    for cut in range(len(text.rstrip()) - 1):
        file.write_text(text[:cut])
        found = Problems()
        list(elements(file, found))
        assert found.counts() == {BROKEN_JSON: 1}


def test_all_are_listed_in_a_file_and_shown_as_a_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = edited(files.coco(tmp_path), of_first("annotations", bbox=[5, 5, 0, 9]))
    list_file = tmp_path / "bad.jsonl"
    with caplog.at_level(logging.WARNING):
        dataset = opened(given, problems=list_file)
    (line,) = [json.loads(text) for text in list_file.read_text().splitlines()]
    assert line["reason"] == ZERO_AREA
    assert line["where"] == "instances_train2017.json: annotations, id 1"
    report = dataset.report()
    assert report in caplog.text
    for part in ("coco: 1 records", "1  box without area", str(list_file), "1  left out: crowds"):
        assert part in report


def test_a_damaged_image_is_noted_once_and_the_epoch_goes_on(tmp_path: Path) -> None:
    given = files.refcoco(tmp_path)
    dataset = opened(given)
    image = given.images / dataset[0].image
    image.write_bytes(image.read_bytes()[:100])
    other = pickle.loads(pickle.dumps(dataset))  # as a worker has it
    for _ in range(2):
        assert dataset.read(0) is None
        assert other.read(0) is None
    assert dataset.problems.counts() == {UNREADABLE_IMAGE: 1}
    with pytest.raises(BadRecord, match=r"strict=False"):
        opened(given, strict=True).read(0)


def test_images_that_are_not_there_are_left_out_until_they_come(tmp_path: Path) -> None:
    given = files.coco(tmp_path)
    image = given.images / "000000000009.jpg"
    data = image.read_bytes()
    image.unlink()
    dataset = opened(given)
    assert len(dataset) == 0
    assert dataset.problems.counts() == {NO_IMAGE: 1}
    with pytest.raises(BadRecord, match="000000000009"):
        opened(given, strict=True)
    image.write_bytes(data)
    assert len(opened(given, strict=True)) == 1
    assert not opened(given).problems.counts()


def test_every_record_of_a_missing_image_is_listed(tmp_path: Path) -> None:
    given = files.refcoco(tmp_path)
    records = [record for record in opened(given) if record.image == opened(given)[0].image]
    (given.images / records[0].image).unlink()
    listed = {entry["where"] for entry in opened(given).problems}
    assert listed == {f"{given.annotations.name}: record {record.id}" for record in records} and len(records) > 1


def test_boxes_of_a_missing_image_come_with_it(tmp_path: Path) -> None:
    given = files.llava(tmp_path)
    image = given.images / "000000033471.jpg"
    data = image.read_bytes()
    image.unlink()
    assert opened(given).problems.counts() == {NO_IMAGE: 2}
    image.write_bytes(data)
    assert len(opened(given, strict=True)[0].boxes) == 2


def test_a_box_beyond_the_real_image_is_noted(tmp_path: Path) -> None:
    given = edited(files.vg_regions(tmp_path), lambda content: content[0]["regions"][0].update(x=500))
    dataset = opened(given)
    assert dataset.read(0) is None
    assert dataset.problems.counts() == {OUTSIDE: 1}


# Whatever stands in one record, the others load; and at the next load, from the index, too.
DEEP = "in its place comes a list in a list in a list"
ODD = [
    (files.coco, of_first("annotations", bbox=[1, 2, 10**400, 5]), WRONG_TYPE, 1),
    (files.coco, of_first("annotations", bbox=[1, 2, INFINITY, 5]), WRONG_TYPE, 1),
    (files.coco, of_first("annotations", bbox=[1, -1e300, 5, 1e300]), WRONG_TYPE, 1),
    (files.coco, of_first("annotations", image_id=10**400), WRONG_TYPE, 1),
    (files.coco, of_first("annotations", bbox=DEEP), BROKEN_JSON, 1),
    (files.coco, of_first("annotations", id=DEEP), BROKEN_JSON, 1),
    (files.coco, of_first("annotations", id="a\u2028b\u0085c\ud800", bbox=[5, 5, 0, 9]), ZERO_AREA, 1),
    (files.coco, of_first("annotations", iscrowd="no"), WRONG_TYPE, 1),
    (files.coco, of_first("annotations", iscrowd=2), WRONG_TYPE, 1),
    (files.coco, of_first("images", width=INFINITY), WRONG_TYPE, 1),
    (files.coco, of_first("images", width=10**400), WRONG_TYPE, 1),
    (files.coco, of_first("images", width=True), WRONG_TYPE, 1),
    (files.coco, of_first("images", file_name="a\0b.jpg"), WRONG_TYPE, 1),
    (files.coco, of_first("images", file_name="."), WRONG_TYPE, 1),
    (files.coco, of_first("images", file_name="../train2017/000000000009.jpg"), OUTSIDE_FOLDER, 1),
    (files.coco, of_first("images", file_name="/etc/passwd"), OUTSIDE_FOLDER, 1),
    (files.coco, of_first("images", file_name="~/a.jpg"), OUTSIDE_FOLDER, 1),
    (files.coco, of_first("images", file_name="a" * 5000), NO_IMAGE, 1),
    (files.coco, of_first("images", file_name="a/" * 3000 + "b"), NO_IMAGE, 1),
    (files.coco, of_first("images", file_name="\ud800.jpg"), NO_IMAGE, 1),
    (files.coco, of_first("images", file_name=None, coco_url="http://[::1/a/b.jpg"), WRONG_TYPE, 1),
    (files.coco, of_first("images", file_name=None, coco_url="http://a/../b.jpg"), OUTSIDE_FOLDER, 1),
    (files.coco, of_first("images", file_name=None, coco_url=7), WRONG_TYPE, 1),
    (files.coco, of_first("annotations", image_id=True), WRONG_TYPE, 1),
    (files.coco, lambda content: content["images"].append(files.image_entry(9, "000000000011.jpg")), AMBIGUOUS, 1),
    (files.refcoco, of_first("images", dataset_name="\ud800"), None, 0),
    (files.vg_regions, lambda content: content[0]["regions"][0].update(x=10**400), WRONG_TYPE, 1),
    (files.vg_regions, lambda content: content[0]["regions"][0].update(x=-INFINITY), WRONG_TYPE, 1),
    (files.vg_regions, lambda content: content.append({"id": 10**400, "regions": []}), WRONG_TYPE, 1),
    (files.llava, lambda content: content[0].update(image="../train2017/000000033471.jpg"), OUTSIDE_FOLDER, 1),
    (files.llava, lambda content: content[0].update(image="\0"), WRONG_TYPE, 1),
    (files.llava, lambda content: content[0]["conversations"][0].update(value=DEEP), BROKEN_JSON, 1),
]  # fmt: skip


@pytest.mark.parametrize(("make", "edit", "reason", "count"), ODD)
def test_an_odd_record_is_counted_and_the_others_stay(
    make: Callable[[Path], Given], edit: Callable[[Any], None], reason: str | None, count: int, tmp_path: Path
) -> None:
    whole = len(opened(make(tmp_path / "whole")))
    given = edited(make(tmp_path / "odd"), edit)
    given.annotations.write_text(given.annotations.read_text().replace(f'"{DEEP}"', "[" * 200_000 + "]" * 200_000))
    for _ in range(2):
        dataset = opened(given)
        assert dataset.problems.counts() == ({reason: count} if reason else {}), dataset.report()
        assert whole - 1 <= len(dataset) == len(list(dataset)) <= whole
        assert all(np.isfinite(record.boxes).all() for record in dataset)


@pytest.mark.parametrize("changes", [
    {"img_fn": "../secret.jpg"}, {"img_fn": "/etc/passwd"}, {"img_fn": "a\0"}, {"metadata_fn": "../secret.json"},
    {"metadata_fn": "/etc/passwd"}, {"metadata_fn": "a\0"}, {"annot_id": 10**400}, {"question": [""]},
    {"answer_choices": [["a"], ["", " "], ["b"], ["c"]]}, {"question": [[10**400]]},
])  # fmt: skip
def test_an_odd_line_of_vcr_is_counted_and_the_others_stay(changes: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("not to be read")
    lines = [files.vcr_line(), files.vcr_line(**{"annot_id": "train-1", **changes})]
    dataset = opened(files.vcr(tmp_path, lines=lines))
    assert sum(dataset.problems.counts().values()) == 1 and not dataset.problems.counts()[NO_IMAGE], dataset.report()
    assert [record.id for record in dataset] == ["train-0/all"]


@pytest.mark.parametrize("line", ["[" * 200_000, "9" * 5000, "{", "\x00", "NaN", '"a'])
def test_odd_lines_cost_themselves(line: str, tmp_path: Path) -> None:
    given = files.vcr(tmp_path)
    text = given.annotations.read_text()
    given.annotations.write_text(f"\ufeff{text}{line}\n", encoding="utf-8")  # in front, a byte order mark
    assert len(opened(given)) == 2 and sum(opened(given).problems.counts().values()) == 1


def test_a_category_without_a_name_trains_nothing(tmp_path: Path) -> None:
    for name in ("", " ", "__"):
        given = edited(files.coco(tmp_path), of_first("categories", name=name))
        dataset = opened(given)
        assert dataset.problems.counts() == {MISSING: 1, OUT_OF_RANGE: 1}, dataset.report()
        assert dataset.annotation(0).texts == ("toothbrush",)


def test_an_id_that_stands_for_two_things_stands_for_none(tmp_path: Path) -> None:
    def two_categories(content: Any) -> None:
        content["categories"].append({"id": 1, "name": "horse"})

    dataset = opened(edited(files.coco(tmp_path / "categories"), two_categories))
    assert dataset.annotation(0).texts == ("toothbrush",)
    assert dataset.problems.counts() == {AMBIGUOUS: 1, OUT_OF_RANGE: 1}
    same = opened(edited(files.coco(tmp_path / "same"), lambda content: content["images"].append(content["images"][0])))
    assert len(same) == 1 and not same.problems.counts()

    given = files.unc_refs(tmp_path / "refs")
    instances = given.options["instances"]
    content = json.loads(instances.read_text())
    content["annotations"].append({**content["annotations"][0], "bbox": [9, 9, 9, 9]})
    files.write(instances, content)
    dataset = opened(given)
    assert len(dataset) == 0 and dataset.problems.counts() == {AMBIGUOUS: 1, OUT_OF_RANGE: 1}


@pytest.mark.parametrize(("mark", "crowds"), [("0", 1), (0, 1), (None, 1), (False, 1), ("1", 2), (1.0, 2), (True, 2)])
def test_a_crowd_is_one_whose_mark_says_so(mark: Any, crowds: int, tmp_path: Path) -> None:
    def edit(content: Any) -> None:
        content["annotations"][0]["iscrowd"] = mark

    dataset = opened(edited(files.coco(tmp_path), edit))
    assert dataset.problems.left_out[CROWDS] == crowds and not dataset.problems.counts()


SHAPES = [
    *((kind, np.ones((5, 4))) for kind in ("pkl", "npz", "parquet")),
    *(("pkl", rows) for rows in (np.ones(10), np.ones((2, 5, 1)), [["a"] * 5], None)),
]


@pytest.mark.parametrize(("kind", "rows"), SHAPES)
def test_detections_of_another_shape_are_not_reshaped(kind: str, rows: Any, tmp_path: Path) -> None:
    given = files.llava(tmp_path, kind)
    boxes = given.options["boxes"]
    if kind == "pkl":
        boxes.write_bytes(pickle.dumps([{"filename": "000000033471.jpg", "pred_bboxes": rows}], protocol=4))
    elif kind == "npz":
        np.savez(boxes, filename=np.array(["000000033471.jpg"]), offsets=np.array([0, len(rows)]), pred_bboxes=rows)
    else:
        table = pyarrow.table({"filename": ["000000033471.jpg"], "pred_bboxes": [rows.tolist()]})
        pyarrow.parquet.write_table(table, boxes)
    dataset = opened(given)
    assert dataset.problems.counts() == {WRONG_TYPE: 1}, dataset.report()
    assert [len(record.boxes) for record in dataset] == [0, 0]


@pytest.mark.parametrize(("options", "words"), [
    ({"max_boxes": -1}, "max_boxes must be at least 0, but is -1"),
    ({"max_boxes": 2.5}, "max_boxes must be a whole number"),
    ({"max_boxes": True}, "max_boxes must be a whole number"),
    ({"min_score": float("nan")}, "min_score must be a finite number, but is nan"),
    ({"min_score": "high"}, "min_score must be a number"),
    ({"min_score": True}, "min_score must be a number"),
    ({"max_regions": 0}, "max_regions must be at least 1"),
    *(({"max_regions": wrong}, "max_regions must be a whole number") for wrong in (2.5, float("nan"), True)),
])  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        opened(files.llava(tmp_path), **options)


def test_numbers_may_be_numpys(tmp_path: Path) -> None:
    given = files.llava(tmp_path)
    plain = opened(given, max_boxes=1, min_score=0.5, max_regions=3)
    numpys = opened(given, max_boxes=np.int64(1), min_score=np.float32(0.5), max_regions=np.int32(3))
    assert [record.boxes.tolist() for record in numpys] == [record.boxes.tolist() for record in plain]


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_detections_take_little_memory(kind: str, tmp_path: Path) -> None:
    file, count = tmp_path / f"detected.{kind}", 200_000
    names = np.array([f"{number}.jpg" for number in range(count // 100)])
    boxes = np.random.default_rng(0).random((count, 5))
    offsets = np.arange(0, count + 1, 100)
    if kind == "npz":
        np.savez(file, filename=names, offsets=offsets, pred_bboxes=boxes)
    else:
        rows = boxes.reshape(-1, 100, 5).tolist()
        pyarrow.parquet.write_table(pyarrow.table({"filename": names.tolist(), "pred_bboxes": rows}), file)
    tracemalloc.start()
    found = read_detections(file, Problems(strict=True))
    held, most = tracemalloc.get_traced_memory()
    assert held < 1.5 * boxes.nbytes and most < 3 * boxes.nbytes
    tracemalloc.stop()
    assert len(found) == len(names)


@pytest.mark.parametrize("kind", ["pkl", "npz", "parquet"])
@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:-9] + b"z" * 9]
)
def test_damaged_detections_are_named(kind: str, damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    given = files.llava(tmp_path, kind)
    boxes = given.options["boxes"]
    boxes.write_bytes(damage(boxes.read_bytes()))
    with pytest.raises(ValueError, match=f"detected.{kind}"):
        opened(given)


def test_broken_elements_cost_themselves(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    for broken in (
        "{'a': 1}",
        '{"a": tru}',
        '{"a": [1, 2,]}',
        "[" * 200_000 + "]" * 200_000,
        "9" * 5000,
        '"\x01"',
        "x",
        "",
    ):
        file.write_text(f'{{"a": [1, {broken}, {{"b": ","}}], "c": {broken}, "d": 2.5e1}}')
        problems = Problems()
        assert list(elements(file, problems)) == [("a", 1), ("a", {"b": ","}), ("d", 25.0)], broken[:20]
        assert problems.counts() == {BROKEN_JSON: 2}


def test_a_broken_element_is_not_looked_for_through_the_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_text("[{'a': 1}" + ', {"b": 1}' * 500_000 + "]")
    found = elements(file, Problems())
    tracemalloc.start()
    assert next(found) == ("", {"b": 1})
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize("number", ["1.x", "1.", "-2ex", "1E+x"])
def test_a_broken_number_is_not_looked_for_through_the_whole_file(
    number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 2**14)
    file = tmp_path / "file.json"
    file.write_text(f"[{number}" + ', {"b": 1}' * 500_000 + "]")
    problems = Problems()
    tracemalloc.start()
    list(elements(file, problems))
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert problems.counts() == {BROKEN_JSON: 1}


@pytest.mark.parametrize("text", ["1.5", "1e5", "1E+5", "-2e-12", "12", "true", '"a"'])
def test_a_number_may_be_cut_anywhere_by_the_end_of_a_chunk(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 1)
    file = tmp_path / "file.json"
    for whole in (f"[{text}, {text}]", f'{{"a": {text}, "b": [{text}]}}'):
        for blanks in range(4):
            file.write_text(" " * blanks + whole)
            assert [value for _, value in elements(file, Problems(strict=True))] == [json.loads(text)] * 2


def test_what_is_too_long_is_not_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 64)
    monkeypatch.setattr(json_stream, "MAX_ELEMENT", 1000)
    file = tmp_path / "file.json"
    for element in ('"' + "a" * 9000 + '"', "1" * 4000):
        file.write_text(f"[{element}, 5]")
        problems = Problems()
        assert not list(elements(file, problems)) and problems.counts() == {BROKEN_JSON: 1}


def test_a_damaged_list_of_bad_records_says_so(tmp_path: Path) -> None:
    given = edited(files.coco(tmp_path), of_first("annotations", bbox=[5, 5, 0, 9]))
    listed = opened(given).index.problems
    listed.write_bytes(listed.read_bytes() + b'\n{"reason": "box wi\n\xff\xfe\n[1]\n')
    dataset = opened(given)
    assert dataset.problems.counts() == {ZERO_AREA: 1, BROKEN_JSON: 3}
    assert f"{listed}: line 3" in dataset.report() and "rebuild=True" in dataset.report()
    assert opened(given, rebuild=True).problems.counts() == {ZERO_AREA: 1}


@pytest.mark.parametrize("make", [files.coco, files.vcr, files.unc_refs, files.vg_regions, files.llava, files.refcoco])
def test_a_pipe_as_annotation_file_does_not_hang(make: Callable[[Path], Given], tmp_path: Path) -> None:
    given = make(tmp_path)
    for file in [given.annotations, *given.options.values()]:
        if isinstance(file, Path):
            content = file.read_bytes()
            file.unlink()
            os.mkfifo(file)
            with pytest.raises(ValueError, match="is a pipe; copy"):
                opened(given)
            file.unlink()
            file.write_bytes(content)
    with pytest.raises(ValueError, match="is a device"):
        load(given.format, "/dev/zero", cache=tmp_path)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load(given.format, tmp_path, cache=tmp_path)
    with pytest.raises(NotADirectoryError, match="images must be a folder"):
        load(given.format, given.annotations, given.annotations, cache=tmp_path)


@pytest.mark.slow
def test_a_place_in_a_pickles_memo_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "a.p"
    for data in (b"\x80\x04Nr\xff\xff\xff\x7f.", b"Np2000000000\n.", b"\x80\x04\x8c\x01aNr\xff\xff\xff\x7f."):
        file.write_bytes(data)
        with pytest.raises(ValueError, match="names object 2,"):
            read_pickle(file)
    for protocol in range(6):
        content = [
            {"a": [f"{number} é"] * 3, "b": [number, 2.5, None, True, (number, number << 70)]}
            for number in range(70_000)
        ]
        file.write_bytes(pickle.dumps(content, protocol))
        assert read_pickle(file) == content


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "\ufeff", "\x00\x07", "\u200b \u2060"])
def test_a_text_of_which_nothing_can_be_seen_is_blank(text: str) -> None:
    assert is_blank(text) and not is_blank(f"{text}é")
    for entry, read in (({"name": text}, category_name), ({"value": text}, lambda one: text_field(one, "value"))):
        with pytest.raises(BadRecord, match="is empty"):
            read(entry)


@pytest.mark.parametrize("seed", [True, 1.5])
def test_a_seed_that_is_no_whole_number_is_named(tmp_path: Path, seed: Any) -> None:
    with pytest.raises(TypeError, match="seed must be a whole number"):
        opened(files.coco(tmp_path), seed=seed)


def test_boxes_with_a_mask_are_not_read_as_if_they_had_none() -> None:
    boxes = np.ma.array([[1, 2, 3, 4], [5, 6, 7, 8]], mask=[[False] * 4, [True] * 4])
    for rows in (boxes, list(boxes)):
        with pytest.raises(ValueError, match="some of the boxes are masked"):
            as_boxes(rows)
    assert len(as_boxes(boxes[:1])) == 1
