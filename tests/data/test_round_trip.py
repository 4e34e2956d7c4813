"""The generated world through every loader that reads the real files: what it wrote is what is read."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_files import WORLD as SETS

from gpt4roi_nb.data import Mixture, RegionDataset, load
from gpt4roi_nb.data.dataset import FILE_OPTIONS
from gpt4roi_nb.data.record import regions_of
from gpt4roi_nb.data.scenes.scene import Scene

SHOWN = ("vg", "vg original", "panoptic")  # they have regions that are no single object


@pytest.fixture(scope="module")
def opened(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function from the name of a set, and more options of `load`, to the set."""
    cache = tmp_path_factory.mktemp("indexes")

    def opened(name: str, **more: Any) -> RegionDataset:
        format, annotations, images, options = SETS[name]
        paths = {key: world / value if key in FILE_OPTIONS else value for key, value in options.items()}
        return load(format, world / annotations, world / images, cache=cache, strict=True, **paths, **more)

    return opened


def number_of(image: str) -> int:
    """The image's number from any of its names."""
    return int(Path(image).stem.removesuffix("@0").split("_")[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SETS if not name.startswith("own ")])  # see test_world_own
def test_every_record_is_read_with_its_image_and_boxes_of_its_objects(
    name: str, opened: Any, drawn: dict[int, Scene]
) -> None:
    dataset = opened(name)
    assert len(dataset) > 15
    for number in range(len(dataset)):
        annotation = dataset.annotation(number)
        objects = np.array([thing.box for thing in drawn[number_of(annotation.image)].objects])
        for box in annotation.boxes if name not in SHOWN else ():
            assert np.abs(objects - box).max(1).min() < 1e-3
        image, record = dataset.read(number)
        assert image.size == (336, 336) and len(record.turns) >= 2


def held(dataset: RegionDataset) -> Counter[Any]:
    """(number of the image, text, pixel xywh) of each box of annotations that have one text per box."""
    found: Counter[Any] = Counter()
    for number in range(len(dataset)):
        annotation = dataset.annotation(number)
        for text, (x1, y1, x2, y2) in zip(annotation.texts, annotation.boxes.tolist(), strict=True):
            found[number_of(annotation.image), text, x1, y1, x2 - x1, y2 - y1] += 1
    return found


@pytest.mark.parametrize("name", ["coco", "panoptic", "lvis"])
def test_categories_and_boxes_come_back(name: str, opened: Any, read: Any) -> None:
    content = read(SETS[name][1])
    names = {entry["id"]: entry["name"].replace("_", " ") for entry in content["categories"]}
    entries = [
        {**part, "image_id": entry["image_id"]}
        for entry in content["annotations"]
        for part in entry.get("segments_info", [entry])
    ]
    written = Counter(
        (entry["image_id"], names[entry["category_id"]], *map(float, entry["bbox"]))
        for entry in entries
        if not entry.get("iscrowd")
    )
    assert held(opened(name)) == written


@pytest.mark.parametrize("name", ["vg", "vg original"])
def test_captions_and_boxes_come_back_from_visual_genome(name: str, opened: Any, read: Any) -> None:
    content = read(SETS[name][1])
    if name == "vg":
        written = Counter(
            (entry["image_id"], entry["caption"].strip(), *map(float, entry["bbox"]))
            for entry in content["annotations"]
        )
    else:
        written = Counter(
            (image["id"], part["phrase"].strip(), *(float(part[side]) for side in ("x", "y", "width", "height")))
            for image in content
            for part in image["regions"]
        )
    assert held(opened(name)) == written


def test_each_phrase_of_flickr_owns_its_boxes(opened: Any, read: Any) -> None:
    content = read(SETS["flickr30k"][1])
    captions = {image["id"]: image["caption"] for image in content["images"]}
    written: Counter[Any] = Counter()
    for entry in content["annotations"]:
        ((_, end),) = entry["tokens_positive"]
        written[entry["image_id"], captions[entry["image_id"]][:end].split()[-1], *entry["bbox"]] += 1
    read_back: Counter[Any] = Counter()
    dataset = opened("flickr30k")
    for number in range(len(dataset)):
        annotation = dataset.annotation(number)
        (text,) = annotation.texts
        assert re.sub(r" \([^)]*<region[^)]*\)", "", text) == captions[int(annotation.id)]
        for word, regions in re.findall(r"(\S+) \(([^)]*<region\d+>)\)", text):
            for region in regions_of([regions]):
                x1, y1, x2, y2 = annotation.boxes[region - 1].tolist()
                read_back[int(annotation.id), word, x1, y1, x2 - x1, y2 - y1] += 1
    assert read_back == written


def test_conversations_of_llava_come_back_and_both_forms_of_detections_say_the_same(opened: Any, read: Any) -> None:
    pickled, zipped = opened("llava pkl", shown=1), opened("llava npz", shown=1)
    assert list(pickled) == list(zipped)
    assert all(len(record.boxes) for record in pickled)
    for number, entry in enumerate(read(SETS["llava pkl"][1])):
        said = tuple(turn["value"].replace("<image>", "").strip() for turn in entry["conversations"])
        assert pickled.annotation(number).texts == said


@pytest.mark.parametrize("name", ["refcoco", "refcoco+", "refcocog"])
def test_the_two_forms_of_refcoco_say_the_same(name: str, opened: Any) -> None:
    def said(dataset: RegionDataset) -> set[Any]:
        every = [dataset.annotation(number) for number in range(len(dataset))]
        return {(one.image, one.texts[0].lower(), *one.boxes[0].tolist()) for one in every}

    assert said(opened(name)) == said(opened(f"{name} refs", split="train")) != set()


def test_the_right_options_of_vcr_are_those_of_the_file(opened: Any, read: Any) -> None:
    lines = {line["annot_id"]: line for line in read("vcr/train.jsonl")}
    for record in opened("vcr choice"):
        annot_id, _, asked = record.id.partition("/")
        assert record.turns[1][1] == f"({'ABCD'[lines[annot_id][f'{asked}_label']]})"
    for record in opened("vcr all"):
        line = lines[record.id.partition("/")[0]]
        cited = {index + 1 for token in line["question"] if isinstance(token, list) for index in token}
        assert cited <= set(regions_of([record.turns[0][1]]))


@pytest.mark.parametrize("name", [name for name in SETS if "train" in SETS[name][1]])
def test_held_out_files_are_read_as_well(name: str, world: Path, tmp_path: Path) -> None:
    format, annotations, images, options = SETS[name]
    file = world / annotations.replace("train", "val")
    places = (images.replace("train2017", "val2017"), images)
    folder = next(world / place for place in places if (world / place).is_dir())
    dataset = load(format, file, folder, cache=tmp_path, strict=True, **options)
    assert len(dataset) and dataset.read(0) is not None


def test_all_of_them_make_one_mixture(opened: Any) -> None:
    mixed = Mixture({name: opened(name) for name in SETS}, dict.fromkeys(SETS, 1.0), seed=2, length=300)
    sources = {record.source for record in mixed}
    assert sources == {
        "coco",
        "refcoco",
        "refcoco+",
        "refcocog",
        "flickr30k",
        "visual_genome",
        "vcr",
        "llava",
        "conversations",
    }
