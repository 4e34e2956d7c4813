"""The questions of a run, window by window, as many at a time as memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpt4roi_nb.batches import BatchSize
from gpt4roi_nb.data.problems import BadRecord
from gpt4roi_nb.evaluate.benchmarks.item import Item
from gpt4roi_nb.evaluate.journal import outcome_id
from gpt4roi_nb.evaluate.options import choice
from gpt4roi_nb.evaluate.pictures import windows
from gpt4roi_nb.evaluate.predict import BatchedPredictor, Outcome, Picture
from gpt4roi_nb.memory import TEXT_TOKENS, prompt_tokens, within_context, work_bytes
from gpt4roi_nb.session.gpt4roi import GPT4RoI

TOKENISED = 16  # of the longest questions, by letters, are made into tokens to learn how long the longest prompt is


def answers(
    predictor: BatchedPredictor,
    batch: BatchSize,
    items: Sequence[Item],
    pictures: dict[str, Picture | BadRecord],
    settled: set[str],
) -> Iterator[list[Outcome]]:
    """What comes of the questions of a window that are not settled, batch by batch.

    Where memory runs out, `batch` is halved, and what was not answered by then is asked in smaller batches, about fewer
    pictures at a time.
    """
    known = set(settled)
    while True:
        try:
            for part in windows(items, batch.size):
                predictor.batch_size = batch.size
                # What an answer shares a batch with does not depend on what was answered before.
                batches = [
                    [item for item in several if item.id not in known] for several in predictor.batches(part.items)
                ]
                for outcomes in predictor.answer([several for several in batches if several], pictures):
                    known.update(map(outcome_id, outcomes))
                    yield outcomes
            return
        except (RuntimeError, MemoryError) as error:
            batch.halve(error)


class QuestionCost:
    """The bytes that so many questions at a time take beside the weights, at most."""

    def __init__(self, gpt4roi: GPT4RoI, items: Sequence[Item], scorer: str, max_new_tokens: int) -> None:
        self._model = gpt4roi.model
        self._images = len({item.image for item in items})
        self._likely = scorer == "likelihood"
        longest = sorted(items, key=lambda item: len(item.question) + sum(map(len, item.options)), reverse=True)
        lengths = [self._length(gpt4roi, item, max_new_tokens) for item in longest[:TOKENISED]]
        # Where none of these can be asked, what a session assumes.
        prompt, written = max(
            (length for length in lengths if length is not None),
            key=sum,
            default=(prompt_tokens(self._model.config), max_new_tokens),
        )
        self._tokens = within_context(self._model.config, prompt, written)
        self._written = written

    def __call__(self, questions: int) -> int:
        """questions: at a time."""
        images = min(questions, self._images)
        # Keys and values of each picture's opening are kept beside those of the questions about it; the likelihoods of
        # options' later tokens are computed with a copy of the questions' own.
        copies = 2 if self._likely and self._written > 1 else 1
        opening = self._model.config.num_image_tokens + TEXT_TOKENS
        return work_bytes(
            self._model,
            rows=questions,
            images=images,
            tokens=self._tokens,
            cached=images * opening + copies * questions * self._tokens,
            logits=self._written if self._likely else 1,
        )

    def _length(self, gpt4roi: GPT4RoI, item: Item, max_new_tokens: int) -> tuple[int, int] | None:
        """Tokens of a prompt and of what is written or scored after it; None where it cannot be asked."""
        try:
            if self._likely:
                offered = choice(gpt4roi.processor, item.question, item.options)
                return len(offered.prompt.input_ids), max(map(len, offered.continuations))
            return len(gpt4roi.processor.prompt([("user", item.question)]).input_ids), max_new_tokens
        except (ValueError, TypeError):
            return None
