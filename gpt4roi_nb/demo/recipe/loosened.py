"""Questions worded a little otherwise, for training: so that no answer hangs on a sentence being as the tables have it.

A held-out wording never comes out of it.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from gpt4roi_nb.data.scenes import image_wordings, region_wordings, unseen_wordings
from gpt4roi_nb.data.scenes.held_out import Wordings
from gpt4roi_nb.data.scenes.unknown_wordings import CHAT, IMAGE, REGION

BEFORE_SHARE, SWAP_SHARE, DROP_SHARE = 0.2, 0.25, 0.12
BEFORE = (
    "Please: ",
    "Hello! ",
    "Look closely. ",
    "Look at the image. ",
    "A question: ",
    "Tell me, ",
    "Tell me: ",
    "Please tell me: ",
    "Can you tell me: ",
    "Could you say: ",
    "I want to know: ",
    "OK, ",
    "Well, ",
    "Just say: ",
)
AFTER = (" Please.", " Please?", " Thanks.", " Can you say?", " Tell me.")
# Words, and others that may stand for them in a question about a scene.
ALIKE = {
    "object": ("thing", "item"),
    "thing": ("object", "item"),
    "objects": ("things", "items"),
    "things": ("objects", "items"),
    "image": ("picture", "scene", "photo"),
    "picture": ("image", "scene", "photo"),
    "see": ("find", "notice", "spot"),
    "nearest": ("closest",),
    "closest": ("nearest",),
    "furthest": ("farthest",),
    "largest": ("biggest",),
    "larger": ("bigger",),
    "tell me": ("say", "let me know"),
    "describe": ("tell me about",),
    "list": ("name", "say"),
    "name": ("say", "list"),
    "stands": ("is", "is standing", "sits"),
    "stand": ("are", "sit"),
    "stand to": ("are to", "stand over to"),
    "lies": ("is", "stands"),
    "to the left of": ("left of", "on the left of", "on the left side of"),
    "left of": ("to the left of", "on the left of"),
    "to the right of": ("right of", "on the right of", "on the right side of"),
    "right of": ("to the right of", "on the right of"),
    "relative to": ("compared to", "with respect to"),
    "can you": ("could you", "would you"),
    "could you": ("can you", "would you"),
    "in common": ("alike",),
    "what is": ("which thing is", "what is that"),
    "which objects are": ("what is", "what things are"),
    "which object is": ("which one is", "what is"),
    "is there": ("is there maybe", "do we have"),
    "how big": ("how large",),
    "how large": ("how big",),
    "the same": ("an equal", "one"),
}
DROPPABLE = frozenset(("the", "is", "are", "of", "a", "an", "to", "do", "does", "please", "there", "it", "you", "me"))


def loosened(rng: np.random.Generator, text: str) -> str:
    """Word a question a little otherwise, or leave it as it is. A change that makes a held-out wording is not made."""
    changed = text
    if rng.random() < SWAP_SHARE:
        changed = _swapped(rng, changed)
    if rng.random() < DROP_SHARE:
        changed = _without_a_word(rng, changed)
    if rng.random() < BEFORE_SHARE:
        changed = _framed(rng, changed)
    return text if changed != text and is_held_out(changed) else changed


def _swapped(rng: np.random.Generator, text: str) -> str:
    known = [old for old in ALIKE if re.search(rf"\b{old}\b", text, re.IGNORECASE)]
    if not known:
        return text
    old = known[int(rng.integers(len(known)))]
    new = ALIKE[old][int(rng.integers(len(ALIKE[old])))]

    def replaced(found: re.Match[str]) -> str:
        return new[0].upper() + new[1:] if found[0][0].isupper() else new

    return re.sub(rf"\b{old}\b", replaced, text, count=1, flags=re.IGNORECASE)


def _without_a_word(rng: np.random.Generator, text: str) -> str:
    words = [found for found in re.finditer(r"\b[A-Za-z]+\b ", text) if found[0].strip().lower() in DROPPABLE]
    if not words:
        return text
    word = words[int(rng.integers(len(words)))]
    return text[: word.start()] + text[word.end() :]


def _framed(rng: np.random.Generator, text: str) -> str:
    if rng.random() < 0.3:
        return text + AFTER[int(rng.integers(len(AFTER)))]
    return BEFORE[int(rng.integers(len(BEFORE)))] + (text[0].lower() + text[1:] if rng.random() < 0.6 else text)


def is_held_out(text: str) -> bool:
    """Whether a text is a held-out wording, whatever its regions, capitals and closing mark are."""
    return _held_out().fullmatch(_plain(text)) is not None


def _plain(text: str) -> str:
    return re.sub(r"[?.!,:;]+", "", re.sub(r"<?region ?\d>?", "@", text.lower().replace("color", "colour"))).strip()


@cache
def _held_out() -> re.Pattern[str]:
    modules, groups = (image_wordings, region_wordings), (REGION, IMAGE, CHAT, region_wordings.IT)
    tables = [one for module in modules for one in vars(module).values() if isinstance(one, Wordings)]
    tables += [one for group in groups for one in group.values()]
    wordings = [text for table in tables for text in table.unseen]
    wordings += [text for name, table in vars(unseen_wordings).items() if name.isupper() for text in table]
    marked = (re.sub(r"\{[ab]\}", "@", text) for text in wordings)
    patterns = {re.sub(r"\\\{\w+\\\}", ".+", re.escape(_plain(text))) for text in marked}
    return re.compile("|".join(sorted(patterns)))
