"""From token ids to the text of an answer, token by token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpt4roi_nb.prompt import ROLES, TURN_MARK

_UNFINISHED_CHARACTER = "\ufffd"
# A run of bytes is decoded as a whole: one more byte can change how those before it read.
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_ROLE = f"{ROLES['assistant']}:"


class AnswerFormat(Protocol):
    """What decides where an answer ends.

    tokenizer: of the model. end_of_turn: the token that ends an answer in a chat format; None in GPT4RoI's own.
    """

    tokenizer: Any
    end_of_turn: str | None


EosTokenId = int | Sequence[int] | None  # as a generation_config has it


@dataclass
class StreamingDetokenizer:
    """Collect the tokens of one answer and decode them to text.

    The role at the beginning is dropped, and the mark of the next turn ends the answer. With a chat template, the text
    has neither role nor mark: `###` is text then, and a token ends the answer. Each token is decoded with the few
    before it that it may change, so the total work is linear in the length of the answer.

    Attributes:
        processor: of the model.
        eos_token_id: from the model's `generation_config`; these ids and the tokenizer's own end the answer.
        ids, logprobs: of every token pushed, including the role and the stop mark.
        finished: whether the answer ended by itself.
        stopped: whether a Stop or an interrupt ended it before.
    """

    processor: AnswerFormat
    eos_token_id: EosTokenId = None
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False
    stopped: bool = False
    _ends: list[int] = field(default_factory=list)  # length of the decoded text after each token
    _text: str = ""
    _shown: int = 0
    # Tokens from `_open` on may still be decoded differently. Those from `_context` to there are decoded with them,
    # since the first token of a text may lose a space that it has elsewhere.
    _context: int = 0
    _context_length: int = 0
    _open: int = 0
    _settled: int = 0  # length of the text that can no longer change

    def __post_init__(self) -> None:
        tokenizer = self.processor.tokenizer
        own_format = self.processor.end_of_turn is None
        self._role, self._mark = (_ROLE, TURN_MARK) if own_format else ("", "")
        self._special_ids = frozenset(tokenizer.all_special_ids)
        end = None if own_format else tokenizer.convert_tokens_to_ids(self.processor.end_of_turn)
        given = [self.eos_token_id] if isinstance(self.eos_token_id, int) else self.eos_token_id or []
        self._end_ids = frozenset([tokenizer.eos_token_id, end, *given]) - {None}

    def push(self, token_id: int, logprob: float) -> str:
        """Add a token; return the text that can be shown now and was not shown before."""
        self.ids.append(token_id)
        self.logprobs.append(logprob)
        may_change = self._read(token_id)
        mark = self._mark and self._text.find(self._mark, max(0, self._settled - len(self._mark))) >= 0
        self.finished = token_id in self._end_ids or bool(mark)
        if not may_change and len(self._text) > self._settled:
            self._settle()
        text = self.text
        if self.finished:
            ready = len(text)
        elif may_change or self._role.startswith(self._text.strip()):
            ready = self._shown  # half a character, or a part of "Assistant:"
        else:
            ready = len(text.rstrip(self._mark).rstrip())  # the rest may be the beginning of the stop mark
        piece = text[self._shown : ready]
        self._shown = max(self._shown, ready)
        return piece

    def _read(self, token_id: int) -> bool:
        """Append the last token's text; return whether the next token may change the text so far."""
        tokenizer = self.processor.tokenizer
        self._text = self._text[: self._settled] + self._decode(self._context)[self._context_length :]
        # A character of several bytes is shorter than its parts: it belongs to the first of its tokens.
        for index in range(self._open, len(self._ends)):
            self._ends[index] = min(self._ends[index], len(self._text))
        self._ends.append(len(self._text))
        return (
            self._text.endswith(_UNFINISHED_CHARACTER)
            or token_id in self._special_ids  # has no text, so it does not end a run of bytes
            or _BYTE.fullmatch(tokenizer.convert_ids_to_tokens(token_id) or "") is not None
        )

    def _settle(self) -> None:
        """Mark the text so far as final; its last tokens are the context of the next."""
        self._context, self._context_length = self._open, len(self._decode(self._open))
        self._open, self._settled = len(self.ids), len(self._text)

    def _decode(self, start: int) -> str:
        return self.processor.tokenizer.decode(
            self.ids[start:], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def rest(self) -> str:
        """Return the text held back, when no more tokens will follow."""
        if self._text.strip() == self._role.removesuffix(":"):
            self._text = ""  # stopped before the colon of "Assistant:"; this is not an answer
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
        """The answer so far, without role and stop mark."""
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
        """The text of each token in `kept`; joined, they are `text`."""
        start, end = self._bounds
        first, last = self.kept
        return [
            self._text[max(start, self._begin(index)) : min(end, self._ends[index])] for index in range(first, last)
        ]

    def _begin(self, index: int) -> int:
        return self._ends[index - 1] if index else 0
