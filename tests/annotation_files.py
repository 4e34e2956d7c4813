"""Small annotation files in the form of the real ones, made by hand, with all their traps.

Each function writes a file and its images below a folder, and returns what `load` takes.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48


class Given(NamedTuple):
    format: str
    annotations: Path
    images: Path
    options: dict[str, Any]


def image_files(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 150)).save(file)
    return folder


def write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def image_entry(image_id: int, file_name: str, **more: Any) -> dict[str, Any]:
    return {"id": image_id, "file_name": file_name, "width": WIDTH, "height": HEIGHT, **more}


def coco(folder: Path) -> Given:
    """Annotations before images, an uncompressed crowd, several polygons, an id that is no category's neighbour."""
    content = {
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 90, "bbox": [1, 2, 10.5, 20], "iscrowd": 0, "area": 1},
            {"id": 2, "image_id": 9, "category_id": 1, "bbox": [30, 5, 60, 20], "segmentation": [[], []]},
            {"id": 3, "image_id": 9, "category_id": 1, "bbox": [0, 0, 50, 40], "iscrowd": 1,
             "segmentation": {"counts": [3, 5], "size": [48, 64]}},
        ],
        "images": [image_entry(9, "000000000009.jpg"), image_entry(11, "000000000011.jpg")],
        "categories": [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}],
    }  # fmt: skip
    images = image_files(folder / "train2017", "000000000009.jpg", "000000000011.jpg")
    return Given("coco", write(folder / "instances_train2017.json", content), images, {})


def panoptic(folder: Path) -> Given:
    """COCO's panoptic file: an annotation per image, with all its segments, one of them a crowd."""
    segments = [
        {"id": 101, "category_id": 1, "bbox": [1, 2, 10, 20], "iscrowd": 0, "area": 150},
        {"id": 102, "category_id": 184, "bbox": [0, 20, 64, 28], "iscrowd": 0, "area": 900},
        {"id": 103, "category_id": 1, "bbox": [30, 5, 20, 20], "iscrowd": 1, "area": 200},
        {"id": 104, "category_id": 1, "bbox": [40, 2, 10, 20], "iscrowd": 0, "area": 150},
    ]
    content = {
        "images": [image_entry(9, "000000000009.jpg")],
        "annotations": [{"image_id": 9, "file_name": "000000000009.png", "segments_info": segments}],
        "categories": [{"id": 1, "name": "person", "isthing": 1}, {"id": 184, "name": "tree-merged", "isthing": 0}],
    }
    images = image_files(folder / "train2017", "000000000009.jpg")
    return Given("coco", write(folder / "panoptic_train2017.json", content), images, {"name": "panoptic"})


def lvis(folder: Path) -> Given:
    """No file_name, no iscrowd, a name with underscore and parentheses."""
    url = "http://images.cocodataset.org/val2017/000000000007.jpg"
    content = {
        "images": [{"id": 7, "coco_url": url, "width": WIDTH, "height": HEIGHT}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1.5, 2, 10, 20]}],
        "categories": [{"id": 3, "name": "water_bottle_(sports)"}],
    }
    images = image_files(folder / "coco", "val2017/000000000007.jpg")
    return Given("coco", write(folder / "lvis_v1_val.json", content), images, {"name": "lvis"})


def refcoco(folder: Path) -> Given:
    """MDETR's: an entry of images a sentence, ids that are not COCO's, sizes as texts."""
    name = "COCO_train2014_000000000025.jpg"
    more = {"dataset_name": "refcoco+", "original_id": 25}
    content = {
        "categories": [{"id": 1, "name": "object"}],
        "images": [
            image_entry(0, name, caption="teh girafe on left", **more),
            image_entry(1, name, caption="small  one", **more) | {"height": str(HEIGHT), "width": str(WIDTH)},
        ],
        "annotations": [
            {"id": 0, "image_id": 0, "bbox": [1, 2, 30, 20], "iscrowd": 0, "tokens_positive": [[4, 10]]},
            {"id": 1, "image_id": 1, "bbox": [40, 2, 10, 20], "iscrowd": 0, "tokens_positive": [[0, 5]]},
        ],
    }
    images = image_files(folder / "train2014", name)
    return Given("refcoco", write(folder / "finetune_refcoco+_train.json", content), images, {})


def unc_refs(folder: Path) -> Given:
    """UNC's pickle: a file name that names no image, raw in upper case, several sentences."""
    name = "COCO_train2014_000000581857.jpg"
    refs = [
        {
            "ref_id": 0, "ann_id": 77, "image_id": 581857, "category_id": 1, "split": "train", "sent_ids": [5, 6],
            "file_name": "COCO_train2014_000000581857_16.jpg",
            "sentences": [
                {"sent_id": 5, "raw": "THE LADY", "sent": "the lady", "tokens": ["the", "lady"]},
                {"sent_id": 6, "raw": "Blue Shirt", "sent": "blue shirt", "tokens": ["blue", "shirt"]},
            ],
        },
        {"ref_id": 1, "ann_id": 77, "image_id": 581857, "split": "val", "sentences": [{"sent_id": 7, "sent": "her"}]},
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "refs(unc).p"
    file.write_bytes(pickle.dumps(refs, protocol=0))
    instances = {
        "images": [image_entry(581857, name)],
        "annotations": [{"id": 77, "image_id": 581857, "bbox": [5, 5, 20, 30], "category_id": 1}],
        "categories": [{"id": 1, "name": "person"}],
    }
    options = {"instances": write(folder / "instances.json", instances), "split": "train"}
    return Given("refcoco", file, image_files(folder / "train2014", name), options)


def flickr(folder: Path) -> Given:
    """Sizes as texts; a phrase with two boxes; the phrases not in the order of the text."""
    caption = "a man in blue with two dogs"
    content = {
        "images": [image_entry(3, "10001.jpg", caption=caption) | {"height": str(HEIGHT), "width": str(WIDTH)}],
        "annotations": [
            {"id": 0, "image_id": 3, "bbox": [41, 2, 5, 6], "tokens_positive": [[19, 27]]},
            {"id": 1, "image_id": 3, "bbox": [1, 2, 8, 9], "tokens_positive": [[0, 5]]},
            {"id": 2, "image_id": 3, "bbox": [51, 2, 5, 6], "tokens_positive": [[19, 27]]},
        ],
    }
    images = image_files(folder / "flickr30k-images", "10001.jpg")
    return Given("flickr30k", write(folder / "final_flickr_separateGT_train.json", content), images, {})


def vg_train(folder: Path) -> Given:
    """COCO-like, with a caption an annotation."""
    content = {
        "images": [image_entry(2, "2.jpg")],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [
            {"id": 0, "image_id": 2, "bbox": [1, 2, 30, 20], "category_id": 1, "caption": "a clock ", "iscrowd": 0},
            {"id": 1, "image_id": 2, "bbox": [4, 2, 30, 20], "category_id": 1, "caption": "bckground", "iscrowd": 0},
        ],
    }
    return Given("visual_genome", write(folder / "train.json", content), image_files(folder / "VG_100K", "2.jpg"), {})


def vg_regions(folder: Path) -> Given:
    """The original: keys in any order, trailing blanks, a box that leaves the image, whose size it does not say."""
    regions = [
        {"region_id": 1, "width": 40, "height": 38, "image_id": 2, "phrase": "shade along the street ", "y": 3, "x": 5},
        {"phrase": "a clock", "x": 50, "y": 30, "height": 90, "width": 90, "image_id": 2, "region_id": 2},
    ]
    file = write(folder / "region_descriptions.json", [{"regions": regions, "id": 2}])
    return Given("visual_genome", file, image_files(folder / "VG_100K", "2.jpg"), {})


VCR_BOXES = [[0, 0, 10, 10, 0.99], [20, 0, 30, 10, 0.98], [40, 0, 50, 10, 0.97]]


def vcr_line(**changes: Any) -> dict[str, Any]:
    return {
        "objects": ["person", "person", "tie"],
        "img_fn": "lsmdc_1/1_A@0.jpg",
        "metadata_fn": "lsmdc_1/1_A@0.json",
        "annot_id": "train-0",
        "question_orig": "Why is 2 's hand up at 3 o'clock?",
        "question": ["Why", "is", [1], "'s", "hand", "up", "at", "3", "o'clock", "?"],
        "answer_choices": [["No", "."], [[1], "ca", "n't", "see", [2]], [[0, 1], "wave", "."], ["Yes", "."]],
        "answer_label": 1,
        "rationale_choices": [[[2], "says", '"', "hi", '"', "."], ["a", "."], ["b", "."], ["c", "."]],
        "rationale_label": 0,
        **changes,
    }


def vcr(folder: Path, rendering: str = "all", lines: list[dict[str, Any]] | None = None) -> Given:
    """An @ in the names, 0-based objects beside an ordinary number, a fifth column in the boxes."""
    images = image_files(folder / "vcr1images", "lsmdc_1/1_A@0.jpg")
    facts = {"boxes": VCR_BOXES, "segms": [[[[0, 0], [1, 1]]]] * 3, "names": ["person", "person", "tie"]}
    write(images / "lsmdc_1/1_A@0.json", facts | {"width": WIDTH, "height": HEIGHT})
    single = vcr_line(annot_id="train-1", answer_choices=[["a"], [[1], "waves", "."], ["b"], ["c"]])
    given = [vcr_line(), single] if lines is None else lines
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in given))
    return Given("vcr", file, images, {"rendering": rendering})


DETECTED = [[0.5, 0.5, 0.75, 0.75, 0.9], [0, 0, 0.25, 0.5, 0.4], [0, 0, 1, 1, 0.1]]


def llava(folder: Path, kind: str = "pkl") -> Given:
    """The mark of the image at either end; two conversations under one id; detections in one of three forms."""
    name = "000000033471.jpg"
    content = [
        {"id": "000000033471", "image": name, "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A bus.\nA red one."},
            {"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "Yes."}]},
        {"id": "000000033471", "image": name, "conversations": [
            {"from": "human", "value": "Describe it.\n<image>"}, {"from": "gpt", "value": "A bus."}]},
    ]  # fmt: skip
    boxes = folder / f"detected.{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.array(DETECTED, np.float32)
    if kind == "pkl":
        boxes.write_bytes(pickle.dumps([{"filename": name, "pred_bboxes": rows, "labels": np.arange(3)}], protocol=4))
    elif kind == "npz":
        np.savez(boxes, filename=np.array([name]), offsets=np.array([0, 3]), pred_bboxes=rows, labels=np.arange(3))
    else:
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({"filename": [name], "pred_bboxes": [rows.tolist()], "labels": [[0, 1, 2]]})
        pyarrow.parquet.write_table(table, boxes)
    images = image_files(folder / "train2017", name)
    return Given("llava", write(folder / "llava_instruct_150k.json", content), images, {"boxes": boxes})


def conversations(folder: Path) -> Given:
    """Boxes in the record, two regions that one question names, one that a later answer names; and one without any."""
    name = "a.jpg"
    content = [
        {"id": "1", "image": name, "boxes": [[1, 2, 30, 40.5], [20, 5, 60, 30]], "conversations": [
            {"from": "human", "value": "<image>\nAre <region1> and <region2> alike?"},
            {"from": "gpt", "value": "No, <region2> is red."},
            {"from": "human", "value": "And region 1?"}, {"from": "gpt", "value": "Blue."}]},
        {"id": 2, "image": name, "conversations": [
            {"from": "human", "value": "How many?"}, {"from": "gpt", "value": "Two."}]},
    ]  # fmt: skip
    return Given("conversations", write(folder / "mine.json", content), image_files(folder / "images", name), {})


def vcr_single(folder: Path) -> Given:
    return vcr(folder, "single")


def vcr_several(folder: Path) -> Given:
    return vcr(folder, "several")


def vcr_choice(folder: Path) -> Given:
    return vcr(folder, "choice")


ALL = (
    coco, panoptic, lvis, refcoco, unc_refs, flickr, vg_train, vg_regions, vcr, vcr_single, vcr_several, vcr_choice,
    llava, conversations,
)  # fmt: skip

COCO, REFERRING = "coco/train2017", "coco/train2014"
# The generated world's own: format, annotations, images and options, the paths below the world's folder.
WORLD: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "coco": ("coco", "coco/annotations/instances_train2017.json", COCO, {}),
    "panoptic": ("coco", "coco/annotations/panoptic_train2017.json", COCO, {}),
    "lvis": ("coco", "lvis/lvis_v1_train.json", "coco", {}),
    **{
        name: ("refcoco", f"{name}/finetune_{name}_train.json", REFERRING, {})
        for name in ("refcoco", "refcoco+", "refcocog")
    },
    **{
        f"{name} refs": ("refcoco", f"{name}/refs({by}).p", REFERRING, {"instances": f"{name}/instances.json"})
        for name, by in (("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd"))
    },
    "flickr30k": ("flickr30k", "flickr30k/final_flickr_separateGT_train.json", "flickr30k/flickr30k-images", {}),
    "vg": ("visual_genome", "vg/train.json", "vg/VG_100K", {}),
    "vg original": ("visual_genome", "vg/region_descriptions.json", "vg", {"image_data": "vg/image_data.json"}),
    **{
        f"vcr {rendering}": ("vcr", "vcr/train.jsonl", "vcr/vcr1images", {"rendering": rendering})
        for rendering in ("all", "single", "several", "choice")
    },
    **{
        f"llava {suffix}": (
            "llava",
            "llava/llava_instruct_150k.json",
            COCO,
            {"boxes": f"llava/llava_150k_bbox_pred_results.{suffix}"},
        )
        for suffix in ("pkl", "npz")
    },
    **{
        f"own {topic}": ("conversations", f"own/{topic}.json", "own/images", {})
        for topic in ("image", "regions", "relations", "nothing", "unknown", "talks", "strangers", "benchmarks")
    },
}
