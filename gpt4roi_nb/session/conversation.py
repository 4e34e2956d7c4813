"""What a conversation consists of: regions, answers, turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.capture.ablation import Ablation, How, ablate, occlusion
from gpt4roi_nb.capture.attention import Attention, attention_of, wanted_and_size
from gpt4roi_nb.capture.recording import LIMIT
from gpt4roi_nb.capture.replay import Replay
from gpt4roi_nb.inference.detokenizer import StreamingDetokenizer
from gpt4roi_nb.inference.encoded_image import EncodedImage
from gpt4roi_nb.prompt import Prompt


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
    replay: Replay | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        row: StreamingDetokenizer,
        encoded: EncodedImage,
        prompt: Prompt,
        boxes: Sequence[Box],
        *,
        reused_tokens: int,
        seconds: float,
    ) -> Answer:
        """What was written, as an answer that can be looked into.

        boxes: pixel xyxy of the prompt's `<bbox>` tokens, in order.
        """
        first, last = row.kept
        ids, tokens = row.ids[:last], row.tokens
        return cls(
            text=row.text,
            tokens=tokens,
            token_ids=ids[first:],
            logprobs=row.logprobs[first:last],
            prompt_tokens=len(prompt.input_ids),
            reused_tokens=reused_tokens,
            seconds=seconds,
            stopped=row.stopped,
            replay=Replay(encoded, prompt, tuple(boxes), ids, first, tokens),
        )

    def __str__(self) -> str:
        return self.text

    def attention(
        self,
        layers: Sequence[int] | int | None = None,
        heads: Sequence[int] | int | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        limit: float = LIMIT,
    ) -> Attention:
        """Attention of each answer token to the prompt, from one more pass; see `capture.Attention`.

        The answer itself was written without recording anything. The pass is teacher-forced and in eager mode; no more
        than one layer's weights are held beside those that are kept.

        Args:
            layers, heads: the model's numbers of those to keep; None keeps all.
            dtype: torch.float32, or torch.float16 for half the memory.
            limit: bytes that the recording may take; `attention_size` says beforehand what it would.

        Raises:
            MemoryError: where it would take more, or more than is free; the message says how to narrow it.
            RuntimeError: for an answer that was loaded from a file, or when the model has been unloaded.
        """
        replay = self.live("its attention")
        with replay.loaded.hold_weights():
            return attention_of(replay, layers, heads, dtype, limit)

    def attention_size(
        self,
        layers: Sequence[int] | int | None = None,
        heads: Sequence[int] | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> int:
        """Bytes that `attention` would take with these arguments: what is kept, and one layer that passes by."""
        return wanted_and_size(self.live("its attention"), layers, heads, dtype)[2]

    def ablate(
        self,
        region: int = 1,
        how: How = "remove",
        *,
        baseline: Literal["mean", "zero"] = "mean",
        other: int | None = None,
        box: Box | None = None,
        generate: bool = True,
        max_new_tokens: int | None = None,
    ) -> Ablation:
        """What becomes of the answer when something about a region is changed: the check that a map has to pass.

        The words of the prompt stay; the region's token (and for "blur" the picture) is made anew:

        - "remove": the token gives way to `baseline`. The picture's own tokens still show the thing.
        - "blur": the picture is blurred inside the box, so that only its mean colours stay, and encoded again: image
          tokens and the tokens of all regions change.
        - "swap": the token is exchanged with that of region `other` (None: the next one in the prompt); or, with
          `box`, replaced by that box's.
        - "move": the token is made for a box of the same size elsewhere: `box`, or the picture's corner that is
          farthest away.
        - "position_only": what the pooled features say is replaced by `baseline`; the position embedding stays.
        - "feature_only": the position embedding is replaced by `baseline`; what the pooled features say stays.

        Args:
            region: its number.
            baseline: what stands for "nothing here". "mean" is the mean over a regular set of boxes of this picture
                that do not touch the region's: as large and as usual as any, so that the model is not shown what it
                never saw. "zero" is the zero vector.
            generate: whether to write the new answer.
            max_new_tokens: of the new answer; None allows 16 more than the old one had.

        Raises:
            ValueError: for a region that the prompt does not have, or a way that needs more than was given.
            RuntimeError: for an answer that was loaded from a file, or when the model has been unloaded.
        """
        replay = self.live("ablations")
        with replay.loaded.hold_weights():
            return ablate(
                replay,
                region,
                how,
                baseline=baseline,
                other=other,
                box=box,
                generate=generate,
                max_new_tokens=max_new_tokens,
            )

    def occlusion(self, patch: int = 2, token: int | Literal["each"] | None = None, *, batch_size: int = 16) -> Tensor:
        """By how much the answer's log-probability drops when a part of the picture is covered: (g, g) float32.

        The picture is cut into g × g squares of `patch` × `patch` places (those at the right and lower edge may be
        smaller). Each in turn is painted in the picture's mean colour, the picture encoded again with all regions, and
        the given answer scored; positive means that the answer needed it. One encoding and one pass a square.

        token: None takes the whole answer (the sum over its tokens), an index one token, "each" all: (A, g, g).
        batch_size: images at a time; fewer, with a warning, where memory is short.

        Raises:
            MemoryError: not even one image at a time fits; the message says what helps.
        """
        replay = self.live("its occlusion map")
        with replay.loaded.hold_weights():
            return occlusion(replay, patch, token, batch_size)

    def live(self, what: str) -> Replay:
        """What the answer came from, to run it again; `what` is what for.

        Raises:
            RuntimeError: for an answer that was loaded from a file, or when the model has been unloaded.
        """
        if self.replay is None:
            raise RuntimeError(f"this answer was loaded from a file; ask again to look at {what}")
        self.replay.loaded.check_loaded()
        return self.replay


@dataclass(frozen=True)
class Turn:
    """A question, its answer, and the numbers of the regions that it introduced."""

    question: str
    answer: Answer
    regions: tuple[int, ...]
