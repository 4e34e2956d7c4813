"""RefCOCO, RefCOCO+ and RefCOCOg: UNC's `refs` and `instances` files, and the MDETR files.

Every expression picks exactly one object of its image. RefCOCO has words of place, RefCOCO+ has none, RefCOCOg has
longer sentences. All images are in one `train2014` folder, as in the originals; `split` says which are for validation.
"""

import numpy as np

from gpt4roi_nb.data.scenes.formats.coco import CATEGORY_IDS, HEAD, THINGS, image_record, object_records
from gpt4roi_nb.data.scenes.formats.expressions import Expression, by_looks, by_neighbour, by_place
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile, ObjectFile, Record, pickled
from gpt4roi_nb.data.scenes.formats.world_image import SPLITS, WorldImage, xywh
from gpt4roi_nb.data.scenes.question_kinds import an, pick

REFS = {"refcoco": "refs(unc).p", "refcoco+": "refs(unc).p", "refcocog": "refs(umd).p"}
SENTENCES = 3  # at most, per object
PLACE_SHARE = 0.6  # of RefCOCO's expressions
SHOUTED_SHARE = 0.05  # of raw expressions in capitals
MDETR_HEAD: Record = {
    "info": [],
    "licenses": [],
    "categories": [{"supercategory": "object", "id": 1, "name": "object"}],
}


def mdetr(dataset: str, split: str) -> str:
    """Return the name of an MDETR file."""
    return f"{dataset}/finetune_{dataset}_{split}.json"


def _refs(dataset: str) -> str:
    return f"{dataset}/{REFS[dataset]}"


FILES = tuple(
    file
    for dataset in REFS
    for file in (
        JsonFile(f"{dataset}/instances.json", ("images", "annotations"), HEAD | {"categories": THINGS}),
        ObjectFile(_refs(dataset), _refs(dataset), pickled),
        *(JsonFile(mdetr(dataset, split), ("images", "annotations"), MDETR_HEAD) for split in SPLITS),
    )
)


def image_name(shown: WorldImage) -> str:
    """Return the name of an image's file in `coco/train2014`."""
    return f"COCO_train2014_{shown.stem}.jpg"


def expressions(shown: WorldImage, dataset: str, index: int, rng: np.random.Generator) -> list[tuple[Expression, str]]:
    """Draw up to `SENTENCES` expressions for an object, with their words; none if it cannot be told from the others."""
    scene = shown.scene
    looks = by_looks(scene, index)
    if dataset == "refcoco":
        places = by_place(scene, index)
        pools = [places, looks] if rng.random() < PLACE_SHARE else [looks, places]
    elif dataset == "refcoco+":
        pools = [looks]
    else:
        pools = [by_neighbour(scene, index, rng)]
    pool = next((found for found in pools if found), [])
    count = min(len(pool), int(rng.integers(1, SENTENCES + 1)))
    drawn = [pool[k] for k in rng.choice(len(pool), count, replace=False)] if count else []
    worded = []
    for expression in drawn:
        words = expression.words(rng)
        if dataset == "refcocog":
            words = pick(
                rng, (f"the {words}", an(words), f"{an(expression.noun())} that is{_after(words, expression)}")
            )
        elif rng.random() < 0.2:
            words = f"the {words}"
        worded.append((expression, words))
    return worded


def _after(words: str, expression: Expression) -> str:
    return words.removeprefix(expression.noun())


def add(shown: WorldImage, added: Added) -> None:
    """Add an image to the files of all three data sets."""
    added.links.append(f"coco/train2014/{image_name(shown)}")
    image, objects = image_record(shown, image_name(shown)), object_records(shown)
    for dataset in REFS:
        rng = shown.rng(dataset)
        added.row(f"{dataset}/instances.json", "images", image)
        for index, record in enumerate(objects):
            added.row(f"{dataset}/instances.json", "annotations", record)
            worded = expressions(shown, dataset, index, rng)
            if worded:
                _add_ref(shown, added, dataset, index, [words for _, words in worded], rng)


def _add_ref(
    shown: WorldImage, added: Added, dataset: str, index: int, sentences: list[str], rng: np.random.Generator
) -> None:
    number = shown.object_id(index)
    sent_ids = [number * SENTENCES + k for k in range(len(sentences))]
    ref = {
        "sent_ids": sent_ids,
        # As in the published files, it contains the annotation's id; no image has this name.
        "file_name": f"COCO_train2014_{shown.stem}_{number}.jpg",
        "ann_id": number,
        "ref_id": number,
        "image_id": shown.number,
        "split": shown.split,
        "sentences": [
            {
                "tokens": words.split(),
                "raw": words.upper() if rng.random() < SHOUTED_SHARE else words,
                "sent_id": sent_id,
                "sent": words,
            }
            for words, sent_id in zip(sentences, sent_ids, strict=True)
        ],
        "category_id": CATEGORY_IDS[shown.objects[index].category],
    }
    added.row(_refs(dataset), "", ref)
    file = mdetr(dataset, shown.split)
    for words, sent_id in zip(sentences, sent_ids, strict=True):
        added.row(
            file,
            "images",
            {
                "file_name": image_name(shown),
                "height": shown.height,
                "width": shown.width,
                "id": sent_id,
                "original_id": shown.number,
                "caption": words,
                "dataset_name": dataset,
                "tokens_negative": [[0, len(words)]],
            },
        )
        annotation = {
            "area": float(shown.areas[index]),
            "iscrowd": 0,
            "image_id": sent_id,
            "category_id": 1,
            "id": sent_id,
            "bbox": xywh(shown.objects[index].box),
            "original_id": number,
            "tokens_positive": [[0, len(words)]],
        }
        added.row(file, "annotations", annotation)
