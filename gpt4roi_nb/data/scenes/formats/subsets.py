"""The question files on LVIS and PACO behind published results: Osprey's, Ferret's and ControlMLLM's.

They are made from what `lvis` and `paco` add for validation images.
"""

from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile, Record
from gpt4roi_nb.data.scenes.formats.lvis import LVIS_CATEGORIES, LVIS_FILES
from gpt4roi_nb.data.scenes.formats.paco import NAMES, PACO_FILES
from gpt4roi_nb.data.scenes.formats.world_image import WorldImage

OSPREY_LVIS, OSPREY_PACO = "lvis/lvis_val_1k_category.json", "paco/paco_val_1k_category.json"
FERRET, CONTROLMLLM = "lvis/lvis_eval.jsonl", "lvis/question_roc.json"
FILES = (
    JsonFile(OSPREY_LVIS),
    JsonFile(OSPREY_PACO),
    JsonFile(FERRET, lines=True),
    JsonFile(CONTROLMLLM, lines=True),
)
LVIS_NAMES = [record["name"] for record in LVIS_CATEGORIES]


def add(shown: WorldImage, added: Added) -> None:
    """Add an image, if it is for validation. Call this after `lvis.add` and `paco.add`."""
    if shown.split != "val":
        return
    size = {"height": shown.height, "width": shown.width}
    sources = (LVIS_FILES["val"], LVIS_NAMES, OSPREY_LVIS), (PACO_FILES["val"], NAMES, OSPREY_PACO)
    for source, names, file in sources:
        annotations = _rows(added, source, "annotations")
        categories = [names[one["category_id"] - 1] for one in annotations]
        image = {"id": shown.number, "file_name": f"{shown.stem}.jpg", **size}
        added.row(file, "", {**image, "categories": categories, "annotations": annotations})
    (absent,) = (one["neg_category_ids"] for one in _rows(added, LVIS_FILES["val"], "images"))
    for index, one in enumerate(_rows(added, LVIS_FILES["val"], "annotations")):
        _add_choice(shown, added, one, LVIS_NAMES[absent[index % len(absent)] - 1])


def _rows(added: Added, file: str, part: str) -> list[Record]:
    return [record for name, within, record in added.rows if (name, within) == (file, part)]


def _add_choice(shown: WorldImage, added: Added, annotation: Record, false: str) -> None:
    """Add a line to Ferret's file, and one to ControlMLLM's, which has the question in words."""
    category = LVIS_CATEGORIES[annotation["category_id"] - 1]
    x, y, width, height = annotation["bbox"]
    centre = [x + width / 2, y + height / 2]
    common = {
        "id": annotation["id"],
        "image_path": f"coco/val2017/{shown.stem}.jpg",
        "name": category["name"],
        "synonyms": category["synonyms"],
        "bbox": annotation["bbox"],
        "width": shown.width,
        "height": shown.height,
    }
    corners = [x / shown.width, y / shown.height, (x + width) / shown.width, (y + height) / shown.height]
    added.row(FERRET, "", common | {"bbox_norm": corners, "neg_class": false, "sample_point": centre})
    pair = [category["name"], false] if annotation["id"] % 2 else [false, category["name"]]
    text = "Is the object <location> of the image a {} or a {}?".format(*(name.replace("_", " ") for name in pair))
    added.row(CONTROLMLLM, "", common | {"text": text, "center_point": centre})
