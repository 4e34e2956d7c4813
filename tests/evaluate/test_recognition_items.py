"""Cityscapes and ADE20K from folder to metrics: questions, scores by both mappings, and counts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panoptic_scenes import ROOM, STREET, YARD, write_ade20k, write_cityscapes
from PIL import Image
from pycocotools import mask as coco_mask

from gpt4roi_nb.data.masks import bounds
from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.data.scenes.formats.write import write_world
from gpt4roi_nb.evaluate.benchmarks.benchmark import Benchmark
from gpt4roi_nb.evaluate.benchmarks.class_names import TABLES
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.benchmarks.recognition import ADE20K, CITYSCAPES, OWN_WORDS
from gpt4roi_nb.evaluate.benchmarks.registry import benchmark
from gpt4roi_nb.evaluate.metrics.coco_ap import encoded_mask
from gpt4roi_nb.evaluate.metrics.statistics import intervals

pytestmark = pytest.mark.xdist_group("sentences")  # importing sentence-transformers takes seconds: in one worker

OWN = {OWN_WORDS: 4}  # of the hand-made images, without Osprey's file


def predictions(items: list[Item], answers: list[str]) -> list[Prediction]:
    return [Prediction(item.id, text, -0.1, None, 0.01, 100, 40) for item, text in zip(items, answers, strict=True)]


def scored(
    chosen: Benchmark, root: Path, folder: Path, answers: dict[str, str] | None = None
) -> tuple[Scores, list[Item]]:
    """Score the true names, with some of them replaced by `answers`, by item."""
    config = EvalConfig(root, "val", folder=folder, keep=True)
    items = list(chosen.items(config, Problems(strict=True)))
    texts = [(answers or {}).get(item.id, f"a {item.target}") for item in items]
    return chosen.score(items, predictions(items, texts), config), items


def test_each_region_is_asked_about_with_its_box(tmp_path: Path) -> None:
    items = list(CITYSCAPES.items(EvalConfig(write_cityscapes(tmp_path), "val"), Problems(strict=True)))
    assert [item.id for item in items[:4]] == [f"cityscapes/city_000000_000000/{k}" for k in (7, 26, 26000, 26001)]
    assert items[2].boxes == ((60, 0, 90, 20),)
    assert (items[2].target, items[2].kind, items[2].region) == ("car", "car", 1)
    assert items[2].question == CITYSCAPES.prompt
    assert {item.group for item in items} == {"cityscapes/city_000000_000000", "cityscapes/city_000001_000000"}
    assert Path(items[0].image).is_file()
    json.dumps(items[0].facts)
    other = EvalConfig(tmp_path, "val", question="What is <region1>?")
    assert {item.question for item in CITYSCAPES.items(other, Problems())} == {"What is <region1>?"}


def test_boxes_come_from_the_pixels_where_the_file_has_none(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    expected = [item.boxes for item in CITYSCAPES.items(EvalConfig(root, "val"), Problems())]
    file = root / "gtFine" / "cityscapes_panoptic_val.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        for segment in annotation["segments_info"]:
            del segment["bbox"]
    file.write_text(json.dumps(content))
    assert [item.boxes for item in CITYSCAPES.items(EvalConfig(root, "val"), Problems())] == expected


def test_true_names_give_100_by_both_mappings_and_no_disagreement(tmp_path: Path) -> None:
    for chosen, write in ((CITYSCAPES, write_cityscapes), (ADE20K, write_ade20k)):
        folder = tmp_path / chosen.title
        found, items = scored(chosen, write(folder), folder)
        assert list(found.metrics)[:6] == [f"{n}{m}" for m in ("", " (lexical)") for n in ("PQ", "AP", "mIoU")]
        assert {figure.value for figure in found.metrics.values()} == {100}
        assert found.columns["correct"] == [True] * len(items)
        assert found.columns["mapped_sbert"] == found.columns["mapped_lexical"] == [item.target for item in items]
        assert found.counts == OWN
        assert (folder / "disagreements.jsonl").read_text() == ""
        assert "disagree on 0 of" in found.notes[1]
        assert "nearly flat" in found.notes[0]
        assert all(low == high == 100 for low, high in intervals(found.metrics).values())


def test_masks_of_the_regions_come_back_as_run_lengths(tmp_path: Path) -> None:
    found, items = scored(CITYSCAPES, write_cityscapes(tmp_path), tmp_path)
    for item, counts in zip(items, found.columns["mask"], strict=True):
        mask = coco_mask.decode({"size": [40, 100], "counts": counts.encode()}).astype(bool)
        shown = STREET if item.facts["image_id"] == "city_000000_000000" else YARD
        assert np.array_equal(mask, shown == item.facts["segment_id"])


def test_wrong_empty_and_unknown_answers_are_scored_counted_and_listed(tmp_path: Path) -> None:
    street = "cityscapes/city_000000_000000"
    said = {f"{street}/26000": "a pedestrian", f"{street}/7": "", f"{street}/26001": "a sedan parked at the kerb"}
    found, items = scored(CITYSCAPES, write_cityscapes(tmp_path), tmp_path, said)
    by_id = {item.id: k for k, item in enumerate(items)}
    sbert, lexical = found.columns["mapped_sbert"], found.columns["mapped_lexical"]
    # pedestrian is a synonym, but only of the class that the real dataset calls person, which this one does too
    assert (sbert[by_id[f"{street}/26000"]], lexical[by_id[f"{street}/26000"]]) == ("person", "person")
    assert (sbert[by_id[f"{street}/7"]], lexical[by_id[f"{street}/7"]]) == (None, None)
    assert (sbert[by_id[f"{street}/26001"]], lexical[by_id[f"{street}/26001"]]) == ("car", None)
    assert found.counts == OWN | {"empty answers": 1, "category unknown to the mapping": 1}
    assert found.columns["correct"].count(False) == 2
    # accuracy is of regions: 4 of 6 and 3 of 6
    assert found.metrics["accuracy"].value == pytest.approx(400 / 6)
    assert found.metrics["accuracy (lexical)"].value == pytest.approx(300 / 6)
    # by words the second car and the road have no class, and of cars there is only the group, which counts for nothing
    assert found.metrics["PQ (lexical)"].value == pytest.approx(100 * (0 + 1 + 2 / 3 + 0) / 4)
    assert found.metrics["PQ"].value == pytest.approx(100 * (0 + 1 + 2 / 3 + 2 / 3) / 4)
    assert found.metrics["AP (lexical)"].value == pytest.approx(100 * (0.75 + 0) / 2)  # Cityscapes breaks here
    (line,) = map(json.loads, (tmp_path / "disagreements.jsonl").read_text().splitlines())
    assert line["id"] == f"{street}/26001"
    assert (line["sentence_bert"], line["lexical"], line["target"]) == ("car", None, "car")
    assert line["box"] == [60, 20, 90, 40]


def osprey_words(table: dict[int, tuple[str, ...]], first: int, **changed: str) -> str:
    """The file as in Osprey's repository: a number and words per line; 0 of ADE20K is no class."""
    lines = ["0:invalid_class_id"] * first
    lines += [f"{k}:{changed.get(names[0], names[0])}" for k, names in enumerate(table.values(), first)]
    return "\n".join(lines)


def test_ospreys_words_are_taken_where_the_data_has_them_and_the_card_says_so(tmp_path: Path) -> None:
    for chosen, write, table, first, file in (
        (CITYSCAPES, write_cityscapes, TABLES["cityscapes"], 0, "cityscapes_with_prompt_eng.txt"),
        (ADE20K, write_ade20k, TABLES["ade20k"], 1, "ade20k_150_with_prompt_eng.txt"),
    ):
        root = write(tmp_path / chosen.name)
        said = {item.id: "a zeppelin" for item in scored(chosen, root, tmp_path)[1] if item.target in ("car", "bed")}
        before, _ = scored(chosen, root, tmp_path, said)
        assert "not comparable with published ones" in before.notes[2]
        (root / file).write_text(osprey_words(table, first, car="airship,zeppelin", bed="airship,zeppelin"))
        after, items = scored(chosen, root, tmp_path, said)
        assert after.counts == {f"classes with the words of {file}": 4}
        assert not any("synonyms" in note for note in after.notes)
        assert before.metrics["accuracy (lexical)"].value < after.metrics["accuracy (lexical)"].value == 100
        assert after.columns["mapped_sbert"] == [item.target for item in items]  # by the dataset's own name
        assert items[0].question == "What is in <region1>? Using a short phrase."


def test_ade20ks_ap_is_against_its_instances_where_the_data_has_them(tmp_path: Path) -> None:
    root = write_ade20k(tmp_path)
    segments, _ = scored(ADE20K, root, tmp_path)
    assert any("AP is computed against the panoptic segments" in note for note in segments.notes)
    # The panoptic file has two beds. The file of instances takes them for one, half of which each covers: one is right
    # at the first of ten thresholds, at none further. The window is found.
    mask = np.isin(ROOM, (7000, 7001))
    window = ROOM == 8000
    file = root / "ADEChallengeData2016" / "ade20k_instance_val.json"
    entries = [instance(k, category, shape) for k, (category, shape) in enumerate([(7, mask), (8, window)], 1)]
    foreign = {**entries[0], "id": 9, "image_id": "ADE_val_00000099"}
    image = {"id": "ADE_val_00000001", "file_name": "ADE_val_00000001.jpg", "width": 100, "height": 40}
    content = {"images": [image], "categories": [], "annotations": [*entries, foreign, {"image_id": image["id"]}]}
    file.write_text(json.dumps(content))
    found, _ = scored(ADE20K, root, tmp_path)
    assert found.counts == OWN | {
        "instances of ade20k_instance_val.json": 2,
        "bad records of ade20k_instance_val.json": 1,
    }
    assert found.metrics["AP (lexical)"].value == pytest.approx(100 * (1 / 10 + 1) / 2)
    assert found.metrics["PQ"].value == 100  # which is of the panoptic file
    assert not any("AP is computed against the panoptic" in note for note in found.notes)
    whole = entries[0]["segmentation"]["counts"]
    for counts in (whole[:-2], "", "é"):
        entries[0]["segmentation"]["counts"] = counts
        file.write_text(json.dumps({"annotations": entries}))
        broken, _ = scored(ADE20K, root, tmp_path)
        assert broken.counts["images whose ground truth cannot be read"] == 1


def instance(number: int, category: int, mask: np.ndarray) -> dict[str, Any]:
    """An annotation as Mask2Former's `prepare_ade20k_ins_seg.py` writes it."""
    lengths = encoded_mask(mask)
    counts = {"size": list(mask.shape), "counts": lengths["counts"].decode()}
    facts = {"id": number, "image_id": "ADE_val_00000001", "iscrowd": 0, "category_id": category}
    x1, y1, x2, y2 = bounds(mask)
    bbox = [x1, y1, x2 - x1, y2 - y1]
    return {**facts, "bbox": bbox, "segmentation": counts, "area": int(mask.sum())}


def test_images_that_were_not_asked_about_do_not_count(tmp_path: Path) -> None:
    config = EvalConfig(write_cityscapes(tmp_path), "val", folder=tmp_path, keep=True)
    items = [item for item in CITYSCAPES.items(config, Problems()) if "city_000001" in item.group]
    found = CITYSCAPES.score(items, predictions(items, [item.target for item in items]), config)
    assert found.metrics["PQ"].value == 100
    assert found.metrics["PQ"].units == ("city_000001_000000",)


def test_a_region_that_could_not_be_asked_about_has_no_class(tmp_path: Path) -> None:
    config = EvalConfig(write_cityscapes(tmp_path, [STREET]), "val", folder=tmp_path, keep=True)
    items = [item for item in CITYSCAPES.items(config, Problems()) if item.facts["segment_id"] != 26001]
    found = CITYSCAPES.score(items, predictions(items, [item.target for item in items]), config)
    assert found.metrics["PQ"].value == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert found.metrics["accuracy"].value == 100


def test_a_broken_ground_truth_is_counted_and_no_crash(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    (root / "gtFine/cityscapes_panoptic_val/city_000000_000000_gtFine_panoptic.png").write_bytes(b"?")
    found, items = scored(CITYSCAPES, root, tmp_path)
    assert found.counts == OWN | {"images whose ground truth cannot be read": 1}
    assert found.metrics["PQ"].value == 100
    assert found.columns["mask"].count(None) == 4
    assert len(items) == 6


@pytest.mark.parametrize("file", ["labelIds", "instanceIds"])
@pytest.mark.parametrize("content", ["no image", "another size"])
def test_a_truth_that_cannot_be_read_counts_for_neither_mapping(tmp_path: Path, file: str, content: str) -> None:
    root = write_cityscapes(tmp_path)
    png = root / f"gtFine/val/city/city_000000_000000_gtFine_{file}.png"
    if content == "no image":
        png.write_bytes(b"?")
    else:
        Image.fromarray(np.zeros((20, 50), np.uint8)).save(png)
    found, _ = scored(CITYSCAPES, root, tmp_path)
    assert found.counts == OWN | {"images whose ground truth cannot be read": 1}
    for name in ("PQ", "AP", "mIoU", "PQ (lexical)", "AP (lexical)", "mIoU (lexical)"):
        assert found.metrics[name].value == 100
        assert found.metrics[name].units == ("city_000001_000000",)


def test_areas_that_the_file_does_not_tell_come_from_the_pixels(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    said = {"cityscapes/city_000000_000000/26000": "a person"}
    expected, _ = scored(CITYSCAPES, root, tmp_path, said)
    file = root / "gtFine" / "cityscapes_panoptic_val.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        del annotation["segments_info"][0]["area"]
        annotation["segments_info"][-1]["area"] = None
    file.write_text(json.dumps(content))
    found, _ = scored(CITYSCAPES, root, tmp_path, said)
    assert found.counts == OWN
    assert {name: figure.value for name, figure in found.metrics.items()} == {
        name: figure.value for name, figure in expected.metrics.items()
    }


def test_what_is_not_kept_is_not_spoken_of(tmp_path: Path) -> None:
    config = EvalConfig(write_cityscapes(tmp_path / "data"), "val", folder=tmp_path)
    items = list(CITYSCAPES.items(config, Problems()))
    found = CITYSCAPES.score(items, predictions(items, [item.target for item in items]), config)
    assert "disagree on 0 of 6 regions." in found.notes[1]
    assert not (tmp_path / "disagreements.jsonl").exists()


def test_no_items_give_no_figures_and_no_crash(tmp_path: Path) -> None:
    config = EvalConfig(write_cityscapes(tmp_path), "val", folder=tmp_path, keep=True)
    found = CITYSCAPES.score([], [], config)
    assert all(np.isnan(figure.value) for figure in found.metrics.values())


def test_a_class_that_the_file_does_not_list_is_a_bad_record(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    file = root / "gtFine" / "cityscapes_panoptic_val.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segments_info"][0]["category_id"] = 99
    content["annotations"][1] = {"image_id": "city_000001_000000"}
    file.write_text(json.dumps(content))
    problems = Problems()
    assert len(list(CITYSCAPES.items(EvalConfig(root, "val"), problems))) == 3
    assert problems.counts() == {"wrong type": 1, "missing field": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("worlds") / "world", 21, seed=11, workers=0, progress=False)


@pytest.mark.parametrize("name", ["cityscapes", "ade20k"])
def test_the_generated_world_is_measured_where_it_lies(world: Path, tmp_path: Path, name: str) -> None:
    chosen = benchmark(name)
    assert all(path.exists() for path in chosen.files(world, "val").values())
    found, items = scored(chosen, world, tmp_path)
    assert len({item.group for item in items}) == 3
    assert {"table", "wall"} < {item.kind for item in items}
    assert {name: round(figure.value, 9) for name, figure in found.metrics.items()} == dict.fromkeys(found.metrics, 100)
    assert found.counts == {OWN_WORDS: 9}
    # the answers of a model that knows the world
    assert list(map(str, found.columns["mapped_lexical"])) == [item.target for item in items]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    for name in ("cityscapes", "ade20k"):
        needed = benchmark(name).files(tmp_path, "val")
        assert len(needed) == 4
        assert not any(path.exists() for path in needed.values())
        assert any("makes it from" in what for what in needed)
