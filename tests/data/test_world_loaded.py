"""The generated world read back by the loaders that read the real files: nothing is bad, and the boxes are right."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4roi_nb.data import load
from gpt4roi_nb.data.scenes import Scene

COCO, REFERRING = "coco/train2017", "coco/train2014"
SOURCES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("coco", "coco/annotations/instances_train2017.json", COCO, {}),
    ("coco", "coco/annotations/panoptic_train2017.json", COCO, {}),
    ("coco", "lvis/lvis_v1_train.json", "coco", {}),
    *(
        source
        for name, refs in (("refcoco", "refs(unc).p"), ("refcoco+", "refs(unc).p"), ("refcocog", "refs(umd).p"))
        for source in (
            ("refcoco", f"{name}/finetune_{name}_train.json", REFERRING, {}),
            ("refcoco", f"{name}/{refs}", REFERRING, {"instances": f"{name}/instances.json"}),
        )
    ),
    ("flickr30k", "flickr30k/final_flickr_separateGT_train.json", "flickr30k/flickr30k-images", {}),
    ("visual_genome", "vg/train.json", "vg/VG_100K", {}),
    ("visual_genome", "vg/region_descriptions.json", "vg", {"image_data": "vg/image_data.json"}),
    *(
        ("vcr", "vcr/train.jsonl", "vcr/vcr1images", {"rendering": rendering})
        for rendering in ("all", "single", "several", "choice")
    ),
    *(
        ("llava", "llava/llava_instruct_150k.json", COCO, {"boxes": f"llava/llava_150k_bbox_pred_results.{suffix}"})
        for suffix in ("pkl", "npz")
    ),
]


def number_of(image: str) -> int:
    """The picture's number from any of its names."""
    return int(Path(image).stem.removesuffix("@0").split("_")[-1])


@pytest.mark.parametrize(("form", "file", "images", "options"), SOURCES, ids=lambda value: str(value).replace("/", "-"))
def test_every_file_is_loaded_whole(
    world: Path,
    drawn: dict[int, Scene],
    tmp_path: Path,
    form: str,
    file: str,
    images: str,
    options: dict[str, Any],
) -> None:
    paths = {key: value if key == "rendering" else world / value for key, value in options.items()}
    data = load(form, world / file, world / images, cache=tmp_path, strict=True, **paths)
    assert len(data) > 15
    for k in range(len(data)):
        annotation = data.annotation(k)
        assert (world / images / annotation.image).is_file()
        boxes = np.array([thing.box for thing in drawn[number_of(annotation.image)].objects])
        if form != "visual_genome" and "panoptic" not in file:  # they have regions that are no single object
            for box in annotation.boxes:
                assert np.abs(boxes - box).max(1).min() < 1e-3
    picture, record = data.read(0)
    assert picture.size == (336, 336)
    assert len(record.turns) >= 2
