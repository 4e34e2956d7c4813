"""VCR: `train.jsonl`, `val.jsonl`, and one metadata file per image with boxes and outlines.

Token lists name objects by lists of 0-based indices, `…_orig` texts by numbers from 1. Some items have ordinary
numbers too.
"""

import numpy as np

from gpt4roi_nb.data.scenes.formats.claims import CHOICES, Choice, Tokens, items
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile, Record
from gpt4roi_nb.data.scenes.formats.world_image import SPLITS, WorldImage

ANNOTATIONS = {split: f"vcr/{split}.jsonl" for split in SPLITS}
FILES = tuple(JsonFile(path, lines=True) for path in ANNOTATIONS.values())
IMAGES = "vcr/vcr1images"

QUESTIONS = 3  # per image, if it has so many clear ones
CLIP = 1000  # images per "movie" folder
SCORES = (0.7, 1.0)  # a detector's confidence, the fifth column of the boxes


def written(tokens: Tokens) -> list[str | list[int]]:
    """Return tokens as the files have them: words and index lists."""
    return [token if isinstance(token, str) else list(token) for token in tokens]


def original(tokens: Tokens) -> str:
    """Return the text before tokenisation: objects are numbered from 1."""
    words = (token if isinstance(token, str) else " and ".join(str(k + 1) for k in token) for token in tokens)
    return " ".join(words)


def add(shown: WorldImage, added: Added) -> None:
    """Add an image's items to its split, and its metadata."""
    rng = shown.rng("vcr")
    movie = f"generated_{shown.number // CLIP:04d}"
    stem = f"{movie}/{movie}_{shown.stem}@0"
    added.links.append(f"{IMAGES}/{stem}.jpg")
    scores = rng.uniform(*SCORES, len(shown.objects)).round(6).tolist()
    names = [thing.category for thing in shown.objects]
    added.texts[f"{IMAGES}/{stem}.json"] = {
        "boxes": [[*map(float, thing.box), score] for thing, score in zip(shown.objects, scores, strict=True)],
        "segms": [
            [list(zip(polygon[::2], polygon[1::2], strict=True)) for polygon in polygons] for polygons in shown.polygons
        ],
        "names": names,
        "width": shown.width,
        "height": shown.height,
    }
    for k, item in enumerate(items(shown.scene, rng, QUESTIONS)):
        number = shown.number * QUESTIONS + k
        answers, answer_label = _shuffled(item.answers, rng)
        rationales, rationale_label = _shuffled(item.rationales, rng)
        sources = [number] * CHOICES
        record: Record = {
            "movie": movie,
            "objects": names,
            "interesting_scores": [0],
            "answer_likelihood": "likely",
            "img_fn": f"{stem}.jpg",
            "metadata_fn": f"{stem}.json",
            "answer_orig": original(item.answers[0].tokens),
            "question_orig": original(item.question),
            "rationale_orig": original(item.rationales[0].tokens),
            "question": written(item.question),
            "answer_match_iter": [0] * CHOICES,
            "answer_sources": sources,
            "answer_choices": answers,
            "answer_label": answer_label,
            "rationale_choices": rationales,
            "rationale_sources": sources,
            "rationale_match_iter": [0] * CHOICES,
            "rationale_label": rationale_label,
            "img_id": f"{shown.split}-{shown.number}",
            "question_number": k,
            "annot_id": f"{shown.split}-{number}",
            "match_fold": f"{shown.split}-0",
            "match_index": number,
        }
        added.row(ANNOTATIONS[shown.split], "", record)


def _shuffled(choices: tuple[Choice, ...], rng: np.random.Generator) -> tuple[list[list[str | list[int]]], int]:
    """The choices in any order, and the index of the right one, which came first."""
    order = rng.permutation(len(choices)).tolist()
    return [written(choices[k].tokens) for k in order], order.index(0)
