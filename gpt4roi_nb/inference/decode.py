"""Token by token: from a prompt's embeddings and a cache to the text of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.prompt import ROLES, TURN_MARK
from gpt4roi_nb.tokenizer import ADDED_TOKENS

if TYPE_CHECKING:
    from gpt4roi_nb.session.gpt4roi import GPT4RoI

_UNFINISHED_CHARACTER = "\ufffd"
# Bytes become characters as a whole run: one more byte can change the reading of those before it.
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_ROLE = f"{ROLES['assistant']}:"

LOWEST_TEMPERATURE = 1e-6  # logits divided by less overflow
EosTokenId = int | Sequence[int] | None  # as a generation_config has it


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: greedily at temperature 0, else from the `top_p` nucleus, repeatably by seed."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("temperature", self.temperature), ("top_p", self.top_p)):
            if not isinstance(value, int | float):  # whoever has no type checker
                raise TypeError(f"{name} must be a number, but is {value!r}")
        if self.seed is not None and not (isinstance(self.seed, int) and -(2**63) <= self.seed < 2**63):
            raise ValueError(f"seed must be a whole number of at most 63 bits, or None, but is {self.seed!r}")
        if 0 < self.temperature < LOWEST_TEMPERATURE:
            raise ValueError(
                f"temperature must be 0 (greedy) or {LOWEST_TEMPERATURE} or more, but is {self.temperature}"
            )
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 (greedy) or a positive number, but is {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, but is {self.top_p}")

    def generator(self, device: torch.device) -> torch.Generator | None:
        if self.seed is None:
            return None
        return torch.Generator(device).manual_seed(self.seed)

    def choose(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """logits: (B, V) float32 → (B,) int64."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        probabilities, order = (logits / self.temperature).softmax(dim=-1).sort(dim=-1, descending=True)
        # A token stays while the mass before it is below top_p, so that the likeliest always stays.
        outside = probabilities.cumsum(dim=-1) - probabilities >= self.top_p
        drawn = torch.multinomial(probabilities.masked_fill(outside, 0), 1, generator=generator)
        return order.gather(-1, drawn).squeeze(-1)


@torch.inference_mode()
def decode(
    gpt4roi: GPT4RoI,
    inputs_embeds: Tensor,
    cache: Cache,
    sampling: Sampling,
    generator: torch.Generator | None = None,
    attention_mask: Tensor | None = None,
) -> Iterator[tuple[list[int], list[float]]]:
    """Endlessly, the next token of each row and its log-probability; the caller decides when it is enough.

    Args:
        inputs_embeds: (B, T, D), what comes after that which the cache holds; padded on the left, if at all.
        attention_mask: (B, cached + T) int64, 0 for padding; None where there is none.
        cache: grows by T, then by one token a step. A token that was yielded last is not in it yet.
        generator: `sampling`'s, on the embeddings' device.

    Added tokens, which stand for images and regions, are never written, nor are rows of the embedding that no token
    belongs to (some models have them, to round their number up).
    """
    model, processor = gpt4roi.model, gpt4roi.processor
    rows = model.config.text_config.vocab_size
    added = processor.tokenizer.convert_tokens_to_ids(list(ADDED_TOKENS))
    never = [*(index for index in added if index is not None), *range(len(processor.tokenizer), rows)]
    forbidden = torch.tensor(never, device=inputs_embeds.device)
    while True:
        masked = masked_positions(attention_mask, inputs_embeds.shape[1])
        with gpt4roi.running:
            outputs = model.language_model(
                inputs_embeds=inputs_embeds, past_key_values=cache, use_cache=True, logits_to_keep=1, **masked
            )
        if attention_mask is not None:
            attention_mask = torch.cat([attention_mask, attention_mask.new_ones(len(attention_mask), 1)], dim=1)
        # A model that is spread over devices has its logits on the last of them.
        logits = outputs.logits[:, -1].to(inputs_embeds.device).float()
        log_probabilities = logits.log_softmax(dim=-1)
        tokens = sampling.choose(logits.index_fill(-1, forbidden, float("-inf")), generator)
        yield tokens.tolist(), log_probabilities.gather(-1, tokens[:, None]).squeeze(-1).tolist()
        inputs_embeds = model.get_input_embeddings()(tokens[:, None])


def masked_positions(attention_mask: Tensor | None, length: int) -> dict[str, Tensor]:
    """The mask, (B, T) with 0 for padding, and the positions of its last `length` tokens, as a language model takes."""
    if attention_mask is None:
        return {}
    positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, -length:]
    return {"attention_mask": attention_mask, "position_ids": positions}


@dataclass
class AnswerText:
    """Collects one row's tokens and makes text of them: drops the role in front, ends at the mark of the next turn.

    With a chat template there is neither role nor mark in the text: `###` is text then, and a token ends the answer.

    Attributes:
        eos_token_id: of the model's `generation_config`; those ids end the answer, and the tokenizer's own.
        ids, logprobs: of every token that came, also those of the role and the stop mark.
        finished: whether the answer ended by itself.
    """

    processor: GPT4RoIProcessor
    eos_token_id: EosTokenId = None
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False
    _ends: list[int] = field(default_factory=list)  # length of the decoded text after each token
    _text: str = ""
    _shown: int = 0

    def __post_init__(self) -> None:
        tokenizer = self.processor.tokenizer
        own_format = self.processor.end_of_turn is None
        self._role, self._mark = (_ROLE, TURN_MARK) if own_format else ("", "")
        self._special_ids = frozenset(tokenizer.all_special_ids)
        end = None if own_format else tokenizer.convert_tokens_to_ids(self.processor.end_of_turn)
        given = [self.eos_token_id] if isinstance(self.eos_token_id, int) else self.eos_token_id or []
        self._end_ids = frozenset([tokenizer.eos_token_id, end, *given]) - {None}

    def push(self, token_id: int, logprob: float) -> str:
        """Takes a token; returns the text that can be shown now and was not shown before."""
        self.ids.append(token_id)
        self.logprobs.append(logprob)
        tokenizer = self.processor.tokenizer
        decoded = tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        # A character of several bytes is shorter than its parts were: it belongs to the first of its tokens.
        self._ends = [min(end, len(decoded)) for end in self._ends] + [len(decoded)]
        self.finished = token_id in self._end_ids or (self._mark != "" and self._mark in decoded)
        self._text = decoded
        text = self.text
        if self.finished:
            ready = len(text)
        elif self._may_change(token_id, text) or self._role.startswith(self._text.strip()):
            ready = self._shown  # half a character, or half of "Assistant:"
        else:
            ready = len(text.rstrip(self._mark).rstrip())  # these may yet turn out to be the stop mark
        piece = text[self._shown : ready]
        self._shown = max(self._shown, ready)
        return piece

    def _may_change(self, token_id: int, text: str) -> bool:
        """Whether the text so far may read otherwise with the next token."""
        tokenizer = self.processor.tokenizer
        return (
            text.endswith(_UNFINISHED_CHARACTER)
            or token_id in self._special_ids  # leaves no text, so that it ends no run of bytes
            or _BYTE.fullmatch(tokenizer.convert_ids_to_tokens(token_id) or "") is not None
        )

    def rest(self) -> str:
        """What was held back, when no further token will come."""
        if self._text.strip() == self._role.removesuffix(":"):
            self._text = ""  # stopped before the colon of "Assistant:", which is no answer
        piece = self.text[self._shown :]
        self._shown += len(piece)
        return piece

    @property
    def _bounds(self) -> tuple[int, int]:
        """Where the answer begins and ends in the decoded text."""
        start = len(self._text) - len(self._text.lstrip())
        if self._text.startswith(self._role, start):
            start += len(self._role)
        mark = self._text.find(self._mark) if self._mark else -1
        body = self._text[start : mark if mark >= 0 else len(self._text)]
        start += len(body) - len(body.lstrip())
        return start, start + len(body.strip())

    @property
    def text(self) -> str:
        start, end = self._bounds
        return self._text[start:end]

    @property
    def kept(self) -> tuple[int, int]:
        """Indices [first, last) of the tokens that make up `text`."""
        start, end = self._bounds
        kept = [index for index, stop in enumerate(self._ends) if stop > start and self._begin(index) < end]
        return (kept[0], kept[-1] + 1) if kept else (0, 0)

    @property
    def tokens(self) -> list[str]:
        """The text of each token in `kept`; together they are `text`."""
        start, end = self._bounds
        first, last = self.kept
        return [
            self._text[max(start, self._begin(index)) : min(end, self._ends[index])] for index in range(first, last)
        ]

    def _begin(self, index: int) -> int:
        return self._ends[index - 1] if index else 0
