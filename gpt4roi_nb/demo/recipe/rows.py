"""Many conversations about one image in one row: they share the image's tokens and do not see each other.

The losses equal those of one conversation per row (a test compares them) at a fraction of the cost, since the opening
of the prompt, with all image tokens, is computed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from operator import and_

import numpy as np
import torch
from torch import Tensor

from gpt4roi_nb.data.protocol_texts import LETTERS
from gpt4roi_nb.data.scenes.open_questions import NOTHING
from gpt4roi_nb.data.scenes.question_kinds import left_to_right
from gpt4roi_nb.data.scenes.scene import Scene
from gpt4roi_nb.demo.recipe.curriculum import Conversation
from gpt4roi_nb.demo.recipe.marks import CATEGORY, COLOUR, Item, Marker, Marks
from gpt4roi_nb.demo.recipe.protocols import PROTOCOL_POINTING
from gpt4roi_nb.demo.recipe.symbols import symbols_of, tally
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.prompt import IGNORE, Turns, build_prompt

CACHED_SEGMENTS = 200_000
# What a region can show; those that are not of an object begin the targets of questions about such boxes.
WHOLE, PART, TWO, EMPTY = "whole", "part", "two", "empty"
SHOWN = {name: number for number, name in enumerate((WHOLE, PART, TWO, EMPTY))}


@dataclass(frozen=True)
class Segment:
    """A conversation after the opening: ids, labels, and the number of the region behind each `<bbox>`.

    marks: of all turns. asked: how many tokens come before the first answer. option_bounds: of a multiple-choice
    question, places of the tokens that end the options, after the one that ends the line before them. counted: of
    each question that asks how many, the place of the word that says of what, and the number. items: what the answers
    name.
    """

    input_ids: list[int]
    labels: list[int]
    regions: tuple[int, ...]
    marks: Marks
    asked: int
    option_bounds: tuple[int, ...]
    counted: tuple[tuple[int, int], ...]
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Rows:
    """B images, each with the opening of P tokens and then Q slots of L tokens, one conversation per slot.

    input_ids, labels: (B, P + Q·L) int64. position_ids: (1, P + Q·L); every slot continues where the opening ends.
    attributes: (objects of all images, 4) int64; places: (objects of all images, 5), as `symbols.places` has them.
    regions: index of each `<bbox>`, in order, among all objects of all images and then `other_boxes`, those of all
    images in order. other_boxes: of each image (n, 4) float32 xyxy in [0, 1], boxes that are no object's.

    tallies: (B, grid², 20) float32, as `symbols.tally` has them, or (B, 0, 20) without image tokens; the first of these
    is token `image_start`.

    The other fields say what can be read where. Each `…_at` is (n, 2) int64, row and column of n tokens:

    - name_objects (n,): the object of each `Name`, or the one that it shows a part of;
    - pair_objects (n, 2): the two objects of each `Pair`;
    - claim_true (n,) bool: whether each `ValueWord` of a first question is true;
    - so_far_true (n,) bool: at each of these in an option, whether all of the option's are true up to there;
    - option_right (n,) bool: whether the option that ends there is the right one;
    - counts (n,): the answer to each question that asks how many, at the word that says of what;
    - fits (n,) bool: whether the region that an option offers has all values that the question names, at the option's
      end;
    - item_objects (n,): the object that each `Item` names, or that is asked for before the options;
    - shown (n,): what a region shows where it is named, an index into `SHOWN`.

    scenes: of the rows.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    prefix_length: int
    slot_length: int
    attributes: Tensor
    places: Tensor
    regions: Tensor
    other_boxes: tuple[np.ndarray, ...]
    image_start: int
    tallies: Tensor
    name_at: Tensor
    name_objects: Tensor
    pair_at: Tensor
    pair_objects: Tensor
    claim_at: Tensor
    claim_true: Tensor
    so_far_at: Tensor
    so_far_true: Tensor
    option_at: Tensor
    option_right: Tensor
    count_at: Tensor
    counts: Tensor
    fits_at: Tensor
    fits: Tensor
    item_at: Tensor
    item_objects: Tensor
    shown_at: Tensor
    shown: Tensor
    scenes: tuple[Scene, ...]


class RowBuilder:
    """Conversations to rows, with the processor's own prompt builder.

    image_tokens: whether the opening holds them. Without them, rows are shorter and all positions stay the same. That
    is enough to learn to read region vectors, and faster.
    """

    def __init__(self, processor: GPT4RoIProcessor, *, image_tokens: bool = True) -> None:
        self.processor = processor
        self.image_tokens = image_tokens
        whole = processor.prompt([("user", "?")])
        self.opening_length = whole.spans["system"][-1] + 1
        self.image_start = whole.spans["image"][0]
        kept = [k for k in range(self.opening_length) if image_tokens or k not in set(whole.spans["image"])]
        self.positions = torch.tensor(kept)
        self.prefix = [whole.input_ids[k] for k in kept]
        pieces = processor.tokenizer.get_vocab()
        self.line_ends = {number for piece, number in pieces.items() if "\n" in piece or piece == "<0x0A>"}
        self.marker = Marker(processor.tokenizer)
        self.segment = lru_cache(CACHED_SEGMENTS)(self._segment)

    def _segment(self, turns: Turns) -> Segment:
        processor = self.processor
        # The image's tokens are the same in every prompt: without them, building one takes half the time.
        prompt = build_prompt(turns, processor.tokenizer, 0, closing=processor.closing, system=processor.system)
        start = prompt.spans["system"][-1] + 1
        if self.opening_length != start + processor.num_image_tokens:
            raise ValueError(f"the opening of a prompt depends on its question, {turns[0][1]!r}; rows cannot share it")
        input_ids, labels = prompt.input_ids[start:], prompt.labels[start:]
        answer = next(k for k, label in enumerate(labels) if label != IGNORE)
        bounds: list[int] = []
        if turns[1][1] in LETTERS:
            bounds = [k for k in range(answer) if input_ids[k] in self.line_ends][-len(LETTERS) - 1 :]
            if len(bounds) <= len(LETTERS):
                raise ValueError(f"a question with lettered options has one on each line; got {turns[0][1]!r}")
        counted = tuple(
            (place, int(said))
            for turn, (_, said) in enumerate(turns[1::2], start=1)
            if said.isdigit()
            for place in self.marker.counted(input_ids, [k - start for k in prompt.spans[f"question{turn}"]])
        )
        return Segment(
            input_ids,
            labels,
            prompt.regions,
            self.marker.marks(input_ids),
            answer,
            tuple(bounds),
            counted,
            tuple(self.marker.items(input_ids, labels)),
        )

    def rows(self, conversations: Sequence[Sequence[Conversation]], scenes: Sequence[Scene]) -> Rows:
        """Make one row per scene. conversations: the same number for each."""
        segments = [[self.segment(conversation.turns) for conversation in of_image] for of_image in conversations]
        slot = max(len(segment.input_ids) for row in segments for segment in row)
        prefix, pad = len(self.prefix), self.processor.tokenizer.pad_token_id
        input_ids = torch.full((len(segments), prefix + len(segments[0]) * slot), pad)
        labels = torch.full_like(input_ids, IGNORE)
        input_ids[:, :prefix] = torch.tensor(self.prefix)
        regions: list[int] = []
        name_at, name_objects, pair_at, pair_objects = [], [], [], []
        claim_at, so_far_at, option_at, option_right = [], [], [], []
        count_at, counts, fits_at, fits, item_at, item_objects = [], [], [], [], [], []
        shown_at, shown = [], []
        claim_true: list[bool] = []
        so_far_true: list[bool] = []
        size, grid = scenes[0].image.shape[1], round(self.processor.num_image_tokens**0.5)
        attributes, placed, centres = symbols_of([scene.objects for scene in scenes], size, grid)
        values = attributes.tolist()
        others = [[box for conversation in of_image for box in conversation.boxes] for of_image in conversations]
        first, other = 0, len(attributes)
        for row, (scene, of_image, row_segments) in enumerate(zip(scenes, conversations, segments, strict=True)):
            in_order = [first + k for k in left_to_right(scene.objects)]
            for k, (conversation, segment) in enumerate(zip(of_image, row_segments, strict=True)):
                start = prefix + k * slot
                input_ids[row, start : start + len(segment.input_ids)] = torch.tensor(segment.input_ids)
                labels[row, start : start + len(segment.labels)] = torch.tensor(segment.labels)
                for place, thing in _named(segment.items, in_order, values, lists=conversation.ends_with_a_list):
                    item_at.append((row, start + place))
                    item_objects.append(thing)
                option_at += [(row, start + end) for end in segment.option_bounds[1:]]
                if segment.option_bounds:
                    option_right += [conversation.turns[1][1] == letter for letter in LETTERS]
                if conversation.last.kind == NOTHING:
                    what, *words = conversation.last.target.split()
                    shown_at += [(row, start + name.place) for name in segment.marks.names]
                    shown += [SHOWN.get(what, SHOWN[EMPTY])] * len(segment.marks.names)
                    if what == PART:
                        thing = _of_phrase(scene, " ".join(words))
                        name_at += [(row, start + name.place) for name in segment.marks.names]
                        name_objects += [first + thing] * len(segment.marks.names)
                elif not conversation.boxes:
                    shown_at += [(row, start + name.place) for name in segment.marks.names]
                    shown += [SHOWN[WHOLE]] * len(segment.marks.names)
                if conversation.boxes:  # such a box has no object that the heads could read
                    regions += [other + number - 1 for number in segment.regions]
                    other += len(conversation.boxes)
                    continue
                behind = {number: first + index for number, index in enumerate(conversation.objects, start=1)}
                regions += [behind[number] for number in segment.regions]
                points = conversation.last.kind == PROTOCOL_POINTING
                if points:  # the object that is asked for is read where the line before the options ends
                    item_at.append((row, start + segment.option_bounds[0]))
                    item_objects.append(behind[LETTERS.index(conversation.turns[1][1]) + 1])
                    # The regions are named once before the question, or its words would not be marked.
                    wanted = {
                        (word.attribute, word.value)
                        for word in segment.marks.values
                        if word.place < segment.option_bounds[0]
                    }
                    for number, end in enumerate(segment.option_bounds[1:] if wanted else (), start=1):
                        fits_at.append((row, start + end))
                        fits.append(all(values[behind[number]][attribute] == value for attribute, value in wanted))
                name_at += [(row, start + name.place) for name in segment.marks.names]
                name_objects += [behind[name.number] for name in segment.marks.names]
                pair_at += [(row, start + pair.place) for pair in segment.marks.pairs]
                pair_objects += [(behind[pair.first], behind[pair.second]) for pair in segment.marks.pairs]
                verdicts = {
                    word.place: all(values[behind[number]][word.attribute] == word.value for number in word.numbers)
                    for word in segment.marks.values
                    if word.place < segment.asked and not points  # there, values are asked for, and said of no region
                }
                claim_at += [(row, start + place) for place in verdicts]
                claim_true += verdicts.values()
                count_at += [(row, start + place) for place, _ in segment.counted]
                counts += [number for _, number in segment.counted]
                for before, end in pairwise(segment.option_bounds):
                    own = [place for place in verdicts if before < place < end]
                    so_far_at += [(row, start + place) for place in own]
                    so_far_true += accumulate((verdicts[place] for place in own), and_)
            first += len(scene.objects)
        slots = torch.arange(self.opening_length, self.opening_length + slot).repeat(len(segments[0]))
        position_ids = torch.cat([self.positions, slots])[None]

        def numbers(found: Sequence[object], *shape: int) -> Tensor:
            return torch.tensor(found, dtype=torch.long).reshape(-1, *shape)

        return Rows(
            input_ids=input_ids,
            labels=labels,
            position_ids=position_ids,
            prefix_length=prefix,
            slot_length=slot,
            attributes=attributes,
            places=placed,
            regions=numbers(regions),
            other_boxes=tuple(np.array(boxes, np.float32).reshape(-1, 4) / size for boxes in others),
            image_start=self.image_start,
            tallies=tally(centres)[:, : None if self.image_tokens else 0],
            name_at=numbers(name_at, 2),
            name_objects=numbers(name_objects),
            pair_at=numbers(pair_at, 2),
            pair_objects=numbers(pair_objects, 2),
            claim_at=numbers(claim_at, 2),
            claim_true=torch.tensor(claim_true, dtype=torch.bool),
            so_far_at=numbers(so_far_at, 2),
            so_far_true=torch.tensor(so_far_true, dtype=torch.bool),
            option_at=numbers(option_at, 2),
            option_right=torch.tensor(option_right, dtype=torch.bool),
            count_at=numbers(count_at, 2),
            counts=numbers(counts),
            fits_at=numbers(fits_at, 2),
            fits=torch.tensor(fits, dtype=torch.bool),
            item_at=numbers(item_at, 2),
            item_objects=numbers(item_objects),
            shown_at=numbers(shown_at, 2),
            shown=numbers(shown),
            scenes=tuple(scenes),
        )


def _of_phrase(scene: Scene, phrase: str) -> int:
    """Index of the first object with this phrase."""
    return next(k for k, thing in enumerate(scene.objects) if thing.phrase == phrase)


def _named(
    items: Sequence[Item], in_order: Sequence[int], values: Sequence[Sequence[int]], *, lists: bool
) -> Iterator[tuple[int, int]]:
    """Of each item whose object is clear, its place and the object's index.

    in_order: indices of the scene's objects, from left to right. values: attributes of all objects. lists: whether
    equal names mean one object after the other, as in a list of all.
    """
    said: Counter[tuple[int, int, int]] = Counter()
    for item in items:
        like = [k for k in in_order if (values[k][COLOUR], values[k][CATEGORY]) == (item.colour, item.category)]
        key = (item.turn, item.colour, item.category)
        if len(like) == 1 or (lists and said[key] < len(like)):
            yield item.place, like[min(said[key], len(like) - 1)]
        said[key] += 1
