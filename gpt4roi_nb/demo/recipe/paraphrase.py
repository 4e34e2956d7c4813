"""Questions of training in other words, so that no answer depends on a sentence being as the tables have it.

No held-out wording comes out of it; a test compares all that can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

SYNONYM_SHARE, DROP_SHARE, FRAME_SHARE = 0.25, 0.12, 0.2
ORDER_SHARE = 0.5  # of the questions that let choose between two regions
AFTER_SHARE, SMALL_SHARE = 0.3, 0.6  # of the frames: what follows the question; a small letter after what precedes it
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
SYNONYMS = {
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
    "alike": ("similar", "like each other"),
    "what is": ("which thing is",),
    "which objects are": ("what is", "what things are"),
    "which object is": ("which one is", "what is"),
    "is there": ("is there maybe", "do we have"),
    "how big": ("how large",),
    "how large": ("how big",),
    "the same": ("an equal",),
}
# Words of questions that an image does not answer, and others that leave these without an answer.
AS_UNKNOWN = {
    "happy": ("angry", "tired", "hungry", "alive", "lonely"),
    "beautiful": ("ugly", "nice", "clever"),
    "expensive": ("cheap", "precious"),
    "country": ("street", "building", "continent"),
    "city": ("town", "village", "museum"),
    "kitchen": ("bedroom", "garden", "school"),
}
REGION = r"(?:<region\d>|\{\w\})"  # as asked, or its place in a wording
CHOICE_OF_TWO = re.compile(rf"([Ww]hich (?:one )?)(is .*?)[,:] ({REGION}) or ({REGION})\??")
FUNCTION_WORDS = frozenset(
    ("the", "is", "are", "of", "a", "an", "to", "do", "does", "please", "there", "it", "you", "me")
)


def paraphrase(rng: np.random.Generator, text: str) -> str:
    """Word a question a little otherwise, or leave it as it is."""
    ways = ((ORDER_SHARE, in_another_order), (SYNONYM_SHARE, with_synonym), (DROP_SHARE, without_a_word))
    for share, variants in ways:
        if rng.random() < share:
            found = list(variants(text))
            text = found[int(rng.integers(len(found)))] if found else text
    return _framed(rng, text) if rng.random() < FRAME_SHARE else text


def with_synonym(text: str) -> Iterator[str]:
    """Yield the text with one word, or group of words, replaced."""
    for old, words in (SYNONYMS | AS_UNKNOWN).items():
        found = re.search(rf"(?<!to the )(?<!on the )\b{old}\b", text, re.IGNORECASE)
        if found:
            for new in words:
                written = new[0].upper() + new[1:] if found[0][0].isupper() else new
                yield text[: found.start()] + written + text[found.end() :]


def in_another_order(text: str) -> Iterator[str]:
    """Yield "Which is nearer, A or B?" with the two regions elsewhere."""
    found = CHOICE_OF_TWO.fullmatch(text)
    if found:
        which, asked, first, second = found.groups()
        yield f"Between {first} and {second}, {which.lower()}{asked}?"
        yield f"If you compare {first} with {second}, {which.lower()}{asked}?"
        yield f"Which one, {first} or {second}, {asked}?"
        yield f"Of these two, {first} and {second}, which {asked}?"


def without_a_word(text: str) -> Iterator[str]:
    """Yield the text without one of its `FUNCTION_WORDS`."""
    for word in re.finditer(r"\b[A-Za-z]+\b ", text):
        if word[0].strip().lower() in FUNCTION_WORDS:
            yield text[: word.start()] + text[word.end() :]


def _framed(rng: np.random.Generator, text: str) -> str:
    if rng.random() < AFTER_SHARE:
        return text + AFTER[int(rng.integers(len(AFTER)))]
    begun = text[0].lower() + text[1:] if rng.random() < SMALL_SHARE else text
    return BEFORE[int(rng.integers(len(BEFORE)))] + begun
