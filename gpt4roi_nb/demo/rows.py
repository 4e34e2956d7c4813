"""Many conversations about one image in one row: they share the image's tokens and do not see each other.

Exactly what one conversation a row would give (a test compares the losses) at a fraction of the cost, since the opening
of the prompt, with all image tokens, is computed once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from operator import and_
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from gpt4roi_nb.data.instructions import LETTERS
from gpt4roi_nb.data.question_kinds import STUFF, VALUES, plural
from gpt4roi_nb.data.scenes import Scene
from gpt4roi_nb.demo.curriculum import Conversation
from gpt4roi_nb.demo.symbols import attribute_indices, centre_attributes, places, tally
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.prompt import IGNORE, Turns, build_prompt, token_id_of
from gpt4roi_nb.tokenizer import REGION_TOKEN

SHARED_PREFIX = "shared_prefix"  # name of the attention below
CACHED_SEGMENTS = 200_000


class Name(NamedTuple):
    """The token at `place` names region `number`: its `<bbox>`, or its number where the `<bbox>` stands earlier."""

    place: int
    number: int


class Pair(NamedTuple):
    """The token at `place` names region `second` after region `first` was named."""

    place: int
    first: int
    second: int


class Claim(NamedTuple):
    """The word at `place` names a value: `number` is the region named last before it, `attribute` and `value` are
    indices into `VALUES`."""

    place: int
    number: int
    attribute: int
    value: int


@dataclass(frozen=True)
class Segment:
    """A conversation after the opening: ids, labels, and the number of the region behind each `<bbox>`.

    names, pairs: of all turns. claims: of the first question. option_bounds: of a multiple-choice question, places of
    the tokens that end the options, after the one that ends the line before them.
    """

    input_ids: list[int]
    labels: list[int]
    regions: tuple[int, ...]
    names: tuple[Name, ...]
    pairs: tuple[Pair, ...]
    claims: tuple[Claim, ...]
    option_bounds: tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """B images, each with the opening of P tokens and then Q slots of L tokens, one conversation a slot.

    input_ids, labels: (B, P + Q·L) int64. position_ids: (1, P + Q·L); every slot goes on where the opening ends.
    attributes: (objects of all images, 4) int64; places: (objects of all images, 5), as `symbols.places` has them.
    regions: index of each `<bbox>`, in order, among all objects of all images.

    tallies: (B, grid², 20) float32, as `symbols.tally` has them, or (B, 0, 20) without image tokens; the first of these
    is token `image_start`.

    What else can be read where, each with (n, 2) int64 row and column of n tokens: name_objects (n,) is the object
    of each `Name`; pair_objects (n, 2) are those of each `Pair`; claim_true (n,) bool, whether each `Claim` is;
    so_far_true (n,) bool, at the claims of an option, whether all its claims are true up to there; option_right
    (n,) bool, whether the option that ends there is the right one.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    prefix_length: int
    slot_length: int
    attributes: Tensor
    places: Tensor
    regions: Tensor
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


class RowBuilder:
    """Conversations to rows, with the processor's own prompt builder.

    image_tokens: whether the opening holds them. Without, rows are shorter and every position is as before: enough, and
    quicker, to learn to read region vectors.
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
        self.line_ends = {number for piece, number in pieces.items() if piece.startswith(".\n")}
        self.pieces = {number: piece.replace("▁", " ") for piece, number in pieces.items()}
        self.values = value_pieces(pieces)
        self.region_token = token_id_of(REGION_TOKEN, processor.tokenizer)
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
        names, claims = self._named(input_ids)
        pairs = [Pair(b.place, a.number, b.number) for a, b in pairwise(names) if a.number != b.number]
        asked = tuple(claim for claim in claims if claim.place < answer)
        return Segment(input_ids, labels, prompt.regions, names, tuple(pairs), asked, tuple(bounds))

    def _named(self, input_ids: Sequence[int]) -> tuple[tuple[Name, ...], tuple[Claim, ...]]:
        """Where regions and values are named."""
        text, number = "", 0
        names, claims = [], []
        seen: set[int] = set()
        for place, token in enumerate(input_ids):
            text = (text + self.pieces[token])[-len("region 1") :]
            mention = re.search(r"region ?(\d)\Z", text)  # `$` would also match before a line's end
            if mention:
                number = int(mention.group(1))
            if token == self.region_token or (mention and number in seen):
                seen.add(number)
                names.append(Name(place, number))
            elif number and token in self.values:
                claims.append(Claim(place, number, *self.values[token]))
        return tuple(names), tuple(claims)

    def _centres(self, scene: Scene) -> np.ndarray:
        grid = round(self.processor.num_image_tokens**0.5) if self.image_tokens else 0
        return centre_attributes(scene.objects if grid else (), scene.image.shape[1], grid)

    def rows(self, conversations: Sequence[Sequence[Conversation]], scenes: Sequence[Scene]) -> Rows:
        """One row a scene. conversations: the same number for each."""
        segments = [[self.segment(talk.turns) for talk in talks] for talks in conversations]
        slot = max(len(segment.input_ids) for row in segments for segment in row)
        prefix, pad = len(self.prefix), self.processor.tokenizer.pad_token_id
        input_ids = torch.full((len(segments), prefix + len(segments[0]) * slot), pad)
        labels = torch.full_like(input_ids, IGNORE)
        input_ids[:, :prefix] = torch.tensor(self.prefix)
        regions: list[int] = []
        name_at, name_objects, pair_at, pair_objects = [], [], [], []
        claim_at, so_far_at, option_at, option_right = [], [], [], []
        claim_true: list[bool] = []
        so_far_true: list[bool] = []
        attributes, first = [], 0
        for row, (scene, talks, row_segments) in enumerate(zip(scenes, conversations, segments, strict=True)):
            attributes += [attribute_indices(thing) for thing in scene.objects]
            for k, (talk, segment) in enumerate(zip(talks, row_segments, strict=True)):
                start = prefix + k * slot
                input_ids[row, start : start + len(segment.input_ids)] = torch.tensor(segment.input_ids)
                labels[row, start : start + len(segment.labels)] = torch.tensor(segment.labels)
                # index of region `number` among all objects is behind[number]
                behind = [-1, *(first + index for index in talk.objects)]
                regions += [behind[number] for number in segment.regions]
                for name in segment.names:
                    name_at.append((row, start + name.place))
                    name_objects.append(behind[name.number])
                for pair in segment.pairs:
                    pair_at.append((row, start + pair.place))
                    pair_objects.append((behind[pair.first], behind[pair.second]))
                verdicts = {
                    claim.place: attributes[behind[claim.number]][claim.attribute] == claim.value
                    for claim in segment.claims
                }
                claim_at += [(row, start + place) for place in verdicts]
                claim_true += verdicts.values()
                for (before, end), letter in zip(pairwise(segment.option_bounds), LETTERS, strict=False):
                    own = [place for place in verdicts if before < place < end]
                    so_far_at += [(row, start + place) for place in own]
                    so_far_true += accumulate((verdicts[place] for place in own), and_)
                    option_at.append((row, start + end))
                    option_right.append(talk.turns[1][1] == letter)
            first += len(scene.objects)
        slots = torch.arange(self.opening_length, self.opening_length + slot).repeat(len(segments[0]))
        position_ids = torch.cat([self.positions, slots])[None]

        def numbers(found: Sequence[object], *shape: int) -> Tensor:
            return torch.tensor(found, dtype=torch.long).reshape(-1, *shape)

        placed = [places(scene.objects, scene.image.shape[1]) for scene in scenes]
        return Rows(
            input_ids,
            labels,
            position_ids,
            prefix,
            slot,
            torch.tensor(attributes),
            torch.from_numpy(np.concatenate(placed)),
            numbers(regions),
            self.image_start,
            tally(torch.from_numpy(np.stack([self._centres(scene) for scene in scenes]))),
            numbers(name_at, 2),
            numbers(name_objects),
            numbers(pair_at, 2),
            numbers(pair_objects, 2),
            numbers(claim_at, 2),
            torch.tensor(claim_true, dtype=torch.bool),
            numbers(so_far_at, 2),
            torch.tensor(so_far_true, dtype=torch.bool),
            numbers(option_at, 2),
            torch.tensor(option_right, dtype=torch.bool),
        )


def value_pieces(vocabulary: Mapping[str, int]) -> dict[int, tuple[int, int]]:
    """Token ids of the words that name a value, to the indices of attribute and value in `VALUES`."""
    found = {}
    for attribute, values in enumerate(VALUES.values()):
        for index, value in enumerate(values):
            words = {value, plural(value), STUFF.get(value, value)}
            found.update({vocabulary[f"▁{word}"]: (attribute, index) for word in words if f"▁{word}" in vocabulary})
    return found


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    prefix_length: int,
    slot_length: int,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention of rows as `Rows` describes them: a slot sees the opening and itself. query, …: (B, H, T, D)."""
    batch, heads, _, width = query.shape
    own_causal = torch.ones(slot_length, slot_length, dtype=torch.bool).tril()
    prefix_causal = torch.ones(prefix_length, prefix_length, dtype=torch.bool).tril()

    def parts(states: Tensor) -> tuple[Tensor, Tensor]:
        slots = states[:, :, prefix_length:].reshape(batch, heads, -1, slot_length, width)
        return states[:, :, :prefix_length], slots

    (prefix_q, slot_q), (prefix_k, slot_k), (prefix_v, slot_v) = parts(query * scaling), parts(key), parts(value)
    prefix_scores = (prefix_q @ prefix_k.transpose(-1, -2)).masked_fill(~prefix_causal, float("-inf"))
    prefix_out = prefix_scores.softmax(-1).to(value.dtype) @ prefix_v

    flat_q = slot_q.reshape(batch, heads, -1, width)
    to_prefix = (flat_q @ prefix_k.transpose(-1, -2)).view(*slot_q.shape[:4], prefix_length)
    to_own = (slot_q @ slot_k.transpose(-1, -2)).masked_fill(~own_causal, float("-inf"))
    weights = torch.cat([to_prefix, to_own], dim=-1).softmax(-1).to(value.dtype)
    from_prefix = weights[..., :prefix_length].reshape(batch, heads, -1, prefix_length) @ prefix_v
    from_own = weights[..., prefix_length:] @ slot_v
    slot_out = from_prefix + from_own.reshape(batch, heads, -1, width)
    return torch.cat([prefix_out, slot_out], dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
