"""Ask the questions of a run, window by window, in batches that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpt4roi_nb.batches import BatchSize
from gpt4roi_nb.data.problems import BadRecord
from gpt4roi_nb.evaluate.benchmarks.item import Item
from gpt4roi_nb.evaluate.journal import outcome_id
from gpt4roi_nb.evaluate.predict import LoadedImage, Outcome, Predictor
from gpt4roi_nb.evaluate.read_ahead import windows
from gpt4roi_nb.memory import TEXT_TOKENS, prompt_tokens, within_context, work_bytes
from gpt4roi_nb.session.gpt4roi import GPT4RoI
from gpt4roi_nb.session.options import choice

TOKENISED = 16  # the questions with the most characters are tokenised to find the longest prompt


def batched_outcomes(
    predictor: Predictor,
    batch: BatchSize,
    items: Sequence[Item],
    images: dict[str, LoadedImage | BadRecord],
    settled: set[str],
) -> Iterator[list[Outcome]]:
    """Answer the questions of a window that are not settled, and yield the outcomes batch by batch.

    When memory runs out, `batch` is halved, and the remaining questions are asked in smaller batches, about fewer
    images at a time.

    Args:
        predictor: asks the model.
        batch: the current batch size.
        items: the questions of the window.
        images: by path; a `BadRecord` stands for one that cannot be read.
        settled: ids of items that need no answer.
    """
    known = set(settled)
    while True:
        try:
            for part in windows(items, batch.size):
                predictor.batch_size = batch.size
                # Batches are cut before answered items are dropped, so they do not depend on earlier answers.
                batches = [
                    [item for item in several if item.id not in known] for several in predictor.batches(part.items)
                ]
                for outcomes in predictor.answer([several for several in batches if several], images):
                    known.update(map(outcome_id, outcomes))
                    yield outcomes
            return
        except (RuntimeError, MemoryError) as error:
            batch.halve(error)


class QuestionCost:
    """An upper bound of the memory, beside the weights, of a batch of questions.

    Call it with a batch size; it returns bytes.
    """

    def __init__(self, gpt4roi: GPT4RoI, items: Sequence[Item], scorer: str, max_new_tokens: int) -> None:
        self._model = gpt4roi.model
        self._images = len({item.image for item in items})
        self._likely = scorer == "likelihood"
        longest = sorted(items, key=lambda item: len(item.question) + sum(map(len, item.options)), reverse=True)
        lengths = [self._length(gpt4roi, item, max_new_tokens) for item in longest[:TOKENISED]]
        # If none of these can be asked, what a session assumes.
        prompt, written = max(
            (length for length in lengths if length is not None),
            key=sum,
            default=(prompt_tokens(self._model.config), max_new_tokens),
        )
        self._tokens = within_context(self._model.config, prompt, written)
        self._written = written

    def __call__(self, questions: int) -> int:
        """Return bytes for this many questions per batch."""
        images = min(questions, self._images)
        # Keys and values of each image's opening are kept beside those of its questions; likelihoods of the options'
        # later tokens need a copy of the questions' own.
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
        """Tokens of a prompt, and of what is written or scored after it; None if the item cannot be asked."""
        try:
            if self._likely:
                offered = choice(gpt4roi.processor, item.question, item.options)
                return len(offered.prompt.input_ids), max(map(len, offered.continuations))
            return len(gpt4roi.processor.prompt([("user", item.question)]).input_ids), max_new_tokens
        except (ValueError, TypeError):
            return None
