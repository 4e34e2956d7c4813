"""Visual Genome's region phrases, in two forms, and Flickr30k Entities as MDETR gives it."""

import numpy as np

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.scenes.formats.coco import URL
from gpt4roi_nb.data.scenes.formats.expressions import RELATIONS, reach
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile, Record
from gpt4roi_nb.data.scenes.formats.referring import MDETR_HEAD
from gpt4roi_nb.data.scenes.formats.world_image import SPLITS, WorldImage, union, xywh
from gpt4roi_nb.data.scenes.question_kinds import SIDE_MARGIN, an, pick, plural, stuff
from gpt4roi_nb.data.scenes.scene import MAX_OBJECTS, SceneObject

# Published results on Visual Genome use its test part. This world has none, so that file gets the validation images.
GENOME_FILES = {split: f"vg/{split}.json" for split in (*SPLITS, "test")}
GENOME_SPLITS = {"train": ("train",), "val": ("val", "test")}
REGIONS, IMAGES = "vg/region_descriptions.json", "vg/image_data.json"
FLICKR_FILES = {split: f"flickr30k/final_flickr_separateGT_{split}.json" for split in SPLITS}
FILES = (
    *(
        JsonFile(path, ("images", "annotations"), {"categories": MDETR_HEAD["categories"]})
        for path in GENOME_FILES.values()
    ),
    JsonFile(REGIONS),
    JsonFile(IMAGES),
    *(JsonFile(path, ("images", "annotations"), MDETR_HEAD) for path in FLICKR_FILES.values()),
)

PHRASES = (
    "a {size} {colour} {material} {category}",
    "{colour} {category} on a table",
    "the {category} is {colour}",
    "a {category} made of {stuff}",
    "{size} {category}",
    "a {colour} {material} {category}",
)
UNTIDY_SHARE = 0.1  # of phrases that end in a space, as many of Visual Genome's do
REGIONS_PER_IMAGE = 3 * MAX_OBJECTS

WORDS_FOR_NUMBERS = (
    "",
    "a",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
ENDINGS = ("on a table .", "in front of a wall .", "on a smooth table .", "under a lamp .")
CAPTIONS = 2  # per image


def add(shown: WorldImage, added: Added) -> None:
    """Add an image to Visual Genome's and Flickr30k's files."""
    _add_genome(shown, added)
    _add_flickr(shown, added)


def regions(shown: WorldImage) -> list[tuple[Box, str]]:
    """Return regions with a phrase that is true of them: two per object, and some of two objects."""
    rng = shown.rng("visual genome")
    found: list[tuple[Box, str]] = []
    for thing in shown.objects:
        for wording in rng.choice(len(PHRASES), 2, replace=False):
            found.append((thing.box, _described(thing, PHRASES[wording])))
    for _ in range(len(shown.objects) // 2):
        one, other = (shown.objects[k] for k in rng.choice(len(shown.objects), 2, replace=False))
        gap = reach(one, "left") - reach(other, "left")
        if abs(gap) >= SIDE_MARGIN * shown.width:
            words = pick(rng, RELATIONS["left" if gap > 0 else "right"])
            found.append(
                (union([one.box, other.box]), f"{one.colour} {one.category} {words} {other.colour} {other.category}")
            )
    return [(box, phrase + " " if rng.random() < UNTIDY_SHARE else phrase) for box, phrase in found]


def _described(thing: SceneObject, wording: str) -> str:
    text = wording.format(
        size=thing.size,
        colour=thing.colour,
        material=thing.material,
        category=thing.category,
        stuff=stuff(thing.material),
    )
    return an(text.removeprefix("a ")) if text.startswith("a ") else text


def _add_genome(shown: WorldImage, added: Added) -> None:
    file_name = f"{shown.number}.jpg"
    added.links.append(f"vg/VG_100K/{file_name}")
    size = {"width": shown.width, "height": shown.height}
    files = [GENOME_FILES[split] for split in GENOME_SPLITS[shown.split]]
    for file in files:
        added.row(file, "images", {"id": shown.number, "file_name": file_name, **size})
    described = []
    for k, (box, phrase) in enumerate(regions(shown)):
        number = shown.number * REGIONS_PER_IMAGE + k
        x1, y1, x2, y2 = box
        x, y, width, height = x1, y1, x2 - x1, y2 - y1
        annotation = {
            "id": number,
            "image_id": shown.number,
            "category_id": 1,
            "bbox": [x, y, width, height],
            "area": width * height,
            "iscrowd": 0,
            "caption": phrase,
        }
        for file in files:
            added.row(file, "annotations", annotation)
        region = {"region_id": number, "width": width, "height": height, "image_id": shown.number}
        described.append(region | {"phrase": phrase, "y": y, "x": x})
    added.row(REGIONS, "", {"regions": described, "id": shown.number})
    image = size | {
        "url": f"{URL}/VG_100K/{file_name}",
        "image_id": shown.number,
        "coco_id": shown.number,
        "flickr_id": None,
    }
    added.row(IMAGES, "", image)


def sentence(shown: WorldImage, rng: np.random.Generator) -> tuple[str, list[tuple[tuple[int, int], list[int]]]]:
    """Write a caption; for each of its phrases, return characters (start, end) and the indices of the objects meant."""
    by_colour = rng.random() < 0.5
    groups: dict[str, list[int]] = {}
    for index, thing in enumerate(shown.objects):
        groups.setdefault(f"{thing.colour} {thing.category}" if by_colour else thing.category, []).append(index)
    names = [str(name) for name in rng.permutation(sorted(groups))]
    text, phrases = "", []
    for k, name in enumerate(names):
        members = groups[name]
        count = len(members)
        phrase = an(name) if count == 1 else f"{WORDS_FOR_NUMBERS[count]} {plural(name)}"
        text += "" if k == 0 else " and " if k == len(names) - 1 else " , "
        phrases.append(((len(text), len(text) + len(phrase)), members))
        text += phrase
    return f"{text} {pick(rng, ENDINGS)}", phrases


def _add_flickr(shown: WorldImage, added: Added) -> None:
    rng = shown.rng("flickr30k")
    file, file_name = FLICKR_FILES[shown.split], f"{shown.number}.jpg"
    added.links.append(f"flickr30k/flickr30k-images/{file_name}")
    for k in range(CAPTIONS):
        text, phrases = sentence(shown, rng)
        number = shown.number * CAPTIONS + k
        image: Record = {
            "file_name": file_name,
            "height": str(shown.height),  # a string, as in the published files
            "width": str(shown.width),
            "id": number,
            "original_img_id": shown.number,
            "sentence_id": k,
            "caption": text,
            "dataset_name": "flickr",
            "tokens_negative": [[0, len(text)]],
            "tokens_positive_eval": [[list(span)] for span, _ in phrases],
        }
        added.row(file, "images", image)
        for span, members in phrases:
            for index in members:
                thing = shown.objects[index]
                x, y, width, height = xywh(thing.box)
                annotation = {
                    "area": width * height,
                    "iscrowd": 0,
                    "image_id": number,
                    "category_id": 1,
                    "id": number * MAX_OBJECTS + index,
                    "bbox": [x, y, width, height],
                    "tokens_positive": [list(span)],
                }
                added.row(file, "annotations", annotation)
