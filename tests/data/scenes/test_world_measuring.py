"""Benchmarks of the generated world: layouts, ids, and answers that the scenes confirm."""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from gpt4roi_nb.data.scenes.scene import MAX_OBJECTS, Scene, SceneObject

VOID = 0


def ids_of(png: Path) -> np.ndarray:
    """(H, W) int: id = R + 256·G + 65536·B."""
    return np.asarray(Image.open(png)).astype(int) @ (1, 256, 65536)


def check_segments(ids: np.ndarray, infos: list[dict[str, Any]]) -> None:
    assert set(np.unique(ids)) - {VOID} == {info["id"] for info in infos}
    for info in infos:
        rows, cols = np.nonzero(ids == info["id"])
        x, y, width, height = info["bbox"]
        assert info["area"] == len(rows)
        assert (x, y, x + width, y + height) == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("split", ["train", "val"])
def test_cityscapes_files_agree_with_one_another_and_the_scene(
    world: Path, read: Any, drawn: dict[int, Scene], split: str
) -> None:
    root = world / "cityscapes"
    content = read(f"cityscapes/gtFine/cityscapes_panoptic_{split}.json")
    names = {record["id"]: record["name"] for record in content["categories"]}
    crowds = 0
    for annotation in content["annotations"]:
        stem = annotation["image_id"]
        assert isinstance(stem, str)
        assert (root / f"leftImg8bit/{split}/generated/{stem}_leftImg8bit.jpg").is_file()
        folder = root / f"gtFine/{split}/generated"
        labels = np.asarray(Image.open(folder / f"{stem}_gtFine_labelIds.png"))
        instances = np.asarray(Image.open(folder / f"{stem}_gtFine_instanceIds.png"))
        assert (labels.dtype, instances.dtype) == (np.uint8, np.uint16)
        assert np.array_equal(labels, np.where(instances >= 1000, instances // 1000, instances))
        ids = ids_of(root / f"gtFine/cityscapes_panoptic_{split}" / annotation["file_name"])
        assert np.array_equal(ids, instances)
        check_segments(ids, annotation["segments_info"])
        scene = drawn[int(stem.split("_")[1])]
        assert np.array_equal(np.isin(labels, list(range(24, 34))), scene.masks.any(0))
        for info in annotation["segments_info"]:
            same = [k for k, thing in enumerate(scene.objects) if thing.category == names[info["category_id"]]]
            if info["iscrowd"]:
                assert info["id"] < 1000
                assert np.array_equal(ids == info["id"], scene.masks[same].any(0))
                crowds += 1
            elif same:
                assert any(np.array_equal(ids == info["id"], scene.masks[k]) for k in same)
    assert crowds or split == "val"


@pytest.mark.samples
def test_cityscapes_records_have_the_genuine_fields(samples: Path, read: Any) -> None:
    folder = samples / "cityscapes"
    (file,) = folder.rglob("cityscapes_panoptic_dummy_trainId.json")
    genuine = json.loads(file.read_text())["annotations"][0]
    ours = read("cityscapes/gtFine/cityscapes_panoptic_val.json")
    assert set(ours["annotations"][0]) == set(genuine)
    assert set(ours["annotations"][0]["segments_info"][0]) - {"bbox"} == set(genuine["segments_info"][0])
    labels = {record["id"]: record for record in json.loads((folder / "labels_table.json").read_text())}
    for record in ours["categories"]:
        assert labels[record["id"]]["hasInstances"] == bool(record["isthing"])
        assert not labels[record["id"]]["ignoreInEval"]


def test_cityscapes_panoptic_files_are_those_that_its_own_tool_makes(world: Path, read: Any, tmp_path: Path) -> None:
    """Of the world's instance files, `createPanopticImgs` makes exactly the list and images that the world has."""
    from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic

    with redirect_stdout(io.StringIO()):
        convert2panoptic(str(world / "cityscapes" / "gtFine"), str(tmp_path), False, ["train"])
    official = json.loads((tmp_path / "cityscapes_panoptic_train.json").read_text())
    ours = read("cityscapes/gtFine/cityscapes_panoptic_train.json")
    assert ours["images"] == official["images"]
    for mine, theirs in zip(ours["annotations"], official["annotations"], strict=True):
        by_id = {segment["id"]: segment for segment in mine["segments_info"]}
        assert mine["file_name"] == theirs["file_name"]
        assert by_id == {segment["id"]: segment for segment in theirs["segments_info"]}
        folder = world / "cityscapes/gtFine/cityscapes_panoptic_train"
        assert np.array_equal(
            ids_of(folder / mine["file_name"]), ids_of(tmp_path / "cityscapes_panoptic_train" / theirs["file_name"])
        )


@pytest.mark.parametrize(("split", "folder"), [("train", "training"), ("val", "validation")])
def test_ade20k_semantic_numbers_are_the_panoptic_ones_and_one(
    world: Path, read: Any, drawn: dict[int, Scene], split: str, folder: str
) -> None:
    root = world / "ade20k" / "ADEChallengeData2016"
    content = read(f"ade20k/ADEChallengeData2016/ade20k_panoptic_{split}.json")
    names = [record["name"] for record in content["categories"]]
    assert [record["id"] for record in content["categories"]] == list(range(len(names)))
    assert any(name.endswith(" ") for name in names)
    for annotation in content["annotations"]:
        stem = annotation["image_id"]
        assert (root / "images" / folder / f"{stem}.jpg").is_file()
        semantic = np.asarray(Image.open(root / "annotations" / folder / f"{stem}.png"))
        ids = ids_of(root / f"ade20k_panoptic_{split}" / annotation["file_name"])
        check_segments(ids, annotation["segments_info"])
        expected = np.zeros_like(semantic)
        for info in annotation["segments_info"]:
            expected[ids == info["id"]] = info["category_id"] + 1
        assert np.array_equal(semantic, expected)
        scene = drawn[int(stem.split("_")[-1])]
        for thing, mask in zip(scene.objects, scene.masks, strict=True):
            assert {names[number - 1].strip() for number in np.unique(semantic[mask])} == {thing.category}


@pytest.mark.samples
def test_ade20k_categories_have_the_genuine_fields(samples: Path, read: Any) -> None:
    genuine = json.loads((samples / "ade20k" / "ADE20K_150_CATEGORIES.json").read_text())
    ours = read("ade20k/ADEChallengeData2016/ade20k_panoptic_val.json")["categories"]
    assert set(ours[0]) == set(genuine[0])


def test_pacos_parts_make_up_their_object(world: Path, read: Any, drawn: dict[int, Scene]) -> None:
    for split in ("train", "val"):
        content = read(f"paco/paco_lvis_v1_{split}.json")
        names = {record["id"]: record["name"] for record in content["categories"]}
        assert {record["supercategory"] for record in content["categories"]} == {"OBJECT", "PART"}
        files = {record["id"]: record["file_name"] for record in content["images"]}
        for name in files.values():
            assert (world / "coco" / name).is_file()
        whole, parts = {}, {}
        for annotation in content["annotations"]:
            lengths = annotation["segmentation"]
            mask = coco_mask.decode(coco_mask.frPyObjects(lengths, *lengths["size"])).astype(bool)
            rows, cols = np.nonzero(mask)
            x, y, width, height = annotation["bbox"]
            assert (x, y, x + width, y + height) == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
            assert annotation["area"] == mask.sum()
            if annotation["id"] == annotation["obj_ann_id"]:
                whole[annotation["id"]] = mask
                scene = drawn[annotation["image_id"]]
                k = (annotation["id"] // 3 - 1) % MAX_OBJECTS
                assert scene.objects[k].category == names[annotation["category_id"]]
                assert np.array_equal(mask, scene.masks[k])
            else:
                assert ":" in names[annotation["category_id"]]
                parts.setdefault(annotation["obj_ann_id"], []).append(mask)
        for number, masks in parts.items():
            assert np.array_equal(np.sum(masks, 0), whole[number])
        assert parts.keys() == whole.keys()


def looks(text: str, scene: Scene) -> list[int]:
    words = set(text.split())
    everything = {word for thing in scene.objects for word in thing.phrase.split()}
    return [k for k, thing in enumerate(scene.objects) if words & everything <= set(thing.phrase.split())]


def test_pointing_offers_four_boxes_of_the_image(world: Path, read: Any, drawn: dict[int, Scene]) -> None:
    content = read("visual7w/dataset_v7w_pointing.json")
    boxes = {record["box_id"]: record for record in content["boxes"]}
    asked = 0
    for image in content["images"]:
        assert (world / "visual7w" / "images" / image["filename"]).is_file()
        scene = drawn[image["image_id"]]
        for record in boxes.values():
            if record["image_id"] == image["image_id"]:
                thing = scene.objects[(record["box_id"] - 1) % MAX_OBJECTS]
                ends = (record["x"] + record["width"], record["y"] + record["height"])
                assert (record["x"], record["y"], *ends) == thing.box
        for pair in image["qa_pairs"]:
            assert set(pair) == {"qa_id", "image_id", "question", "answer", "multiple_choices", "type"}
            offered = [pair["answer"], *pair["multiple_choices"]]
            assert len(set(offered)) == 4
            assert {boxes[number]["image_id"] for number in offered} == {image["image_id"]}
            assert (pair["answer"] - 1) % MAX_OBJECTS in looks(pair["question"].rstrip("?"), scene)
            asked += 1
    assert asked > 40


def test_telling_offers_one_true_text_and_three_false_ones(read: Any, drawn: dict[int, Scene]) -> None:
    kinds = set()
    for image in read("visual7w/dataset_v7w_telling.json")["images"]:
        scene = drawn[image["image_id"]]
        for pair in image["qa_pairs"]:
            kinds.add(pair["type"])
            offered = [pair["answer"], *pair["multiple_choices"]]
            assert len(set(offered)) == 4
            values = [re.sub(r"^(an?) |\.$", "", text.lower()) for text in offered]
            if pair["type"] == "how":
                assert [int(value) == len(scene.objects) for value in values] == [True, False, False, False]
            else:
                noun = pair["question"].split(" the ")[-1].rstrip("?")
                (index,) = looks(noun, scene)
                words = scene.objects[index].phrase.split()
                assert [value in words for value in values] == [True, False, False, False]
    assert kinds == {"what", "how"}


def test_gar_benchs_masks_are_the_scenes_and_one_choice_is_true(
    world: Path, read: Any, drawn: dict[int, Scene]
) -> None:
    entries = read("gar_bench/GAR-Bench-VQA.json")
    assert {entry["type"] for entry in entries} == {"color", "shape", "material", "relation"}
    for entry in entries:
        assert (world / "gar_bench" / entry["image"]).is_file()
        scene = drawn[int(re.findall(r"\d+", entry["image"])[0])]
        named = []
        for lengths in entry["mask_rles"]:
            mask = coco_mask.decode(lengths).astype(bool)
            named.append(next(k for k in range(len(scene.objects)) if np.array_equal(scene.masks[k], mask)))
        texts = {choice[0]: choice[3:-1] for choice in entry["choices"]}
        assert list(texts) == list("ABCD")[: len(texts)] and entry["answer"] in texts
        true = [letter for letter, text in texts.items() if _is_true(text, [scene.objects[k] for k in named])]
        assert true == [entry["answer"]]


def _is_true(text: str, things: list[SceneObject]) -> bool:
    """Of a choice: one attribute of the first thing; or how it stands to the second."""
    if len(things) == 1:
        phrase = things[0].phrase.replace("wooden", "wood").split()
        return text.lower().removeprefix("an ").removeprefix("a ") in phrase
    said = dict(enumerate(re.findall(r"<Prompt(\d)>", text)))
    one, other = (things[int(said[k])] for k in (0, 1))
    across = one.box[0] + one.box[2] > other.box[0] + other.box[2]
    behind = one.position[1] > other.position[1]
    return ("to the right" in text) == across and ("behind" in text) == behind


def test_vstars_boxes_are_those_of_what_it_names_and_its_letter_is_the_first_option(
    world: Path, read: Any, drawn: dict[int, Scene]
) -> None:
    lines = read("vstar_bench/test_questions.jsonl")
    assert {line["category"] for line in lines} == {"direct_attributes", "relative_position"}
    for line in lines:
        image = world / "vstar_bench" / line["image"]
        assert image.is_file() and line["image"].startswith(line["category"])
        facts = json.loads(image.with_suffix(".json").read_text())
        scene = drawn[int(re.findall(r"sa_(\d+)", line["image"])[0])]
        things = []
        for name, (x, y, width, height) in zip(facts["target_object"], facts["bbox"], strict=True):
            (index,) = looks(name, scene)
            assert scene.objects[index].box == (x, y, x + width, y + height)
            things.append(scene.objects[index])
        question, *options, request = line["text"].split("\n")
        assert question == facts["question"] and request.startswith("Answer with the option's letter")
        (right,) = (option[4:] for option in options if option[1] == line["label"])
        assert f" {right} side of" in facts["options"][0] or facts["options"][0].endswith(f" is {right}.")
        if len(things) == 1:
            assert right in things[0].phrase.replace("wooden", "wood").split()
        else:
            one, other = (thing.box[0] + thing.box[2] for thing in things)
            assert right == ("left" if one < other else "right")


def test_ref_l4s_expressions_are_true_of_their_box(world: Path, drawn: dict[int, Scene]) -> None:
    rows = pq.read_table(world / "ref_l4" / "ref-l4-val.parquet").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows) > 20
    for row in rows:
        assert (world / "ref_l4" / "images" / row["file_name"]).is_file() and row["split"] == "val"
        scene = drawn[int(row["image_id"].removeprefix("coco_"))]
        x, y, width, height = row["bbox"]
        assert row["bbox_area"] == width * height
        (thing,) = (one for one in scene.objects if one.box == (x, y, x + width, y + height))
        told = thing.phrase if row["is_rewrite"] else f"{thing.size} object made of"
        assert told in row["caption"]
