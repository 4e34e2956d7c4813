"""How an answer of a model of transformers attends to its prompt: one more pass, in eager mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.capture.attention import Attention
from gpt4roi_nb.capture.recording import check_size, chosen
from gpt4roi_nb.capture.spans import FIRST_TOKEN
from gpt4roi_nb.capture.storage import small_image
from gpt4roi_nb.finite import log_probabilities
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.models.images import PreparedImage, SessionImages
from gpt4roi_nb.models.prompts import PromptedPrompt
from gpt4roi_nb.models.reading import cache_for, reader_of
from gpt4roi_nb.tokenizer import token_texts


@dataclass(frozen=True, eq=False)
class PromptedReplay:
    """What an answer came from, to record its attention: with P prompt tokens and A answer tokens.

    Attributes:
        loaded: the model.
        images: features of the images.
        image: the session's, upright RGB.
        prompt: the P tokens.
        regions: boxes by number, pixel xyxy in the original image.
        ids: what was written up to the last token that is kept; those before `first` are white space.
        first: len(ids) - A.
        tokens: text of each answer token.
    """

    loaded: LoadedModel
    images: SessionImages
    image: Image.Image
    prompt: PromptedPrompt
    regions: dict[int, Box]
    ids: Sequence[int]
    first: int
    tokens: list[str]

    @property
    def model_type(self) -> str:
        """The model's family."""
        return self.loaded.model.config.model_type

    def attention(
        self,
        layers: Sequence[int] | int | None,
        heads: Sequence[int] | int | None,
        dtype: torch.dtype,
        limit: float,
    ) -> Attention:
        """See `Answer.attention`."""
        layers, heads, size = self._wanted(layers, heads, dtype)
        check_size(size, limit, layers, heads, dtype)
        with self.loaded.hold_weights():
            weights, logprobs = self._record(layers, heads, dtype)
        length = len(self.prompt.input_ids)
        return Attention(
            weights=weights[..., :length],
            to_answer=weights[..., length:],
            tokens=list(self.tokens),
            prompt_tokens=token_texts(self.prompt.input_ids, self.loaded.processor.tokenizer),
            spans=spans_of(self.prompt),
            logprobs=logprobs,
            layers=layers,
            heads=heads,
            grid=grid_rows(self.loaded.processor, self.model_type, self.prompt.shown[0]),
            image_size=self.image.size,
            image=small_image(self.image),
            regions=dict(self.regions),
            only=f"only the attention weights of a {self.model_type} are recorded",
        )

    def size(self, layers: Sequence[int] | int | None, heads: Sequence[int] | int | None, dtype: torch.dtype) -> int:
        """Return the bytes of a recording: the weights that are kept, plus those of one whole layer at a time."""
        return self._wanted(layers, heads, dtype)[2]

    def _wanted(
        self, layers: Sequence[int] | int | None, heads: Sequence[int] | int | None, dtype: torch.dtype
    ) -> tuple[list[int], list[int], int]:
        if dtype not in (torch.float16, torch.float32):
            raise ValueError(f"dtype must be torch.float16 or torch.float32, but is {dtype}")
        model: Any = self.loaded.model
        text = model.config.get_text_config(decoder=True)
        layers = chosen(layers, len(attention_modules(model)), "layers")
        heads = chosen(heads, text.num_attention_heads, "heads")
        total = len(self.prompt.input_ids) + max(len(self.ids) - 1, 0)
        kept = len(layers) * len(heads) * len(self.tokens) * total * dtype.itemsize
        passing = text.num_attention_heads * total**2 * (torch.float32.itemsize + model.dtype.itemsize)
        return layers, heads, kept + passing

    @torch.inference_mode()
    def _record(self, layers: Sequence[int], heads: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(layers, heads, A, P + G - 1) weights and (A,) float32 log-probabilities, both on the CPU."""
        length, count = len(self.prompt.input_ids), len(self.tokens)
        kept: dict[int, Tensor] = {}
        picked = torch.tensor(list(heads))
        encodes = self.model_type == "florence2"
        features = self.images.features(self.prompt.shown)
        with self.loaded.inference() as model:
            reader = reader_of(model, [self.prompt], 0, features)
            before = reader.begin.shape[1] - 1  # the position whose step wrote the first token
            steps = slice(before + self.first, before + len(self.ids))

            def look(layer: int, weights: Tensor) -> None:
                rows = weights[0, :, steps][picked.to(weights.device)].to("cpu", dtype)
                if encodes:  # its decoder looks at the prompt apart from what it has written
                    rows = torch.nn.functional.pad(rows, (0, max(len(self.ids) - 1, 0)))
                kept[layer] = rows

            written = torch.tensor([list(self.ids[:-1])], dtype=torch.long, device=model.device)
            with eager(model), seen(model, look, layers):
                ids = torch.cat([reader.begin, written], dim=1)
                logits = reader(model, ids, cache_for(self.model_type), None)
            weights = torch.stack([kept[layer] for layer in layers])[..., : length + max(len(self.ids) - 1, 0)]
            if not count:
                return weights, torch.zeros(0)
            wanted = torch.tensor(list(self.ids[self.first :]), device=logits.device)
            likely = log_probabilities(logits[0, -len(self.ids) :][self.first :], model)
            return weights, likely.gather(-1, wanted[:, None])[:, 0].cpu()


def spans_of(prompt: PromptedPrompt) -> dict[str, list[int]]:
    """Return prompt positions by name, each in one: as `capture.spans.named_spans`, with "image2", … if more are shown.

    "first token" is empty where the first image begins the prompt, as in PaliGemma.
    """
    last = max((name for name in prompt.spans if name.startswith("question")), key=lambda name: int(name[8:]))
    turns = [name for name in prompt.spans if name.startswith(("question", "answer")) and name != last]
    spans: dict[str, list[int]] = {FIRST_TOKEN: [] if prompt.images[0] >= 0 else [0]}
    for number in sorted({image for image in prompt.images if image >= 0}):
        name = f"image{number + 1}" if number else "image"
        spans[name] = [place for place, image in enumerate(prompt.images) if image == number]
    spans["earlier turns"] = sorted(place for name in turns for place in prompt.spans[name])
    spans["question"] = list(prompt.spans[last])
    taken = {place for places in spans.values() for place in places}
    spans["marks"] = [place for place in range(len(prompt.input_ids)) if place not in taken]
    return spans


def grid_rows(processor: Any, model_type: str, image: PreparedImage) -> int:
    """Return the rows of the first image's tokens if they are a grid from its top left; 0 if not, or if unknown.

    A padded image has none: some of its tokens lie beside it, and its edges seldom fall between two patches.
    """
    if image.padded:
        return 0
    grid = image.values.get("image_grid_thw")
    if grid is not None:
        return int(grid[0, 1]) // getattr(processor.image_processor, "merge_size", 1)
    side = math.isqrt(len(image.ids))
    return side if model_type in ("llava", "vipllava", "paligemma") and side**2 == len(image.ids) else 0


def attention_modules(model: Any) -> list[nn.Module]:
    """Return the modules that attend to the prompt, one per layer of the language model, in order; [] if unknown.

    Florence-2's decoder attends to it by cross-attention.
    """
    if model.config.model_type == "kosmos-2":
        layers, name = model.text_model.model.layers, "self_attn"
    elif model.config.model_type == "florence2":
        layers, name = model.model.language_model.decoder.layers, "encoder_attn"
    else:
        inner = getattr(model, "model", None)
        language = getattr(inner, "language_model", getattr(inner, "text_model", None))
        layers, name = getattr(language, "layers", ()), "self_attn"
    found: list[nn.Module] = [getattr(layer, name) for layer in layers if hasattr(layer, name)]
    return found if len(found) == len(layers) else []


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Switch all of a model to eager mode, where attention weights exist, and back, also after an error."""
    configs = {id(config): config for part in model.modules() if (config := getattr(part, "config", None)) is not None}
    before = {key: config._attn_implementation_internal for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation_internal = "eager"
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]


@contextmanager
def seen(model: Any, look: Callable[[int, Tensor], None], layers: Sequence[int]) -> Iterator[None]:
    """Call `look(layer, weights)` within it, with the (B, heads, T, S) weights of each pass, one layer at a time."""
    modules = attention_modules(model)

    def hook(layer: int) -> Callable[..., None]:
        def see(module: nn.Module, given: tuple[Any, ...], output: tuple[Tensor, Tensor | None]) -> None:
            weights = output[1]
            if weights is None:
                raise NotImplementedError(f"{type(module).__name__} returns no attention weights in eager mode")
            look(layer, weights)

        return see

    handles = [modules[layer].register_forward_hook(hook(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
