"""Many questions about any images, answered in batches by a GPT4RoI."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt4roi_nb.batches import BatchSize
from gpt4roi_nb.images import ImageLike, load_image
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.inference.shared_opening import SharedOpening
from gpt4roi_nb.prompt import Prompt
from gpt4roi_nb.session.conversation import NOT_KEPT, Answer
from gpt4roi_nb.session.references import read_references
from gpt4roi_nb.session.region_model import Question, numbered


@dataclass(frozen=True)
class _Checked:
    """image: as it was given. boxes: (n, 4) float32 xyxy in [0, 1], as the prompt's `<bbox>` tokens."""

    image: ImageLike
    prompt: Prompt
    boxes: Tensor


def answer_batches(
    loaded: LoadedModel, questions: Sequence[Question], max_new_tokens: int, batch_size: int
) -> list[Answer]:
    """See `GPT4RoI.answers`: all questions are checked first, and images are read again batch by batch."""
    checked = [_check(loaded, number, question) for number, question in enumerate(questions)]
    found: list[Answer] = []
    with loaded.hold_weights():
        size = BatchSize(max(1, min(batch_size, len(checked))), "questions")
        for part in size.run(len(checked), lambda part: _write(loaded, checked[part], max_new_tokens)):
            found += part
    return found


def _check(loaded: LoadedModel, number: int, question: Question) -> _Checked:
    with numbered(number):
        loaded.check_loaded()
        image = question.rereadable().image
        prompt = loaded.processor.prompt([("user", read_references(question.text, 0))])
        boxes = loaded.processor.order_boxes(prompt, question.boxes, load_image(image))
        if len(prompt.input_ids) >= loaded.context_length:
            raise ValueError(
                f"the prompt is {len(prompt.input_ids)} tokens long, but the model takes {loaded.context_length} with "
                "the answer; shorten the question"
            )
        return _Checked(image, prompt, boxes)


@torch.inference_mode()
def _write(loaded: LoadedModel, batch: Sequence[_Checked], max_new_tokens: int) -> list[Answer]:
    started = time.perf_counter()
    room = loaded.context_length - max(len(one.prompt.input_ids) for one in batch)
    images = {id(one.image): one.image for one in batch}  # one that comes again is encoded once
    pixels = [loaded.processor.image_processor.pixels(load_image(image)) for image in images.values()]
    shared = SharedOpening(loaded, torch.stack(pixels).to(loaded.device))
    places = list(images)
    read = shared.read(
        [one.prompt for one in batch], [places.index(id(one.image)) for one in batch], [one.boxes for one in batch]
    )
    rows = shared.write(read, min(max_new_tokens, room))
    seconds = (time.perf_counter() - started) / len(batch)
    return [
        Answer.from_row(row, len(one.prompt.input_ids), 0, seconds, cannot=NOT_KEPT)
        for row, one in zip(rows, batch, strict=True)
    ]
