"""Where a conversation names regions and values: what throw-away heads are taught to read there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from gpt4roi_nb.data.scenes.question_kinds import VALUES, plural, stuff
from gpt4roi_nb.data.scenes.wordings import THINGS
from gpt4roi_nb.prompt import IGNORE, token_id_of
from gpt4roi_nb.tokenizer import REGION_TOKEN

BOTH = "▁both"  # "region1 and region2 are both red"
ARTICLES = ("▁a", "▁an")
CATEGORY, COLOUR = (list(VALUES).index(name) for name in ("category", "colour"))


class Name(NamedTuple):
    """The token at `place` names region `number`: its `<bbox>`, or its number where the `<bbox>` stands earlier."""

    place: int
    number: int


class Pair(NamedTuple):
    """The token at `place` names region `second` after region `first` was named."""

    place: int
    first: int
    second: int


class ValueWord(NamedTuple):
    """The word at `place` names a value of regions `numbers`, those that were named last; `attribute` and `value` are
    indices into `VALUES`."""

    place: int
    numbers: tuple[int, ...]
    attribute: int
    value: int


class Item(NamedTuple):
    """The article at `place`, in the answer of turn `turn`, begins the name of a thing, as "a red cone" does; colour
    and category are indices into `VALUES`."""

    place: int
    turn: int
    colour: int
    category: int


class Marks(NamedTuple):
    """All marks of a conversation, in order."""

    names: tuple[Name, ...]
    pairs: tuple[Pair, ...]
    values: tuple[ValueWord, ...]


class Marker:
    """Finds marks in token ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        vocabulary = tokenizer.get_vocab()
        self.pieces = {number: piece.replace("▁", " ") for piece, number in vocabulary.items()}
        self.values = value_pieces(vocabulary)
        self.region = token_id_of(REGION_TOKEN, tokenizer)
        self.both = vocabulary.get(BOTH)
        self.things = {token_id_of(f"▁{word}", tokenizer) for word in THINGS}
        self.articles = {vocabulary[piece] for piece in ARTICLES if piece in vocabulary}

    def marks(self, input_ids: Sequence[int]) -> Marks:
        text, number, meant = "", 0, 1  # meant: how many of the last names a value is said of
        names: list[Name] = []
        values = []
        seen: set[int] = set()
        for place, token in enumerate(input_ids):
            text = (text + self.pieces[token])[-len("region 1") :]
            mention = re.search(r"region ?([1-9])\Z", text)  # `$` would also match before a line's end
            if mention:
                number = int(mention.group(1))
            if token == self.region or (mention and number in seen):
                seen.add(number)
                names.append(Name(place, number))
                meant = 1
            elif token == self.both:
                meant = 2
            elif names and token in self.values:
                values.append(ValueWord(place, tuple(name.number for name in names[-meant:]), *self.values[token]))
        pairs = [Pair(b.place, a.number, b.number) for a, b in pairwise(names) if a.number != b.number]
        return Marks(tuple(names), tuple(pairs), tuple(values))

    def items(self, input_ids: Sequence[int], labels: Sequence[int]) -> list[Item]:
        """Find the things that the answers name by colour and category."""
        found, turn = [], 0
        for place, (token, label) in enumerate(zip(input_ids, labels, strict=True)):
            if label == IGNORE:
                continue
            if place and labels[place - 1] == IGNORE:
                turn += 1
            named = [self.values.get(one) for one in input_ids[place + 1 : place + 3]]
            if token not in self.articles or len(named) < 2 or named[0] is None or named[1] is None:
                continue
            if (named[0][0], named[1][0]) == (COLOUR, CATEGORY):
                found.append(Item(place, turn, named[0][1], named[1][1]))
        return found

    def counted(self, input_ids: Sequence[int], question: Sequence[int]) -> list[int]:
        """The place, among those of a question, of the word that says what it counts: a value, or else "objects".

        Empty if there is none, as after a typing slip in that word.
        """
        for words in (self.values, self.things):
            for place in question:
                if input_ids[place] in words:
                    return [place]
        return []


def value_pieces(vocabulary: Mapping[str, int]) -> dict[int, tuple[int, int]]:
    """Token ids of the words that name a value, to the indices of attribute and value in `VALUES`."""
    found = {}
    for attribute, values in enumerate(VALUES.values()):
        for index, value in enumerate(values):
            words = {value, plural(value), stuff(value)}
            found.update({vocabulary[f"▁{word}"]: (attribute, index) for word in words if f"▁{word}" in vocabulary})
    return found
