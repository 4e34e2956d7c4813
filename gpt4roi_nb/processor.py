"""From image, conversation and boxes to model inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoImageProcessor, AutoProcessor, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from gpt4roi_nb.arguments import real_number, whole_number
from gpt4roi_nb.boxes import check_boxes, normalise
from gpt4roi_nb.chat_template import build_template_prompt, end_of_turn
from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.images import ImageLike, image_to_pixel_values, load_image
from gpt4roi_nb.prompt import IGNORE, SYSTEM, TURN_MARK, Prompt, Turns, build_prompt, check_references

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

CHAT_FORMATS = ("gpt4roi", "template")


class GPT4RoIImageProcessor(BaseImageProcessor):
    """Make the vision tower's input: Pillow bicubic to the shorter side, normalised, then bilinear to a square.

    Attributes:
        image_size: side S of the square in pixels.
        image_mean, image_std: three numbers each, for RGB in 0 to 1.

    Raises:
        TypeError, ValueError: if the size is not a positive whole number, or mean and std are not three finite numbers,
            of std above 0.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 (as transformers declares it)

    def __init__(
        self,
        image_size: int = 224,
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_size = whole_number(image_size, "image_size", least=1)
        self.image_mean = _three_numbers(image_mean, "image_mean")
        self.image_std = _three_numbers(image_std, "image_std")
        if min(self.image_std) <= 0:
            raise ValueError(f"image_std must be above 0 for each channel, but is {self.image_std}")

    def preprocess(self, images: ImageLike | Sequence[ImageLike], **kwargs: Any) -> BatchFeature:
        """Convert images to pixel values.

        Args:
            images: one image or several, each as `load_image` takes it.
            kwargs: ignored; transformers passes them.

        Returns:
            {"pixel_values": (B, 3, S, S) float32}.
        """
        several: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
        return BatchFeature({"pixel_values": torch.stack([self.pixels(load_image(image)) for image in several])})

    def pixels(self, image: Image.Image) -> Tensor:
        """Convert one image, as `load_image` returns it, to (3, S, S) float32."""
        return image_to_pixel_values(image, self.image_size, self.image_mean, self.image_std)


def _three_numbers(values: Any, name: str) -> list[float]:
    """Return one number for each of the channels red, green and blue, as a list."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 3:
        raise ValueError(f"{name} must be three numbers, one per colour channel, but is {values!r}")
    numbers = [real_number(value, f"each of {name}") for value in values]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} must be finite numbers, but is {numbers}")
    return numbers


class GPT4RoIProcessor(ProcessorMixin):
    """Build the inputs of `GPT4RoIForConditionalGeneration` from images, text and boxes.

    Attributes:
        image_processor, tokenizer: the two parts.
        num_image_tokens: patches of the image, i.e. `<im_patch>` tokens in a prompt.
        closing: the end of a prompt that awaits an answer. GPT4RoI-7B's is "### ", after which it writes "Assistant:".
            Not used with a template, which writes its own.
        system: the first sentence of a prompt. With a template, the content of the system message; no message if empty.
        chat_format: "gpt4roi", turns between "###" as in GPT4RoI-7B, or "template", the tokenizer's own
            `chat_template`, for other language models.
        end_of_turn: the token that ends an answer; None in the format "gpt4roi".

    Raises:
        ValueError: for an unknown `chat_format`, or "template" with a tokenizer whose template cannot be used.
        TypeError: if `closing` or `system` is not a string.

    Examples:
        >>> import numpy as np
        >>> from gpt4roi_nb import GPT4RoI
        >>> processor = GPT4RoI.from_pretrained(device="cpu").processor
        >>> inputs = processor(np.zeros((120, 160, 3), np.uint8), "What is <region1>?", [(20, 20, 60, 60)])
        >>> sorted(inputs)
        ['attention_mask', 'boxes', 'input_ids', 'labels', 'pixel_values']
        >>> inputs["boxes"][0].shape
        torch.Size([1, 4])
    """

    def __init__(
        self,
        image_processor: GPT4RoIImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        num_image_tokens: int = 256,
        closing: str = f"{TURN_MARK} ",
        system: str = SYSTEM,
        chat_format: str = "gpt4roi",
        **kwargs: Any,
    ) -> None:
        if chat_format not in CHAT_FORMATS:
            raise ValueError(f'chat_format must be "gpt4roi" or "template", but is {chat_format!r}')
        for name, text in (("closing", closing), ("system", system)):
            if not isinstance(text, str):
                raise TypeError(f"{name} must be a string, but is {text!r}")
        self.chat_format = chat_format
        self.end_of_turn = end_of_turn(tokenizer) if chat_format == "template" else None
        self.num_image_tokens = whole_number(num_image_tokens, "num_image_tokens", least=1)
        self.closing = closing
        self.system = system
        super().__init__(image_processor, tokenizer, **kwargs)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> GPT4RoIProcessor:
        """Load as transformers does, but never code that lies beside the files."""
        made: GPT4RoIProcessor = super().from_pretrained(*args, **{**kwargs, "trust_remote_code": False})
        return made

    def prompt(self, turns: Turns) -> Prompt:
        """Tokenize a conversation; the result also has the order of its regions and the spans of its parts."""
        if self.chat_format == "template":
            return build_template_prompt(turns, self.tokenizer, self.num_image_tokens, system=self.system)
        return build_prompt(turns, self.tokenizer, self.num_image_tokens, closing=self.closing, system=self.system)

    def conversation(self, turns: Turns) -> dict[str, Tensor]:
        """Tokenize a conversation for training.

        The opening, the image tokens, the turn marks and the closing mark are added. The first `<regionN>` in the
        user's turns gets the region's token. Labels cover the assistant's turns and the marks that end them, and are
        -100 elsewhere.

        Args:
            turns: alternating ("user", text) and ("assistant", text) pairs, the user first.

        Returns:
            {"input_ids": (T,), "labels": (T,)}, both int64.
        """
        prompt = self.prompt(turns)
        return {"input_ids": torch.tensor(prompt.input_ids), "labels": torch.tensor(prompt.labels)}

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike],
        text: str | Turns | Sequence[str | Turns],
        boxes: ArrayLike | Sequence[ArrayLike] | None = None,
        *,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Make a batch, padded on the tokenizer's `padding_side`.

        Args:
            images: one image, or a list with one per conversation; each as `load_image` takes it.
            text: a question or a conversation of turns, or one per image.
            boxes: (N, 4) pixel xyxy in the original image, row k being region k + 1; or one such array per image.
            return_tensors: "pt" is the only choice.

        Returns:
            input_ids, attention_mask, labels (B, T) int64; pixel_values (B, 3, S, S) float32; boxes: a list of
            (n_i, 4) float32, xyxy in [0, 1], in the order of the `<bbox>` tokens.

        Raises:
            ValueError: if the numbers of images, conversations and boxes differ, or boxes and references do not match.
        """
        if return_tensors != "pt":
            raise ValueError(f'return_tensors must be "pt", PyTorch tensors, but is {return_tensors!r}')
        several = isinstance(images, list | tuple)
        given: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
        loaded = [load_image(image) for image in given]
        conversations: list[Any] = list(text) if several else [text]
        box_sets: list[Any] = [()] * len(loaded) if boxes is None else list(boxes) if several else [boxes]  # type: ignore[arg-type]
        if not len(loaded) == len(conversations) == len(box_sets):
            raise ValueError(
                f"got {len(loaded)} images with {len(conversations)} conversations and {len(box_sets)} sets of boxes; "
                "give one conversation and one set of boxes (which may be empty) per image"
            )
        prompts, ordered = [], []
        for image, turns, image_boxes in zip(loaded, conversations, box_sets, strict=True):
            prompt = self.prompt([("user", turns)] if isinstance(turns, str) else turns)
            prompts.append(prompt)
            ordered.append(self.order_boxes(prompt, image_boxes, image))
        batch = self.pad(prompts)
        batch["pixel_values"] = torch.stack([self.image_processor.pixels(image) for image in loaded])
        batch["boxes"] = ordered
        return BatchFeature(batch)

    def order_boxes(self, prompt: Prompt, boxes: ArrayLike, image: Image.Image) -> Tensor:
        """Check and normalise boxes, in the order of the prompt's `<bbox>` tokens.

        Args:
            prompt: names the regions.
            boxes: (N, 4) pixel xyxy in `image`, of regions 1, 2, ….
            image: the original image.

        Returns:
            (n, 4) float32 xyxy in [0, 1].

        Raises:
            ValueError: for a bad box, or if boxes and references do not match.
        """
        checked = check_boxes(boxes, *image.size)
        check_references(prompt.regions, range(1, len(checked) + 1))
        return torch.from_numpy(normalise(checked, *image.size))[[number - 1 for number in prompt.regions]]

    def pad(self, prompts: Sequence[Prompt], padding_side: str | None = None) -> dict[str, Any]:
        """Pad prompts to a batch.

        Args:
            prompts: of any lengths.
            padding_side: "left" or "right"; None takes the tokenizer's.

        Returns:
            input_ids, attention_mask and labels, each (B, T) int64.
        """
        side = padding_side or self.tokenizer.padding_side

        def padded(rows: list[list[int]], filler: int) -> Tensor:
            return pad_sequence([*map(torch.tensor, rows)], batch_first=True, padding_value=filler, padding_side=side)

        return {
            "input_ids": padded([prompt.input_ids for prompt in prompts], self.tokenizer.pad_token_id),
            "attention_mask": padded([[1] * len(prompt.input_ids) for prompt in prompts], 0),
            "labels": padded([prompt.labels for prompt in prompts], IGNORE),
        }


AutoImageProcessor.register(
    GPT4RoIConfig, image_processor_classes={"torchvision": GPT4RoIImageProcessor, "pil": GPT4RoIImageProcessor}
)
AutoProcessor.register(GPT4RoIConfig, GPT4RoIProcessor)
