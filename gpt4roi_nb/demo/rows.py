"""Many conversations about one image in one row: they share the image's tokens and do not see each other.

Exactly what one conversation a row would give (a test compares the losses) at a fraction of the cost, since the opening
of the prompt, with all image tokens, is computed once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from gpt4roi_nb.data.instructions import LETTERS
from gpt4roi_nb.data.question_kinds import STUFF, VALUES, plural
from gpt4roi_nb.data.scenes import SceneObject
from gpt4roi_nb.demo.curriculum import Conversation
from gpt4roi_nb.demo.symbols import attribute_indices
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.prompt import IGNORE, Turns, build_prompt

SHARED_PREFIX = "shared_prefix"  # name of the attention below
CACHED_SEGMENTS = 200_000


class Claim(NamedTuple):
    """The word at `place` names a value: `number` is the region named last before it, `attribute` and `value` are
    indices into `VALUES`."""

    place: int
    number: int
    attribute: int
    value: int


class Mention(NamedTuple):
    """The token at `place` names region `number` again, whose `<bbox>` stands earlier."""

    place: int
    number: int


@dataclass(frozen=True)
class Segment:
    """A conversation after the opening: ids, labels, and the number of the region behind each `<bbox>`.

    option_ends: of a multiple-choice question, places of the tokens that end the options. claims: the words of the
    first question that name a value after a region was named. mentions: of regions, in all turns, after their first.
    """

    input_ids: list[int]
    labels: list[int]
    regions: tuple[int, ...]
    option_ends: tuple[int, ...]
    claims: tuple[Claim, ...]
    mentions: tuple[Mention, ...]


@dataclass(frozen=True)
class Rows:
    """B images, each with the opening of P tokens and then Q slots of L tokens, one conversation a slot.

    input_ids, labels: (B, P + Q·L) int64. position_ids: (1, P + Q·L); every slot goes on where the opening ends.
    regions: index of each `<bbox>`, in order, among all objects of all images.
    option_ends: (options, 2) int64, row and column of the token that ends each option of each multiple-choice question;
    option_right: (options,) bool, whether it is the right one.
    claim_places, claim_true: the same of each claim, and whether its region has the value.
    mention_places, mention_values: the same of each mention, and (mentions, 4) int64 attributes of the region.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    prefix_length: int
    slot_length: int
    regions: Tensor
    option_ends: Tensor
    option_right: Tensor
    claim_places: Tensor
    claim_true: Tensor
    mention_places: Tensor
    mention_values: Tensor


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
        kept = [k for k in range(self.opening_length) if image_tokens or k not in set(whole.spans["image"])]
        self.positions = torch.tensor(kept)
        self.prefix = [whole.input_ids[k] for k in kept]
        pieces = processor.tokenizer.get_vocab()
        self.line_ends = {number for piece, number in pieces.items() if piece.startswith(".\n")}
        self.pieces = {number: piece.replace("▁", " ") for piece, number in pieces.items()}
        self.values = value_pieces(pieces)
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
        ends: list[int] = []
        if turns[1][1] in LETTERS:
            ends = [k for k in range(answer) if input_ids[k] in self.line_ends][-len(LETTERS) :]
        claims, mentions = self._named(input_ids)
        asked = tuple(claim for claim in claims if claim.place < answer)
        return Segment(input_ids, labels, prompt.regions, tuple(ends), asked, mentions)

    def _named(self, input_ids: Sequence[int]) -> tuple[tuple[Claim, ...], tuple[Mention, ...]]:
        """Where values and regions are named."""
        text, number = "", 0
        claims, mentions = [], []
        seen: set[int] = set()
        for place, token in enumerate(input_ids):
            text = (text + self.pieces[token])[-len("region 1") :]
            mention = re.search(r"region ?(\d)\Z", text)  # `$` would also match before a line's end
            if mention:
                number = int(mention.group(1))
                if number in seen:
                    mentions.append(Mention(place, number))
                seen.add(number)
            elif number and token in self.values:
                claims.append(Claim(place, number, *self.values[token]))
        return tuple(claims), tuple(mentions)

    def rows(self, conversations: Sequence[Sequence[Conversation]], things: Sequence[Sequence[SceneObject]]) -> Rows:
        """One row an image. conversations: the same number for each; things: the objects of each image."""
        segments = [[self.segment(talk.turns) for talk in talks] for talks in conversations]
        slot = max(len(segment.input_ids) for row in segments for segment in row)
        prefix, pad = len(self.prefix), self.processor.tokenizer.pad_token_id
        input_ids = torch.full((len(segments), prefix + len(segments[0]) * slot), pad)
        labels = torch.full_like(input_ids, IGNORE)
        input_ids[:, :prefix] = torch.tensor(self.prefix)
        regions, first = [], 0
        option_ends, option_right = [], []
        claim_places, claim_true = [], []
        mention_places, mention_values = [], []
        for row, (talks, row_segments) in enumerate(zip(conversations, segments, strict=True)):
            for k, (talk, segment) in enumerate(zip(talks, row_segments, strict=True)):
                start = prefix + k * slot
                input_ids[row, start : start + len(segment.input_ids)] = torch.tensor(segment.input_ids)
                labels[row, start : start + len(segment.labels)] = torch.tensor(segment.labels)
                option_ends += [(row, start + place) for place in segment.option_ends]
                option_right += [talk.turns[1][1] == letter for letter in LETTERS[: len(segment.option_ends)]]
                values = [attribute_indices(things[row][index]) for index in talk.objects]
                for claim in segment.claims:
                    claim_places.append((row, start + claim.place))
                    claim_true.append(values[claim.number - 1][claim.attribute] == claim.value)
                for mention in segment.mentions:
                    mention_places.append((row, start + mention.place))
                    mention_values.append(values[mention.number - 1])
                regions += [first + talk.objects[number - 1] for number in segment.regions]
            first += len(things[row])
        slots = torch.arange(self.opening_length, self.opening_length + slot).repeat(len(segments[0]))
        position_ids = torch.cat([self.positions, slots])[None]
        return Rows(
            input_ids,
            labels,
            position_ids,
            prefix,
            slot,
            torch.tensor(regions, dtype=torch.long),
            torch.tensor(option_ends, dtype=torch.long).reshape(-1, 2),
            torch.tensor(option_right, dtype=torch.bool),
            torch.tensor(claim_places, dtype=torch.long).reshape(-1, 2),
            torch.tensor(claim_true, dtype=torch.bool),
            torch.tensor(mention_places, dtype=torch.long).reshape(-1, 2),
            torch.tensor(mention_values, dtype=torch.long).reshape(-1, len(VALUES)),
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
