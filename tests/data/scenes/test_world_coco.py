"""COCO, panoptic and LVIS files of the generated world, read by the field's own tool and held against the scenes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from gpt4roi_nb.data.scenes.scene import MAX_OBJECTS, Scene

INSTANCES = "coco/annotations/instances_{}2017.json"
PANOPTIC = "coco/annotations/panoptic_{}2017.json"
REFERRING = ("refcoco/instances.json", "refcoco+/instances.json", "refcocog/instances.json")


def keys(record: dict[str, Any]) -> set[str]:
    return set(record)


def object_of(annotation: dict[str, Any]) -> int:
    return (int(annotation["id"]) - 1) % MAX_OBJECTS


@pytest.mark.parametrize("split", ["train", "val"])
def test_pycocotools_decodes_the_scenes_masks(world: Path, drawn: dict[int, Scene], split: str) -> None:
    coco = COCO(world / INSTANCES.format(split))
    names = {number: record["name"] for number, record in coco.cats.items()}
    seen = {number: np.zeros(drawn[number].masks.shape[1:], bool) for number in coco.getImgIds()}
    for annotation in coco.loadAnns(coco.getAnnIds()):
        scene = drawn[annotation["image_id"]]
        category = names[annotation["category_id"]]
        if annotation["iscrowd"]:
            members = [k for k, thing in enumerate(scene.objects) if thing.category == category]
            assert len(members) >= 3
            assert isinstance(annotation["segmentation"]["counts"], list)
        else:
            members = [object_of(annotation)]
            assert scene.objects[members[0]].category == category
        mask = scene.masks[members].any(0)
        assert np.array_equal(coco.annToMask(annotation), mask)
        assert annotation["area"] == mask.sum()
        x, y, width, height = annotation["bbox"]
        rows, cols = np.nonzero(mask)
        assert (x, y, x + width, y + height) == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
        seen[annotation["image_id"]] |= mask
    assert all(np.array_equal(mask, drawn[number].masks.any(0)) for number, mask in seen.items())


def test_some_things_are_annotated_as_a_crowd(read: Any) -> None:
    assert {annotation["iscrowd"] for annotation in read(INSTANCES.format("train"))["annotations"]} == {0, 1}


@pytest.mark.parametrize("split", ["train", "val"])
def test_panoptic_ids_are_those_of_the_list_and_cover_what_it_says(world: Path, read: Any, split: str) -> None:
    content = read(PANOPTIC.format(split))
    things = {record["id"]: record["isthing"] for record in content["categories"]}
    for annotation in content["annotations"]:
        png = np.asarray(Image.open(world / f"coco/annotations/panoptic_{split}2017" / annotation["file_name"]))
        ids = png.astype(int) @ (1, 256, 65536)
        infos = {info["id"]: info for info in annotation["segments_info"]}
        assert len(infos) == len(annotation["segments_info"])
        assert set(np.unique(ids)) - {0} == set(infos)
        assert (ids == 0).any()  # void
        assert {things[info["category_id"]] for info in infos.values()} == {0, 1}
        for number, info in infos.items():
            rows, cols = np.nonzero(ids == number)
            x, y, width, height = info["bbox"]
            assert (x, y, x + width, y + height) == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
            assert info["area"] == len(rows)


@pytest.mark.samples
def test_coco_records_have_the_genuine_fields(samples: Path, read: Any) -> None:
    genuine = json.loads((samples / "coco" / "instances_val2017_subset.json").read_text())
    genuine["licenses"] = json.loads((samples / "coco" / "instances_val2014_subset.json").read_text())["licenses"]
    for name in (INSTANCES.format("val"), *REFERRING):
        ours = read(name)
        assert keys(ours) >= {"info", "licenses", "images", "annotations", "categories"}
        for part in ("images", "annotations", "categories", "licenses"):
            assert keys(ours[part][0]) == keys(genuine[part][0]), (name, part)
        for field, value in genuine["annotations"][0].items():
            assert type(ours["annotations"][0][field]) is type(value)


@pytest.mark.samples
def test_panoptic_records_have_the_genuine_fields(samples: Path, read: Any) -> None:
    genuine = json.loads((samples / "coco_panoptic" / "panoptic_examples.json").read_text())
    ours = read(PANOPTIC.format("val"))
    assert keys(ours) == keys(genuine)
    for part in ("images", "annotations", "categories"):
        assert keys(ours[part][0]) == keys(genuine[part][0])
    infos = (content["annotations"][0]["segments_info"][0] for content in (ours, genuine))
    assert len({frozenset(keys(info)) for info in infos}) == 1


@pytest.mark.samples
def test_lvis_records_have_the_genuine_fields(samples: Path, read: Any) -> None:
    genuine = json.loads((samples / "lvis" / "lvis_v1_printed_records.json").read_text())
    ours = read("lvis/lvis_v1_val.json")
    for part in ("images", "annotations"):
        assert keys(ours[part][0]) == keys(genuine[part][0])
    assert keys(genuine["categories"][0]) == keys(ours["categories"][0])
    for record in ours["categories"]:
        found = [a["image_id"] for a in ours["annotations"] if a["category_id"] == record["id"]]
        assert (record["image_count"], record["instance_count"]) == (len(set(found)), len(found))


def test_lvis_names_colour_and_kind_and_finds_its_images_by_their_address(
    world: Path, read: Any, drawn: dict[int, Scene]
) -> None:
    content = read("lvis/lvis_v1_train.json")
    names = {record["id"]: record["name"] for record in content["categories"]}
    assert any(" " in name for name in names.values())
    assert any("(" in name for name in names.values())
    present: dict[int, set[int]] = {}
    for annotation in content["annotations"]:
        thing = drawn[annotation["image_id"]].objects[object_of(annotation)]
        name = names[annotation["category_id"]]
        assert name.startswith(thing.colour)
        assert thing.category in name
        present.setdefault(annotation["image_id"], set()).add(annotation["category_id"])
    for image in content["images"]:
        assert (world / "coco" / "/".join(image["coco_url"].split("/")[-2:])).is_file()
        assert not present[image["id"]] & set(image["neg_category_ids"])


def test_categories_have_gaps_between_their_ids(read: Any) -> None:
    ids = [record["id"] for record in read(INSTANCES.format("val"))["categories"]]
    assert ids == sorted(set(ids))
    assert len(ids) < ids[-1] <= 90
