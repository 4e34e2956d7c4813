"""LVIS v1: image records have no `file_name`, annotations no `iscrowd`; a category is a colour and a kind."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from gpt4roi_nb.data.scenes.formats.coco import INFO, LICENSES, image_record, object_records
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile, Record
from gpt4roi_nb.data.scenes.formats.world_image import SPLITS, WorldImage
from gpt4roi_nb.data.scenes.scene import CATEGORIES, COLOURS, SceneObject

# Some of LVIS's names contain a space or parentheses, and so do these.
KIND_NAMES = {"ring": " ring", "mug": "_mug_(drinking_vessel)"}
NEGATIVES = 5  # categories that an image record lists as certainly absent

LVIS_FILES = {split: f"lvis/lvis_v1_{split}.json" for split in SPLITS}


def category_id(thing: SceneObject) -> int:
    """Return the id of an object's category, from 1."""
    return COLOURS.index(thing.colour) * len(CATEGORIES) + CATEGORIES.index(thing.category) + 1


def _categories() -> list[Record]:
    records: list[Record] = []
    for colour in COLOURS:
        for kind in CATEGORIES:
            name = colour + KIND_NAMES.get(kind, f"_{kind}")
            records.append(
                {
                    "synset": f"{colour}_{kind}.n.01",
                    "synonyms": [name, f"{colour}-coloured_{kind}"],
                    "id": len(records) + 1,
                    "def": f"a {kind} that is painted {colour}",
                    "name": name,
                }
            )
    return records


@dataclass(frozen=True)
class LvisFile(JsonFile):
    """A file whose categories give their numbers of images and annotations, and so how frequent they are."""

    def write(self, path: Path, spools: dict[str, Path]) -> None:
        """Count images and annotations per category, then write the file."""
        pairs: Counter[tuple[int, int]] = Counter()  # of category and image
        if "annotations" in spools:
            with spools["annotations"].open("rb") as lines:
                for line in lines:
                    tail = orjson.loads(b"{" + line[line.index(b'"image_id"') :])  # skips the outline: most of a line
                    pairs[tail["category_id"], tail["image_id"]] += 1
        images = Counter(category for category, _ in pairs)
        instances: Counter[int] = Counter()
        for (category, _), count in pairs.items():
            instances[category] += count
        categories = [
            {
                "image_count": images[record["id"]],
                "instance_count": instances[record["id"]],
                "frequency": _frequency(images[record["id"]]),
                **record,
            }
            for record in self.head["categories"]
        ]
        JsonFile.write(replace(self, head=self.head | {"categories": categories}), path, spools)


def _frequency(images: int) -> str:
    """Rare, common or frequent, by LVIS's bounds."""
    return "r" if images <= 10 else "c" if images <= 100 else "f"


LVIS_CATEGORIES = _categories()
FILES = tuple(
    LvisFile(path, ("images", "annotations"), {"info": INFO, "licenses": LICENSES, "categories": LVIS_CATEGORIES})
    for path in LVIS_FILES.values()
)


def add(shown: WorldImage, added: Added) -> None:
    """Add an image to its split."""
    file = LVIS_FILES[shown.split]
    present = {category_id(thing) for thing in shown.objects}
    absent = [record["id"] for record in LVIS_CATEGORIES if record["id"] not in present]
    image = image_record(shown, "")
    del image["file_name"]
    drawn = shown.rng("lvis").choice(absent, NEGATIVES, replace=False).tolist()
    added.row(file, "images", image | {"neg_category_ids": sorted(drawn), "not_exhaustive_category_ids": []})
    for record, thing in zip(object_records(shown), shown.objects, strict=True):
        annotation = record | {"category_id": category_id(thing)}
        del annotation["iscrowd"]
        added.row(file, "annotations", annotation)
