"""Bad records are counted by reason, listed, and never raise, unless asked to."""

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import annotation_files as files
import pytest
from annotation_files import Given

from gpt4roi_nb.data import BadRecord, RegionDataset, load
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.problems import (
    BROKEN_JSON,
    MISSING,
    NO_IMAGE,
    OUT_OF_RANGE,
    OUTSIDE,
    UNREADABLE_IMAGE,
    WRONG_TURNS,
    WRONG_TYPE,
    ZERO_AREA,
    Problems,
)


def opened(given: Given, **more: Any) -> RegionDataset:
    cache = given.annotations.parent / "cache"
    return load(given.format, given.annotations, given.images, cache=cache, **given.options, **more)


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
    (files.vg_regions, lambda content: content[0]["regions"][0].update(width=0), ZERO_AREA, 1),
    (files.vg_regions, lambda content: content[0]["regions"].append("x"), WRONG_TYPE, 1),
    (files.vg_regions, lambda content: content.append({"id": 5}), MISSING, 1),
    (files.llava, lambda content: content[0]["conversations"].pop(), WRONG_TURNS, 1),
    (files.llava, lambda content: content[0]["conversations"].reverse(), WRONG_TURNS, 1),
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


def test_the_other_segments_of_a_panoptic_picture_stay(tmp_path: Path) -> None:
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


def test_a_damaged_picture_is_noted_once_and_the_epoch_goes_on(tmp_path: Path) -> None:
    given = files.refcoco(tmp_path)
    dataset = opened(given)
    picture = given.images / dataset[0].image
    picture.write_bytes(picture.read_bytes()[:100])
    other = pickle.loads(pickle.dumps(dataset))  # as a worker has it
    for _ in range(2):
        assert dataset.read(0) is None
        assert other.read(0) is None
    assert dataset.problems.counts() == {UNREADABLE_IMAGE: 1}
    with pytest.raises(BadRecord, match=r"strict=False"):
        opened(given, strict=True).read(0)


def test_pictures_that_are_not_there_are_left_out_until_they_come(tmp_path: Path) -> None:
    given = files.coco(tmp_path)
    picture = given.images / "000000000009.jpg"
    data = picture.read_bytes()
    picture.unlink()
    dataset = opened(given)
    assert len(dataset) == 0
    assert dataset.problems.counts() == {NO_IMAGE: 1}
    with pytest.raises(BadRecord, match="000000000009"):
        opened(given, strict=True)
    picture.write_bytes(data)
    assert len(opened(given, strict=True)) == 1
    assert not opened(given).problems.counts()


def test_every_record_of_a_missing_picture_is_listed(tmp_path: Path) -> None:
    given = files.refcoco(tmp_path)
    records = [record for record in opened(given) if record.image == opened(given)[0].image]
    (given.images / records[0].image).unlink()
    listed = {entry["where"] for entry in opened(given).problems}
    assert listed == {f"{given.annotations.name}: record {record.id}" for record in records} and len(records) > 1


def test_boxes_of_a_missing_picture_come_with_it(tmp_path: Path) -> None:
    given = files.llava(tmp_path)
    picture = given.images / "000000033471.jpg"
    data = picture.read_bytes()
    picture.unlink()
    assert opened(given).problems.counts() == {NO_IMAGE: 2}
    picture.write_bytes(data)
    assert len(opened(given, strict=True)[0].boxes) == 2


def test_a_box_beyond_the_real_picture_is_noted(tmp_path: Path) -> None:
    given = edited(files.vg_regions(tmp_path), lambda content: content[0]["regions"][0].update(x=500))
    dataset = opened(given)
    assert dataset.read(0) is None
    assert dataset.problems.counts() == {OUTSIDE: 1}
