"""An answer of a model of transformers run again: its attention recorded, or something changed about a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.batches import BatchSize
from gpt4roi_nb.boxes import Box
from gpt4roi_nb.capture.ablation import (
    ABLATIONS,
    MORE_TOKENS,
    Ablation,
    How,
    blurred,
    check_token,
    covered,
    of_token,
    squares,
)
from gpt4roi_nb.capture.attention import Attention
from gpt4roi_nb.capture.recording import capture_attention, check_size, chosen
from gpt4roi_nb.capture.storage import float32_copy, small_image
from gpt4roi_nb.finite import log_probabilities
from gpt4roi_nb.models.attention import attention_modules, eager, features_at, spans_of
from gpt4roi_nb.models.batching import write_batches
from gpt4roi_nb.models.images import SessionImages, together, without_some
from gpt4roi_nb.models.loaded_family import LoadedFamily
from gpt4roi_nb.models.placement import Placement, placement_of
from gpt4roi_nb.models.prompts import PromptedPrompt
from gpt4roi_nb.models.reading import cache_for, reader_of
from gpt4roi_nb.tokenizer import token_texts

PROMPT_ABLATIONS: tuple[How, ...] = ("remove", "blur")  # of ABLATIONS, those that change no region token
PLACES = 16  # rows and columns of squares that are covered, where the places of the image's tokens are not known


@dataclass(frozen=True, eq=False)
class PromptedReplay:
    """What an answer was made from: P prompt tokens and G written tokens, of which the last A are the answer.

    Attributes:
        loaded: the model, with the way in which boxes were presented.
        images: features of the images.
        image: the session's, upright RGB.
        prompt: the P tokens.
        regions: boxes by number, pixel xyxy in the original image.
        ids: the G written tokens up to the last one that is kept; those before `first` = G - A are white space.
        first: index of the answer's first token in `ids`.
        tokens: text of each answer token.
    """

    loaded: LoadedFamily
    images: SessionImages
    image: Image.Image
    prompt: PromptedPrompt
    regions: dict[int, Box]
    ids: Sequence[int]
    first: int
    tokens: list[str]

    @property
    def boxes(self) -> list[Box]:
        """Pixel xyxy of the regions."""
        return list(self.regions.values())

    @property
    def ablations(self) -> tuple[How, ...]:
        """What `ablate` takes as `how`."""
        return PROMPT_ABLATIONS

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
        model_type = self.loaded.model_type
        with self.loaded.hold_weights():
            weights, logprobs = self._record(layers, heads, dtype)
            placement = self._placement()
        length = len(self.prompt.input_ids)
        return Attention(
            weights=weights[..., :length],
            to_answer=weights[..., length:],
            tokens=list(self.tokens),
            prompt_tokens=token_texts(self.prompt.input_ids, self.loaded.processor.tokenizer),
            spans=spans_of(self.prompt, self.loaded.model),
            logprobs=logprobs,
            layers=layers,
            heads=heads,
            grid=placement.rows if placement else 0,
            image_size=self.image.size,
            image=small_image(self.image),
            regions=dict(self.regions),
            only=f"only the attention weights of a {model_type} are recorded",
            frame=placement.frame if placement else None,
            places=placement.places if placement else None,
            weights_version=self.loaded.weights_version,
        )

    def size(self, layers: Sequence[int] | int | None, heads: Sequence[int] | int | None, dtype: torch.dtype) -> int:
        """Return the bytes of a recording: the weights that are kept, plus those of one whole layer at a time."""
        return self._wanted(layers, heads, dtype)[2]

    def ablate(
        self,
        region: int,
        how: str,
        *,
        baseline: str = "mean",
        other: int | None = None,
        box: Box | None = None,
        generate: bool = True,
        max_new_tokens: int | None = None,
    ) -> Ablation:
        """See `Answer.ablate`."""
        loaded = self.loaded
        if how not in PROMPT_ABLATIONS:
            raise ValueError(
                f"how must be {' or '.join(PROMPT_ABLATIONS)} for a {loaded.model_type}, but is {how!r}"
                + ("; only a GPT4RoI has a region token that can be changed in this way" if how in ABLATIONS else "")
            )
        if baseline != "mean" or other is not None or box is not None:
            raise ValueError(
                f"baseline, other and box change a region's token, which a {loaded.model_type} does not have; leave "
                "them out"
            )
        if region not in self.regions:
            known = " and ".join(map(str, self.regions)) or "none"
            raise ValueError(f"the answer's prompt has no region {region!r}; its regions are: {known}")
        with loaded.hold_weights():
            changed = self._changed(region, how)
            loaded.check_tokens(len(changed.input_ids), max(len(self.ids), 1))
            before, after = (self.log_probabilities([prompt], self.images)[0] for prompt in (self.prompt, changed))
            answer = None
            if generate:
                most = len(self.ids) + MORE_TOKENS if max_new_tokens is None else max_new_tokens
                ((written,),) = write_batches(
                    loaded, self.images, [changed], loaded.as_answer, batch_size=1, max_new_tokens=most
                )
                answer = written.text
        return Ablation(
            how, region, baseline, None, list(self.tokens), float32_copy(before), float32_copy(after), answer
        )

    def occlusion(self, patch: int, token: int | str | None, batch_size: int) -> Tensor:
        """See `Answer.occlusion`."""
        loaded = self.loaded
        token = check_token(token, len(self.tokens))
        batch = BatchSize(whole_number(batch_size, "batch_size", least=1), "covered images")
        with loaded.hold_weights():
            rows, columns = self._squares()
            patch = whole_number(patch, "patch", least=1)
            if patch > max(rows, columns):
                raise ValueError(
                    f"patch must be a whole number of places, from 1 to {max(rows, columns)}, but is {patch}"
                )
            boxes, shape = squares(rows, columns, patch)
            (whole,) = self.log_probabilities([self.prompt], self.images)

            def drops(part: slice) -> Tensor:
                images = loaded.images()  # apart from the session's, which keeps what it needs itself
                prompts = [
                    loaded.prompt(images, covered(self.image, box, rows, columns), self.prompt.turns, self.regions)
                    for box in boxes[part]
                ]
                return whole - self.log_probabilities(prompts, images)

            return of_token(torch.cat(list(batch.run(len(boxes), drops))), token, shape)

    @torch.inference_mode()
    def log_probabilities(self, prompts: Sequence[PromptedPrompt], images: SessionImages) -> Tensor:
        """Compute the log-probability of each answer token, given a prompt and the answer before it.

        Args:
            prompts: B of them, of equal length.
            images: where their images were prepared.

        Returns:
            (B, A) float32 on the CPU.
        """
        count = len(self.tokens)
        if not count:
            return torch.zeros(len(prompts), 0)
        return self._likely(prompts, images.features([image for prompt in prompts for image in prompt.shown]))

    @property
    def length(self) -> int:
        """P, the number of prompt tokens."""
        return len(self.prompt.input_ids)

    def removal(self) -> PromptedReplay:
        """See `faithfulness`."""
        return self

    def removable(self, over: str) -> list[int]:
        """Return the prompt positions that hold features of the images; see `faithfulness`."""
        if over != "image":
            raise ValueError(f'a {self.loaded.model_type} has no region tokens to remove; use over="image"')
        return [place for places in self._features_at() for place in places]

    @torch.inference_mode()
    def without(self, removed: Tensor, batch: BatchSize) -> Tensor:
        """Compute the log-probability of each answer token with some image features replaced by their image's mean.

        Args:
            removed: (B, P) bool.
            batch: rows at a time.

        Returns:
            (B, A) float32 on the CPU.
        """
        with self.loaded.hold_weights():
            each = [self.images.features([image]) for image in self.prompt.shown]
            if any(features is None for features in each):
                raise RuntimeError(
                    f"{self.loaded.model_type} takes no features of images, so its image tokens cannot be taken away "
                    "one by one; look at occlusion()"
                )

            def likely(part: slice) -> Tensor:
                rows = removed[part]
                found = [
                    without_some(features, row[places])
                    for row in rows
                    for features, places in zip(each, self._features_at(), strict=True)
                ]
                return self._likely([self.prompt] * len(rows), together(found))

            return torch.cat(list(batch.run(len(removed), likely)))

    @torch.inference_mode()
    def _likely(self, prompts: Sequence[PromptedPrompt], features: Any) -> Tensor:
        """As `log_probabilities`, from the features of all images of all prompts in order."""
        with self.loaded.inference() as model:
            reader = reader_of(model, prompts, 0, features)
            logits = reader(model, self._forced(reader.begin), cache_for(model.config), None)
            likely = log_probabilities(logits[:, -len(self.ids) :][:, self.first :], model).cpu()
        wanted = torch.tensor(list(self.ids[self.first :])).expand(len(prompts), -1)
        return likely.gather(-1, wanted[..., None])[..., 0]

    def _features_at(self) -> list[list[int]]:
        """Prompt positions of the features of each image."""
        return [features_at(self.prompt, image, self.loaded.model) for image in range(len(self.prompt.shown))]

    def _forced(self, begin: Tensor) -> Tensor:
        """Append the written tokens to (B, n) ids, except for the last, which is only predicted."""
        written = torch.tensor([list(self.ids[:-1])], dtype=torch.long, device=begin.device)
        return torch.cat([begin, written.expand(len(begin), -1)], dim=1)

    def _changed(self, region: int, how: str) -> PromptedPrompt:
        whole = blurred(self.image, self.regions[region]) if how == "blur" else self.image
        hidden = region if how == "remove" else None
        return self.loaded.prompt(self.images, whole, self.prompt.turns, self.regions, hidden=hidden)

    def _placement(self) -> Placement | None:
        """Where the tokens of the first image lie."""
        count = len(self._features_at()[0])
        return placement_of(self.loaded, self.prompt.shown[0], self.prompt.frames[0], count)

    def _squares(self) -> tuple[int, int]:
        """Rows and columns of places over the whole image."""
        width, height = self.image.size
        whole: Box = (0, 0, width, height)
        placement = self._placement() if self.prompt.frames[0] == whole else None
        if placement is None:
            return PLACES, PLACES
        x1, y1, x2, y2 = placement.frame
        # Fewer than the map has, where it covers padding beside the image.
        return (
            max(round(placement.rows * height / (y2 - y1)), 1),
            max(round(placement.columns * width / (x2 - x1)), 1),
        )

    def _wanted(
        self, layers: Sequence[int] | int | None, heads: Sequence[int] | int | None, dtype: torch.dtype
    ) -> tuple[list[int], list[int], int]:
        if not self.loaded.capabilities.attention:
            raise RuntimeError(
                f"what {self.loaded.model_type} computes is not recorded here, so you cannot look at its attention; "
                "look at ablate() and occlusion()"
            )
        if dtype not in (torch.float16, torch.float32):
            raise ValueError(f"dtype must be torch.float16 or torch.float32, but is {dtype}")
        model = self.loaded.model
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
        encodes = self.loaded.model.config.is_encoder_decoder
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

            with eager(model), capture_attention(attention_modules(model), look, layers):
                logits = reader(model, self._forced(reader.begin), cache_for(model.config), None)
            weights = torch.stack([kept[layer] for layer in layers])[..., : length + max(len(self.ids) - 1, 0)]
            if not count:
                return weights, torch.zeros(0)
            wanted = torch.tensor(list(self.ids[self.first :]), device=logits.device)
            likely = log_probabilities(logits[0, -len(self.ids) :][self.first :], model)
            return weights, likely.gather(-1, wanted[:, None])[:, 0].cpu()
