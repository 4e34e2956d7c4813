"""Questions in the wordings of the published benchmarks about a drawn scene, as the world's files have them."""

from __future__ import annotations

from functools import lru_cache

from gpt4roi_nb.data.protocol_texts import LETTERS
from gpt4roi_nb.data.scenes.formats import lvis, own_benchmarks, paco, visual7w
from gpt4roi_nb.data.scenes.formats.files import Added
from gpt4roi_nb.data.scenes.formats.world_image import VAL_EVERY, WorldImage
from gpt4roi_nb.data.scenes.questions import Question
from gpt4roi_nb.data.scenes.scene import make_scene

# Kinds: answered by words, by the letter of a text, and by the letter of a region.
PROTOCOL_NAMES, PROTOCOL_LETTERS, PROTOCOL_POINTING = "protocol names", "protocol letters", "protocol pointing"
PROTOCOL_KINDS = (PROTOCOL_NAMES, PROTOCOL_LETTERS, PROTOCOL_POINTING)
NUMBER = VAL_EVERY  # of an image for training
KEPT = 10_000  # scenes whose questions are kept


@lru_cache(KEPT)
def protocol_questions(seed: int, size: int) -> dict[str, tuple[Question, ...]]:
    """By kind, what the benchmarks ask about `make_scene(seed, size=size)`; boxes are pixels of that size.

    A question whose boxes are all boxes of objects names the objects instead.

    The scene has as many objects as `make_scene` draws by default.
    """
    shown, added = WorldImage(NUMBER, make_scene(seed, size=size)), Added()
    for module in (lvis, paco, visual7w, own_benchmarks):
        module.add(shown, added)
    known = {tuple(map(float, thing.box)): k for k, thing in enumerate(shown.scene.objects)}
    found: dict[str, list[Question]] = {kind: [] for kind in PROTOCOL_KINDS}
    for file, _, record in added.rows:
        if file == own_benchmarks.FILES[0].path:
            (asked, answer), boxes = (turn["value"] for turn in record["conversations"]), record["boxes"]
            by_letter = PROTOCOL_POINTING if f"{LETTERS[0]} <region1>" in asked else PROTOCOL_LETTERS
            kind = by_letter if answer in LETTERS else PROTOCOL_NAMES
            objects = tuple(known[box] for box in map(tuple, boxes) if box in known)
            if len(objects) == len(boxes):
                found[kind].append(Question(kind, asked, answer, objects, answer))
            else:
                found[kind].append(Question(kind, asked, answer, (), answer, tuple(map(tuple, boxes))))
    return {kind: tuple(questions) for kind, questions in found.items()}
