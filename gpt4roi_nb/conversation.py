"""What a conversation consists of: regions, answers, turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gpt4roi_nb.capture import Attention

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Region:
    """A numbered box. box: pixel xyxy in the session's image; number: 1-based."""

    number: int
    box: Box


@dataclass(frozen=True)
class Answer:
    """What the model said.

    text: the answer; `str(answer)` is the same.
    tokens, token_ids, logprobs: of the answer's tokens; the tokens together are the text. Log-probabilities (natural)
        are the model's own, whatever the temperature.
    prompt_tokens: tokens of the prompt, image tokens included.
    reused_tokens: those of them whose keys and values came from the cache.
    seconds: from the question to the last token.
    stopped: whether a Stop or an interrupt ended it; False where it ended by itself or reached `max_new_tokens`.
    """

    text: str
    tokens: list[str] = field(repr=False)
    token_ids: list[int] = field(repr=False)
    logprobs: list[float] = field(repr=False)
    prompt_tokens: int
    reused_tokens: int
    seconds: float
    stopped: bool = False
    record_attention: Callable[[], Attention] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return self.text

    def attention(self) -> Attention:
        """Attention of each answer token to the prompt, from one more pass; see `capture.Attention`.

        Raises:
            RuntimeError: for an answer that was loaded from a file, or when the model has been unloaded.
        """
        if self.record_attention is None:
            raise RuntimeError("this answer was loaded from a file; ask again to look at its attention")
        return self.record_attention()


@dataclass(frozen=True)
class Turn:
    """A question, its answer, and the numbers of the regions that it introduced."""

    question: str
    answer: Answer
    regions: tuple[int, ...]
