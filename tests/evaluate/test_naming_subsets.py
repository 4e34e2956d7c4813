"""The files of questions behind the published figures of LVIS and PACO, in the layouts of their authors' loaders.

These are Osprey's `lvis_paco_eval.py`, Ferret's `model_lvis.py` and `eval_lvis.py`, and ControlMLLM's `task/ROC`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.benchmarks.naming import LVIS, PACO
from gpt4roi_nb.evaluate.benchmarks.naming_subsets import CONTROLMLLM_TEST
from gpt4roi_nb.evaluate.benchmarks.registry import check_files

pytestmark = pytest.mark.xdist_group("sentences")
OSPREY = {
    "id": 9,
    "file_name": "000000000009.jpg",
    "height": 80,
    "width": 100,
    "categories": ["mug_(drinking_vessel)", "mug:handle"],
    "annotations": [
        {"bbox": [10, 10, 20, 20], "segmentation": [[10, 10, 30, 10, 30, 30]]},
        {"bbox": [25.5, 12, 5, 9], "segmentation": {"size": [80, 100], "counts": "abc"}},
    ],
}
FERRET = {
    "id": 1,
    "image_path": "/somewhere/val2017/000000000009.jpg",
    "height": 80,
    "width": 100,
    "name": "mug",
    "synonyms": ["mug", "cup_(drinking_vessel)"],
    "neg_class": "bowl",
    "bbox": [10, 10, 20, 20],
    "bbox_norm": [0.1, 0.125, 0.3, 0.375],
    "sample_point": [20, 20],
}
CONTROLMLLM = {
    "id": 1,
    "image_path": "coco/val2017/000000000009.jpg",
    "text": "Is the object <location> of the image a bowl or a mug?",
    "name": "mug",
    "synonyms": ["mug"],
    "bbox": [10, 10, 20, 20],
    "seg_mask": "1.png",
    "center_point": [20, 20],
    "scribble": [[20, 20]],
}


def coco(root: Path, *images: str) -> Path:
    for folder in ("train2017", "val2017"):
        (root / "coco" / folder).mkdir(parents=True, exist_ok=True)
    for image in images:
        (root / "coco" / image).write_bytes(b"")
    for name in ("lvis", "paco"):
        (root / name).mkdir(exist_ok=True)
    return root


def lines(*entries: dict[str, Any]) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def scored(root: Path, split: str, items: list[Item], answers: list[str]) -> Scores:
    given = [Prediction(item.id, text, -0.1, None, 0.1, 100, 80) for item, text in zip(items, answers, strict=True)]
    return LVIS.score(items, given, EvalConfig(root, split))


def test_ospreys_objects_are_the_default_wherever_their_images_lie(tmp_path: Path) -> None:
    root = coco(tmp_path, "train2017/000000000009.jpg", "val2017/000000000010.jpg")
    second = {
        **OSPREY,
        "file_name": "000000000010.jpg",
        "annotations": [OSPREY["annotations"][0], {"bbox": [0, 0, 0, 9]}],
    }
    foreign = {**OSPREY, "file_name": "val2017/000000000010.jpg", "categories": ["mug"]}  # one name for two boxes
    for chosen, name in ((LVIS, "lvis"), (PACO, "paco")):
        assert chosen.splits[0] == f"{name}_val_1k_category"
        (root / name / f"{chosen.splits[0]}.json").write_text(json.dumps([OSPREY, second, foreign]))
        check_files(name, root, chosen.splits[0])
        problems = Problems()
        items = list(chosen.items(EvalConfig(root, chosen.splits[0]), problems))
        assert [(item.target, item.kind) for item in items] == [
            ("mug (drinking vessel)", "object"), ("mug handle", "part"), ("mug (drinking vessel)", "object")
        ]  # fmt: skip
        assert {item.question for item in items} == {
            "What is the category of <region1>? Using only one word or phrase."
        }
        assert items[1].boxes == ((25.5, 12, 30.5, 21),)
        images = [str(root / "coco" / place) for place in ("train2017/000000000009.jpg", "val2017/000000000010.jpg")]
        assert [item.image for item in items] == [images[0], images[0], images[1]]
        assert problems.counts() == {"box without area": 1, "wrong type": 1}
        given = [Prediction(item.id, f"It is: {item.target}.", -0.1, None, 0.1, 100, 80) for item in items]
        found = chosen.score(items, given, EvalConfig(root, chosen.splits[0]))
        assert {key: metric.value for key, metric in found.metrics.items()} == pytest.approx({"SS": 100, "S-IoU": 100})
        assert found.counts == {f"questions in {chosen.splits[0]}.json": 5}


def test_ferrets_questions_name_the_true_one_first_in_turn(tmp_path: Path) -> None:
    root = coco(tmp_path, "val2017/000000000009.jpg")
    text = lines(FERRET, FERRET) + "broken\n" + lines({**FERRET, "bbox_norm": [1, 1, 2, 2]}, FERRET)
    (root / "lvis" / "lvis_eval.jsonl").write_text(text)
    check_files("lvis", root, "lvis_eval")
    problems = Problems()
    items = list(LVIS.items(EvalConfig(root, "lvis_eval"), problems))
    ask = "Is the object <region1> of the image a {} or a {}?"
    # by the line's number, even if earlier lines are left out
    assert [item.question for item in items] == [ask.format(*pair) for pair in (
        ("mug", "bowl"), ("bowl", "mug"), ("mug", "bowl"))
    ]  # fmt: skip
    assert {item.image for item in items} == {str(root / "coco/val2017/000000000009.jpg")}
    assert items[0].boxes == (pytest.approx((10, 10, 30, 30)),)
    assert problems.counts() == {"broken JSON": 1, "box outside the image": 1}
    found = scored(root, "lvis_eval", items, ["a cup", "It is a mug or a bowl", "a bowl, not a mug."])
    assert found.columns["correct"] == [True, True, False]
    assert {key: metric.value for key, metric in found.metrics.items()} == pytest.approx(
        {"binary choice": 200 / 3, "binary choice (strict)": 100 / 3}
    )
    assert found.counts == {"questions in lvis_eval.jsonl": 4}


def test_a_name_that_reads_like_a_region_names_none(tmp_path: Path) -> None:
    root = coco(tmp_path, "val2017/000000000009.jpg")
    (root / "lvis" / "lvis_eval.jsonl").write_text(lines({**FERRET, "neg_class": "<region1>"}))
    (item,) = LVIS.items(EvalConfig(root, "lvis_eval"), Problems())
    assert item.question == "Is the object <region1> of the image a mug or a (region1)?"
    assert item.options == ("mug", "(region1)")


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "é" * 130 + ".jpg"])  # of 255 bytes at most, on all systems
def test_a_name_that_no_file_can_have_is_a_bad_record_in_every_file_of_questions(tmp_path: Path, name: str) -> None:
    root = coco(tmp_path, "val2017/000000000009.jpg")
    ospreys = [{**OSPREY, "file_name": name}, {**OSPREY, "file_name": "a/" * 2000 + "b.jpg"}, OSPREY]
    (root / "lvis" / "lvis_val_1k_category.json").write_text(json.dumps(ospreys))
    for file, entry in (("lvis_eval.jsonl", FERRET), ("question_roc.json", CONTROLMLLM)):
        (root / "lvis" / file).write_text(lines({**entry, "image_path": f"val2017/{name}"}, entry))
    for split, bad in (("lvis_val_1k_category", 2), ("lvis_eval", 1), ("question_roc", 1)):
        problems = Problems()
        assert list(LVIS.items(EvalConfig(root, split), problems))
        assert problems.counts() == {"no such image": bad}


def test_controlmllms_test_part_is_asked_in_the_files_words(tmp_path: Path) -> None:
    root = coco(tmp_path, "val2017/000000000009.jpg")
    wordless = {**CONTROLMLLM, "text": "Is it a bowl or a mug?"}
    rest = [CONTROLMLLM] * (CONTROLMLLM_TEST - 2)
    (root / "lvis" / "question_roc.json").write_text(lines(CONTROLMLLM, wordless, *rest, CONTROLMLLM, CONTROLMLLM))
    check_files("lvis", root, "question_roc")
    problems = Problems()
    items = list(LVIS.items(EvalConfig(root, "question_roc"), problems))
    assert len(items) == CONTROLMLLM_TEST - 1 and problems.counts() == {"wrong type": 1}
    assert items[0].question == "Is the object <region1> of the image a bowl or a mug?"
    assert items[0].options == ("bowl", "mug") and items[0].facts["false"] == ("bowl",)
    assert (items[0].boxes, items[0].image) == (((10, 10, 30, 30),), str(root / "coco/val2017/000000000009.jpg"))
    found = scored(root, "question_roc", items[:2], ["a mug or a bowl", "a bowl"])
    assert [metric.value for metric in found.metrics.values()] == [50, 0]
    assert found.counts == {"questions in question_roc.json": CONTROLMLLM_TEST}
    own = root / "lvis" / "LVIS" / "image" / "val2017"  # as its own archive has them
    own.mkdir(parents=True)
    (own / "000000000009.jpg").write_bytes(b"")
    assert next(iter(LVIS.items(EvalConfig(root, "question_roc"), problems))).image == str(own / "000000000009.jpg")
    assert root / "lvis" / "LVIS" / "image" in LVIS.image_folders(root, "question_roc")


def test_without_the_file_the_whole_set_must_be_asked_for(tmp_path: Path) -> None:
    root = coco(tmp_path)
    (root / "lvis" / "lvis_v1_val.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"Osprey's objects of 1,000 images; the split 'val' asks about all"):
        check_files("lvis", root, LVIS.splits[0])
    check_files("lvis", root, "val")
