"""The parts of a conversation: regions, answers, turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.capture.ablation import ABLATIONS, Ablation, How
from gpt4roi_nb.capture.answer_replay import AnswerReplay, GPT4RoIReplay
from gpt4roi_nb.capture.attention import Attention
from gpt4roi_nb.capture.recording import LIMIT
from gpt4roi_nb.inference.detokenizer import StreamingDetokenizer
from gpt4roi_nb.inference.encoded_image import EncodedImage
from gpt4roi_nb.prompt import Prompt

NOT_KEPT = "an answer from a batch keeps nothing of its image"


@dataclass(frozen=True)
class Region:
    """A numbered box.

    Attributes:
        number: from 1.
        box: pixel xyxy in the session's image.

    Examples:
        >>> from gpt4roi_nb import Region
        >>> Region(1, (40.0, 30.0, 210.0, 180.0))
        Region(number=1, box=(40.0, 30.0, 210.0, 180.0))
    """

    number: int
    box: Box


@dataclass(frozen=True)
class Answer:
    """What the model answered.

    Attributes:
        text: the answer; `str(answer)` is the same.
        tokens, token_ids, logprobs: text, id and natural log-probability of each of the answer's tokens. The tokens
            joined are the text. Log-probabilities are the model's own, whatever the temperature.
        prompt_tokens: number of tokens in the prompt, image tokens included.
        reused_tokens: how many of them had their keys and values in the cache.
        seconds: time from the question to the last token.
        stopped: whether a Stop or an interrupt ended it; False if it ended by itself or reached `max_new_tokens`.
        told: the last question as the model read it, if that differs from what was asked; else "".
        cannot: why nothing runs the answer again, if it was not loaded from a file; else "".
        replay: what runs it again; None if nothing does.

    Examples:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> scene = make_scene(5)
        >>> session = GPT4RoI.from_pretrained(device="cpu").session(scene.image)
        >>> answer = session.ask("What colour is <region1>?", [scene.objects[0].box])
        >>> print(answer)
        red
        >>> len(answer.logprobs) == len(answer.tokens), answer.stopped
        (True, False)
    """

    text: str
    tokens: list[str] = field(repr=False)
    token_ids: list[int] = field(repr=False)
    logprobs: list[float] = field(repr=False)
    prompt_tokens: int
    reused_tokens: int
    seconds: float
    stopped: bool = False
    told: str = field(default="", repr=False, compare=False)
    cannot: str = field(default="", repr=False, compare=False)
    replay: AnswerReplay | None = field(default=None, repr=False, compare=False)

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
        """Make an answer, which can be inspected, from what was written.

        Args:
            row: the tokens written.
            encoded: the image.
            prompt: the prompt.
            boxes: pixel xyxy of the prompt's `<bbox>` tokens, in order.
            reused_tokens, seconds: as the attributes.
        """
        first, last = row.kept
        replay = GPT4RoIReplay(encoded, prompt, tuple(boxes), row.ids[:last], first, row.tokens)
        return cls.from_row(row, len(prompt.input_ids), reused_tokens, seconds, replay=replay)

    @classmethod
    def from_row(
        cls,
        row: StreamingDetokenizer,
        prompt_tokens: int,
        reused_tokens: int,
        seconds: float,
        *,
        told: str = "",
        cannot: str = "",
        replay: AnswerReplay | None = None,
    ) -> Answer:
        """Make an answer from what was written.

        Args:
            row: the tokens written.
            prompt_tokens, reused_tokens, seconds, told, cannot, replay: as the attributes.
        """
        first, last = row.kept
        return cls(
            text=row.text,
            tokens=row.tokens,
            token_ids=row.ids[first:last],
            logprobs=row.logprobs[first:last],
            prompt_tokens=prompt_tokens,
            reused_tokens=reused_tokens,
            seconds=seconds,
            stopped=row.stopped,
            told=told,
            cannot=cannot,
            replay=replay,
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
        """Record the attention of each answer token to the prompt, in one more pass; see `capture.Attention`.

        Nothing is recorded while an answer is written. The pass is teacher-forced and in eager mode; it holds at most
        one layer's weights besides those that are kept.

        Args:
            layers, heads: the model's numbers of those to keep; None keeps all.
            dtype: torch.float32, or torch.float16 for half the memory.
            limit: bytes that the recording may take; `attention_size` computes them beforehand.

        Raises:
            MemoryError: if it would take more than that, or more than is free; the message says how to narrow it.
            ValueError, TypeError: for layers or heads that the model does not have or that are no whole numbers, or
                another dtype.
            RuntimeError: for an answer that was loaded from a file, or if the model has been unloaded.
        """
        return self.replayed("its attention").attention(layers, heads, dtype, limit)

    def attention_size(
        self,
        layers: Sequence[int] | int | None = None,
        heads: Sequence[int] | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> int:
        """Compute the bytes that `attention` would take with these arguments: what is kept, and one more layer."""
        return self.replayed("its attention").size(layers, heads, dtype)

    def check_weights(self, attention: Attention) -> None:
        """Raise WeightsChangedError if the model has been trained since this attention of the answer was recorded."""
        attention.check_weights(self.replayed("ablations").loaded, "a test of it")

    @property
    def ablations(self) -> tuple[How, ...]:
        """What `ablate` takes as `how`: "remove" and "blur" for every model, and for a GPT4RoI all six."""
        return ABLATIONS if self.replay is None else self.replay.ablations

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
        """Change something about a region and score the answer again: the check that a map has to pass.

        The words of the prompt stay; the region's token (and for "blur" the image) is changed:

        - "remove": the token is replaced by `baseline`. The image tokens still show the object.
        - "blur": the image is blurred inside the box, so that only its mean colours stay, and encoded again: image
          tokens and the tokens of all regions change.
        - "swap": the token is exchanged with that of region `other` (None: the next one in the prompt); or, with
          `box`, replaced by that box's.
        - "move": the token is computed for a box of the same size elsewhere: `box`, or the farthest corner of the
          image.
        - "position_only": the content of the pooled features is replaced by `baseline`; the position embedding stays.
        - "feature_only": the position embedding is replaced by `baseline`; the content of the pooled features stays.

        A `PromptedModel` has no region tokens, and takes two of these. "remove" takes away how the region was pointed
        at: its coordinates become "the object", its drawing is left out while the words that name it stay, and the
        whole image is shown in the place of its crop. "blur" blurs the image inside the box before anything is drawn
        or cut out.

        Args:
            region: number of the region.
            how: one of the above.
            baseline: what stands for "nothing here". "mean" is the mean over a regular set of boxes of this image
                that do not touch the region's: as large and as usual as any, so that the model is not shown what it
                never saw. "zero" is the zero vector.
            other: for "swap", number of the other region.
            box: for "swap" and "move", pixel xyxy in the session's image.
            generate: whether to write the new answer.
            max_new_tokens: of the new answer; None allows 16 more than the old one had.

        Raises:
            ValueError: for a region that the prompt does not have, an unknown or incomplete way, a bad box, or what
                only a GPT4RoI takes.
            RuntimeError: for an answer that was loaded from a file, or if the model has been unloaded.
        """
        return self.replayed("ablations").ablate(
            region,
            how,
            baseline=baseline,
            other=other,
            box=box,
            generate=generate,
            max_new_tokens=max_new_tokens,
        )

    def occlusion(self, patch: int = 2, token: int | Literal["each"] | None = None, *, batch_size: int = 16) -> Tensor:
        """Measure how much the answer's log-probability drops when a part of the image is covered.

        The image is cut into g × g squares of `patch` × `patch` places (those at the right and lower edge may be
        smaller). Each in turn is painted in the image's mean colour, the image is encoded again with all regions, and
        the same answer is scored. This takes one encoding and one pass per square.

        Places are those of the image's tokens. A `PromptedModel` may have more columns than rows of them, and a part
        of the image is covered before anything is drawn or cut out; where the places of its tokens are not known, or
        are those of a crop, the image has 16 × 16 places.

        Args:
            patch: side of a square, in places of the image grid.
            token: None takes the whole answer (the sum over its tokens), an index takes one token, "each" all.
            batch_size: images at a time; fewer, with a warning, if memory is short.

        Returns:
            (g, g) float32, for "each" (A, g, g); positive where the answer needed the square. For a `PromptedModel`
            (rows, columns) of squares.

        Raises:
            IndexError, TypeError: for a token that the answer does not have, or that is no whole number.
            MemoryError: if a single image does not fit; the message says what helps.
            RuntimeError: for an answer that was loaded from a file, or if the model has been unloaded.
        """
        return self.replayed("its occlusion map").occlusion(patch, token, batch_size)

    def replayed(self, what: str) -> AnswerReplay:
        """Return what the answer was made from, to run it again.

        Args:
            what: the purpose in the message, such as "its attention".

        Raises:
            RuntimeError: for an answer that was loaded from a file or comes from a batch, or if the model has been
                unloaded.
        """
        if self.replay is None and self.cannot:
            raise RuntimeError(f"{self.cannot}, so you cannot look at {what}")
        if self.replay is None:
            raise RuntimeError(f"this answer was loaded from a file; ask again to look at {what}")
        self.replay.loaded.check_loaded()
        return self.replay


def mean_logprob(logprobs: Sequence[float]) -> float | None:
    """Return the mean natural log-probability of an answer's tokens; None for an empty answer."""
    return sum(logprobs) / len(logprobs) if logprobs else None


@dataclass(frozen=True)
class Turn:
    """A question and its answer.

    Attributes:
        question: as it was asked.
        answer: the model's answer.
        regions: numbers of the regions that the question introduced.

    Examples:
        >>> import numpy as np
        >>> from gpt4roi_nb import GPT4RoI
        >>> session = GPT4RoI.from_pretrained(device="cpu").session(np.zeros((120, 160, 3), np.uint8))
        >>> _ = session.ask("What is <region1>?", [(20, 20, 60, 60)], max_new_tokens=3)
        >>> session.history[0].question, session.history[0].regions
        ('What is <region1>?', (1,))
    """

    question: str
    answer: Answer
    regions: tuple[int, ...]
