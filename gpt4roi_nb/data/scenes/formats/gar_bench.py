"""GAR-Bench-VQA: lettered questions about masks in compressed run lengths, for validation images only.

The benchmark has one split. Its types texture/pattern, ordering and mirror have no counterpart in the scenes.
"""

import numpy as np

from gpt4roi_nb.data.run_lengths import compressed
from gpt4roi_nb.data.scenes.formats import claims
from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile, Record
from gpt4roi_nb.data.scenes.formats.masks import run_lengths
from gpt4roi_nb.data.scenes.formats.world_image import WorldImage
from gpt4roi_nb.data.scenes.question_kinds import VALUES, pick, value_of, value_words

FOLDER = "gar_bench"
QUESTIONS = f"{FOLDER}/GAR-Bench-VQA.json"
FILES = (JsonFile(QUESTIONS),)
SPLIT = "val"
WRONG = 3
ATTRIBUTES = {"color": "colour", "shape": "category", "material": "material"}  # by type


def add(shown: WorldImage, added: Added) -> None:
    """Add a question of each type for which the scene has a clear one."""
    if shown.split != SPLIT:
        return
    rng = shown.rng("gar bench")
    image = f"images/vqa_{shown.number}.jpg"
    added.links.append(f"{FOLDER}/{image}")
    for kind in ATTRIBUTES:
        added.row(QUESTIONS, "", _attribute(shown, kind, rng) | {"image": image})
    for one, other in rng.permutation(len(shown.objects))[: len(shown.objects) // 2 * 2].reshape(-1, 2).tolist():
        item = claims.where(shown.scene, one, other, rng)
        if item is not None:
            added.row(QUESTIONS, "", _relation(shown, item, rng) | {"image": image})
            break


def _attribute(shown: WorldImage, kind: str, rng: np.random.Generator) -> Record:
    attribute = ATTRIBUTES[kind]
    index = int(rng.integers(len(shown.objects)))
    right = value_of(shown.objects[index], attribute)
    wrong = rng.permutation([value for value in VALUES[attribute] if value != right]).tolist()[:WRONG]
    texts = [f"{value_words(attribute, value).capitalize()}." for value in (right, *wrong)]
    wording = pick(rng, ("What is the {} of <Prompt0>?", "What is the {} of <Prompt0> in the image?"))
    return _record(shown, kind, [index], wording.format(kind), texts, rng)


def _relation(shown: WorldImage, item: claims.Item, rng: np.random.Generator) -> Record:
    members = sorted({index for token in item.question if not isinstance(token, str) for index in token})
    texts = [_text(choice.tokens, members) for choice in item.answers]
    return _record(shown, "relation", members, _text(item.question, members), texts, rng)


def _text(tokens: claims.Tokens, members: list[int]) -> str:
    words = (
        token if isinstance(token, str) else " and ".join(f"<Prompt{members.index(k)}>" for k in token)
        for token in tokens
    )
    text = " ".join(words)
    for sign in ",.?":
        text = text.replace(f" {sign}", sign)
    return text


def _record(
    shown: WorldImage, kind: str, members: list[int], question: str, texts: list[str], rng: np.random.Generator
) -> Record:
    """texts: the choices, the right one first. members: the objects of the masks, as `<Prompt…>` numbers them."""
    order = rng.permutation(len(texts)).tolist()
    lengths = [run_lengths(shown.scene.masks[k]) for k in members]
    return {
        "mask_rles": [{"size": one["size"], "counts": compressed(one["counts"])} for one in lengths],
        "question": question,
        "choices": [f"{letter}. {texts[k]}" for letter, k in zip("ABCD", order, strict=False)],
        "answer": "ABCD"[order.index(0)],
        "type": kind,
    }
