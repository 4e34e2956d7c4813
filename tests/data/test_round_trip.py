"""The generated world through every loader: what it wrote is what is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpt4roi_nb.data import Mixture, RegionDataset, load
from gpt4roi_nb.data.record import regions_of
from gpt4roi_nb.data.world.write import write_world

IMAGES = 24


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "world"
    write_world(folder, IMAGES, seed=11)
    return folder


SETS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "coco": ("coco", "coco/annotations/instances_train2017.json", "coco/train2017", {}),
    "panoptic": ("coco", "coco/annotations/panoptic_train2017.json", "coco/train2017", {}),
    **{
        name: ("refcoco", f"{name}/finetune_{name}_train.json", "coco/train2014", {})
        for name in ("refcoco", "refcoco+", "refcocog")
    },
    **{
        f"{name} refs": ("refcoco", f"{name}/refs({by}).p", "coco/train2014", {"instances": f"{name}/instances.json"})
        for name, by in (("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd"))
    },
    "flickr30k": ("flickr30k", "flickr30k/final_flickr_separateGT_train.json", "flickr30k/flickr30k-images", {}),
    "vg": ("visual_genome", "vg/train.json", "vg/VG_100K", {}),
    "vg original": ("visual_genome", "vg/region_descriptions.json", "vg", {"image_data": "vg/image_data.json"}),
    **{
        f"vcr {rendering}": ("vcr", "vcr/train.jsonl", "vcr/vcr1images", {"rendering": rendering})
        for rendering in ("all", "several", "choice")
    },
    **{
        f"llava {kind}": (
            "llava",
            "llava/llava_instruct_150k.json",
            "images",
            {"boxes": f"llava/llava_150k_bbox_pred_results.{kind}"},
        )
        for kind in ("pkl", "npz")
    },
}


def opened(world: Path, name: str) -> RegionDataset:
    format, annotations, images, options = SETS[name]
    options = {key: value if key == "rendering" else world / value for key, value in options.items()}
    cache = world.parent / "cache"
    return load(format, world / annotations, world / images, cache=cache, strict=True, **options)


@pytest.mark.parametrize("name", SETS)
def test_every_record_of_the_world_is_read_with_its_picture(name: str, world: Path) -> None:
    dataset = opened(world, name)
    assert len(dataset) >= IMAGES // 2
    for number in range(len(dataset)):
        found = dataset.read(number)
        assert found is not None
    assert not dataset.problems.counts()


def test_categories_and_boxes_come_back_from_coco(world: Path) -> None:
    content = json.loads((world / SETS["coco"][1]).read_text())
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    written = {
        (entry["image_id"], names[entry["category_id"]], *entry["bbox"])
        for entry in content["annotations"]
        if not entry["iscrowd"]
    }
    dataset = opened(world, "coco")
    read = set()
    for number in range(len(dataset)):
        annotation = dataset.annotation(number)
        for name, (x1, y1, x2, y2) in zip(annotation.texts, annotation.boxes.tolist(), strict=True):
            read.add((int(annotation.id), name, x1, y1, x2 - x1, y2 - y1))
    assert read == written


@pytest.mark.parametrize("name", ["refcoco", "refcoco+", "refcocog"])
def test_the_two_forms_of_refcoco_say_the_same(name: str, world: Path) -> None:
    def said(dataset: RegionDataset) -> set[Any]:
        every = [dataset.annotation(number) for number in range(len(dataset))]
        return {(one.image, one.texts[0].lower(), *one.boxes[0].tolist()) for one in every}

    mdetr, refs = said(opened(world, name)), said(opened(world, f"{name} refs"))
    assert mdetr <= refs


def test_the_two_forms_of_detections_say_the_same(world: Path) -> None:
    pickled, zipped = opened(world, "llava pkl"), opened(world, "llava npz")
    assert list(pickled) == list(zipped)
    assert all(len(record.boxes) for record in pickled)


def test_the_right_options_of_vcr_are_those_of_the_file(world: Path) -> None:
    lines = {}
    for text in (world / "vcr/train.jsonl").read_text().splitlines():
        line = json.loads(text)
        lines[line["annot_id"]] = line
    dataset = opened(world, "vcr choice")
    for record in dataset:
        annot_id, _, asked = record.id.partition("/")
        assert record.turns[1][1] == f"({'ABCD'[lines[annot_id][f'{asked}_label']]})"
    every = opened(world, "vcr all")
    for record in every:
        line = lines[record.id.partition("/")[0]]
        cited = {index + 1 for token in line["question"] if isinstance(token, list) for index in token}
        assert cited <= set(regions_of([record.turns[0][1]]))


def test_all_of_them_make_one_mixture(world: Path) -> None:
    mixed = Mixture({name: opened(world, name) for name in SETS}, dict.fromkeys(SETS, 1.0), seed=2, length=300)
    sources = {record.source for record in mixed}
    assert sources == {"coco", "refcoco", "refcoco+", "refcocog", "flickr30k", "visual_genome", "vcr", "llava"}
