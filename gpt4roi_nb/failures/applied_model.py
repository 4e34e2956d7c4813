"""`AppliedModel`: a region model as FiftyOne's `apply_model` calls it. Importing this imports FiftyOne."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import fiftyone
from fiftyone.core.models import Model, SamplesMixin, SupportsGetItem, TorchModelMixin
from fiftyone.utils.torch import GetItem
from PIL import Image

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.failures.labels import short_label
from gpt4roi_nb.images import load_image
from gpt4roi_nb.session.conversation import mean_logprob

if TYPE_CHECKING:
    from gpt4roi_nb.session.region_model import RegionModel

PROMPT_FIELD = "prompt_field"
HOW = "dataset.apply_model(model, 'answers', prompt_field='ground_truth')"


class UprightImage(GetItem):  # type: ignore[misc]
    """Reads the image of a sample in the workers of FiftyOne's data loader."""

    @property
    def required_keys(self) -> list[str]:
        """What it needs of a sample."""
        return ["filepath"]

    def __call__(self, d: dict[str, Any]) -> Image.Image:
        """Return the upright RGB image."""
        return load_image(d["filepath"])


class AppliedModel(SupportsGetItem, TorchModelMixin, SamplesMixin, Model):  # type: ignore[misc]
    """A region model that answers about the boxes of a field of each sample; made by `zoo_model`.

    Args:
        model: the region model.
        question: about `<region1>`; None takes the model's default.
        max_new_tokens: the most tokens per answer.
        batch_size: boxes of an image at a time.
    """

    config = None  # FiftyOne looks for thresholds and classes there, and applies them itself if there are none
    _using_gpu = False  # images are not tensors, so there is nothing to pin in memory

    def __init__(self, model: RegionModel, question: str | None, max_new_tokens: int, batch_size: int) -> None:
        SamplesMixin.__init__(self)
        self.model = model
        self.question = question
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self._preprocess = False

    @property
    def media_type(self) -> str:
        """What it takes."""
        return "image"

    @property
    def ragged_batches(self) -> bool:
        """Images of different sizes may share a batch, which is a list."""
        return False

    @property
    def has_collate_fn(self) -> bool:
        """A batch stays a list."""
        return True

    @staticmethod
    def collate_fn(batch: list[Any]) -> list[Any]:
        """Return the batch as it is."""
        return batch

    @property
    def transforms(self) -> None:
        """The model prepares images itself."""

    @property
    def preprocess(self) -> bool:
        """FiftyOne sets it; there are no transforms."""
        return self._preprocess

    @preprocess.setter
    def preprocess(self, value: bool) -> None:
        self._preprocess = value

    def build_get_item(self, field_mapping: dict[str, str] | None = None) -> UprightImage:
        """Return what reads a sample's image."""
        return UprightImage(field_mapping=field_mapping)

    def predict(self, arg: Any, sample: Any = None) -> Any:
        """Answer about one image; see `predict_all`."""
        return self.predict_all([arg], None if sample is None else [sample])[0]

    def predict_all(self, args: Iterable[Any], samples: Iterable[Any] | None = None) -> list[Any]:
        """Answer about the boxes of several images.

        Args:
            args: the images, as `session` takes them.
            samples: their samples.

        Returns:
            A `fiftyone.Detections` for each, with one detection per box that has an area.

        Raises:
            ValueError: no field is named, or it does not hold detections.
        """
        if samples is None or not self.needs_fields.get(PROMPT_FIELD):
            raise ValueError(f"say which field of the dataset holds the boxes: {HOW}")
        unknown = [key for key in self.needs_fields if key != PROMPT_FIELD]
        if unknown:
            raise ValueError(f"apply_model passed {unknown[0]!r}, which this model does not know; expected {HOW}")
        return [
            fiftyone.Detections(detections=self._answered(load_image(image), sample))
            for image, sample in zip(args, samples, strict=True)
        ]

    def _answered(self, image: Image.Image, sample: Any) -> list[Any]:
        field = self.needs_fields[PROMPT_FIELD]
        asked, boxes = [], []
        for detection in _detections(sample[field], field):
            box = pixel_box(detection.bounding_box, *image.size)
            if box is None:
                where = f"{field!r} of {sample.filepath}"
                message = f"{where} has a box without area, {detection.bounding_box}; it gets no answer"
                warnings.warn(message, stacklevel=2)
                continue
            asked.append(detection)
            boxes.append(box)
        if not boxes:
            return []
        text = {} if self.question is None else {"text": self.question}
        answers = self.model.session(image).describe(
            boxes, batch_size=self.batch_size, max_new_tokens=self.max_new_tokens, progress=False, **text
        )
        if len(answers) < len(boxes) or any(answer.stopped for answer in answers):
            raise KeyboardInterrupt  # `describe` has kept what was written, which would look complete here
        return [self._detection(detection, answer) for detection, answer in zip(asked, answers, strict=True)]

    def _detection(self, asked: Any, answer: Any) -> Any:
        more: dict[str, Any] = {"question": self.question, "told": answer.told}
        if (logprob := mean_logprob(answer.logprobs)) is not None:
            more |= {"logprob": logprob, "confidence": min(math.exp(logprob), 1.0)}
        return fiftyone.Detection(
            label=short_label(answer.text),
            bounding_box=asked.bounding_box,
            answer=answer.text,
            prompt=str(asked.id),
            **{name: value for name, value in more.items() if value not in (None, "")},
        )


def _detections(label: Any, field: str) -> Sequence[Any]:
    if label is None:
        return []
    if isinstance(label, fiftyone.Detection):
        return [label]
    if not isinstance(label, fiftyone.Detections):
        kind = type(label).__name__
        raise ValueError(f"{field!r} must hold Detections, whose boxes are asked about, but holds {kind}")
    found: list[Any] = label.detections
    return found


def pixel_box(relative: Sequence[float], width: int, height: int) -> Box | None:
    """Convert FiftyOne's [x, y, width, height] in [0, 1] to pixel xyxy inside the image; None for no area."""
    x, y, w, h = map(float, relative)
    box = max(x, 0.0) * width, max(y, 0.0) * height, min(x + w, 1.0) * width, min(y + h, 1.0) * height
    return box if box[0] < box[2] and box[1] < box[3] else None
