"""How an answer's tokens attend to the named parts of the prompt, and what follows from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, get_type_hints

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.boxes import Box
from gpt4roi_nb.capture.flow import relevancies, rollout
from gpt4roi_nb.capture.recording import attention_bytes, check_pass, check_size, chosen, forced_tokens, record
from gpt4roi_nb.capture.replay import Replay
from gpt4roi_nb.capture.sinks import Sink, Sinks, find_sinks
from gpt4roi_nb.capture.spans import ANSWER_SO_FAR, named_spans
from gpt4roi_nb.capture.storage import check_shapes, checking, read, small_image, write
from gpt4roi_nb.inference.loaded_model import LoadedModel, WeightsChangedError
from gpt4roi_nb.memory import map_bytes
from gpt4roi_nb.tokenizer import token_texts
from gpt4roi_nb.typed import typed_fields

KIND = "attention"
_TENSORS = ("weights", "to_answer", "logprobs")
_ABOUT = ("tokens", "prompt_tokens", "spans", "layers", "heads", "grid", "image_size", "only", "frame")
_LATER: dict[str, Any] = {"only": "", "frame": None}  # what older files do not have, and what it means


@dataclass(frozen=True, eq=False)
class Attention:
    """How an answer's A tokens attend to its P prompt tokens, in L layers and H heads.

    A raw map alone explains nothing: most of its mass may lie on tokens that could be removed without effect. Compare
    it with `mass`, `sinks` and `relevancy`, and with `Answer.ablate`.

    Attributes:
        weights: (L, H, A, P) in the requested dtype. Row t is the step that wrote answer token t.
        to_answer: (L, H, A, G - 1), the attention of the same rows to the tokens written before; 0 for later ones. The
            G written tokens are the role, if the model writes one, and the answer. Rows of both together sum to 1.
        tokens, prompt_tokens: text of each answer token and of each prompt token.
        spans: prompt positions by name; each position is in exactly one. See `spans.named_spans`.
        logprobs: (A,) float32, log-probability of each answer token, recomputed in this pass.
        layers, heads: the model's numbers of those recorded; arguments called layer and head are such numbers.
        grid: rows of the map over the image, which has as many columns in a GPT4RoI; 0 for a model whose image tokens
            have no known places.
        image_size: (width, height) in pixels.
        image: the image, at most 1024 pixels per side.
        regions: box of each region of the prompt by number, pixel xyxy in the original image.
        only: why `sinks`, `rollout` and `relevancy` cannot be computed, if the model is the reason; else "".
        frame: what the map covers, pixel xyxy in the original image: more than the image where the model pads it, a
            part of it where the model is shown a crop. None: the image.
        places: (cells, image tokens) float32, how much of each image token's attention goes to each cell of the map,
            row by row; a column sums to 1, or to less for a token that has no place, or only in part. None: the image
            tokens are the cells.

    Examples:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> scene = make_scene(5)
        >>> session = GPT4RoI.from_pretrained(device="cpu").session(scene.image)
        >>> answer = session.ask("What colour is <region1>?", [scene.objects[0].box])
        >>> attention = answer.attention()
        >>> attention.to_image(token=0).shape == (attention.grid, attention.grid)
        True
        >>> list(attention.mass())
        ['first token', 'system', 'image', 'region1', 'earlier turns', 'question', 'marks', 'answer so far']
    """

    weights: Tensor
    to_answer: Tensor
    tokens: list[str]
    prompt_tokens: list[str]
    spans: dict[str, list[int]]
    logprobs: Tensor
    layers: list[int]
    heads: list[int]
    grid: int
    image_size: tuple[int, int]
    image: Image.Image = field(repr=False)
    regions: dict[int, Box]
    only: str = field(default="", repr=False)
    frame: Box | None = None
    places: Tensor | None = field(default=None, repr=False)
    weights_version: int | None = field(default=None, repr=False)  # of the model then; None in a saved file
    _replay: Replay | None = field(default=None, repr=False)
    _found: dict[str, Any] = field(default_factory=dict, repr=False)  # what was computed once

    def span_mass(self, span: str) -> Tensor:
        """Return the attention to a span, or to "answer so far": (L, H, A) float32, between 0 and 1."""
        if span == ANSWER_SO_FAR:
            return self.to_answer.float().sum(dim=-1)
        return self.weights[..., self._positions(span)].float().sum(dim=-1)

    def mass(self, layer: int | None = None, head: int | None = None) -> dict[str, Tensor]:
        """Return the share of the attention on each span and on the answer so far.

        Args:
            layer, head: None takes the mean over those recorded.

        Returns:
            (A,) float32 per span; for every token they sum to 1.
        """
        return {span: self._mean(self.span_mass(span), layer, head) for span in (*self.spans, ANSWER_SO_FAR)}

    def matrix(self, span: str, token: int | None = None) -> Tensor:
        """Return the attention to a span in each layer and head: (L, H) float32, of one answer token or their mean."""
        mass = self.span_mass(span)
        return mass.mean(dim=-1) if token is None else mass[..., self.token(token)]

    def row(self, token: int, layer: int | None = None, head: int | None = None) -> Tensor:
        """Return the attention of one answer token: (P,) float32; a layer or head of None takes their mean."""
        return self._mean(self.weights[:, :, self.token(token)].float(), layer, head)

    def to_image(self, token: int, layer: int | None = None, head: int | None = None) -> Tensor:
        """Return the attention of one answer token to each cell: (grid, columns) float32, from the frame's top left.

        The cells cover the `frame`, which is the whole image in a GPT4RoI. Nothing is rescaled: the sum is the token's
        mass on the image, less what has no place.
        """
        return self.on_image(self.row(token, layer, head))

    def on_image(self, scores: Tensor) -> Tensor:
        """Arrange scores of the prompt tokens, such as a `rollout` or `relevancy` row: (…, P) → (…, grid, columns).

        Raises:
            ValueError: if the model's image tokens have no known places.
        """
        self.check_map()
        cells = scores[..., self.spans["image"]]
        if self.places is not None:
            cells = cells.float() @ self.places.T
        return rearrange(cells, "... (h w) -> ... h w", h=self.grid)

    def check_map(self) -> None:
        """Raise ValueError if the model's image tokens have no known places, so that there is no map."""
        if not self.grid:
            raise ValueError(
                "it is not known where the image's tokens of this model lie in the image, so there is no map; look at "
                "mass() and row() instead, and at occlusion() of the answer"
            )

    @property
    def columns(self) -> int:
        """Columns of the map over the image; 0 if there is none."""
        cells = len(self.spans["image"]) if self.places is None else len(self.places)
        return cells // self.grid if self.grid else 0

    def sinks(self) -> list[Sink]:
        """Find prompt tokens that draw attention whatever the content, the strongest first; see `sinks.find_sinks`."""
        return self._once("sinks", lambda replay: find_sinks(replay, self.spans, self.prompt_tokens)).sinks

    @property
    def sink_thresholds(self) -> dict[str, float]:
        """The thresholds of `sinks` in this pass: of attention, and of activations that would be outliers."""
        self.sinks()
        return dict(self._found["sinks"].thresholds)

    def rollout(self) -> Tensor:
        """Follow attention through all layers (Abnar & Zuidema 2020), averaged over heads: (A, P) float32.

        Each layer counts half for what it attends to and half for its residual connection. All layers and heads are
        used, whatever was recorded. What a row lacks to 1 goes to the answer so far.
        """
        return self._once("rollout", rollout)

    def relevancy(self, token: int) -> Tensor:
        """Compute the relevancy of each prompt token for one answer token (Chefer et al. 2021): (P,) float32, ≥ 0.

        Weighted by gradients: a layer contributes the mean over heads of the positive part of attention × the gradient
        of the token's logit. All layers and heads are used. The result is not normalised, and leaves out the token's
        own step.

        Raises:
            MemoryError: if the attention weights of all layers and their gradients do not fit; nothing is computed.
            RuntimeError: if the model gives no gradients, as some quantised ones, or for a token whose relevancy was
                not saved.
            WeightsChangedError: if the model has been trained since.
        """
        index = self.token(token)
        known: dict[int, Tensor] = self._found.setdefault("relevancy", {})
        if index not in known:
            with self._live("the relevancy of this token") as replay:
                known.update(relevancies(replay, [index]))
        return known[index]

    def token(self, token: int) -> int:
        """Check the index of an answer token, which may be negative; return it from 0."""
        count = len(self.tokens)
        token = whole_number(token, f"token, an index into the {count} answer tokens,")
        if not -count <= token < count:
            raise IndexError(f"the answer has {count} tokens, numbered from 0, but token is {token}")
        return token % count

    def save(self, path: str | os.PathLike[str], *, relevancy: bool = True) -> None:
        """Save all that is needed to draw it again, including rollout and sinks.

        After the model has been unloaded, what was computed before is written.

        Args:
            path: ends with `.npz` or `.safetensors`.
            relevancy: whether to include every token's relevancy, with one backward pass each.

        Raises:
            ValueError: for a name with another ending.
            FileNotFoundError: if its folder does not exist.
            MemoryError: if the passes do not fit.
        """
        if self._replay is not None and self._replay.loaded.is_loaded:
            self.rollout()
            self.sinks()
            if relevancy:
                known = self._found.setdefault("relevancy", {})
                with self._live("the relevancy of its tokens") as replay:
                    known.update(relevancies(replay, [t for t in range(len(self.tokens)) if t not in known]))
        tensors = {name: getattr(self, name) for name in _TENSORS}
        if self.places is not None:
            tensors["places"] = self.places
        about: dict[str, Any] = {name: getattr(self, name) for name in _ABOUT}
        about["regions"] = [[number, list(box)] for number, box in self.regions.items()]
        if "rollout" in self._found:
            tensors["rollout"] = self._found["rollout"]
        if "sinks" in self._found:
            about["sinks"] = asdict(self._found["sinks"])
        tensors |= {f"relevancy {index}": scores for index, scores in self._found.get("relevancy", {}).items()}
        write(path, KIND, tensors, self.image, about)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Attention:
        """Load what `save` wrote. Methods raise RuntimeError for what was not computed before.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not a saved attention.
        """
        tensors, image, about = read(path, KIND)
        with checking(path, KIND):
            return cls._made(tensors, image, about)

    @classmethod
    def _made(cls, tensors: dict[str, Tensor], image: Image.Image, about: dict[str, Any]) -> Attention:
        """Make it of what a file holds; raise ValueError for what is missing, of another type or does not fit."""
        own = get_type_hints(cls)
        hints = {name: own[name] for name in _ABOUT} | {
            "kind": str, "regions": list[tuple[int, Box]], "sinks": Sinks
        }  # fmt: skip
        values = typed_fields(about, hints, "its description", optional=("sinks", *_LATER))
        del values["kind"]
        found: dict[str, Any] = {"sinks": values.pop("sinks")} if "sinks" in values else {}
        values = {**_LATER, **values, "regions": dict(values["regions"])}
        tokens, prompt, spans = values["tokens"], values["prompt_tokens"], values["spans"]
        if sorted(position for span in spans.values() for position in span) != list(range(len(prompt))):
            raise ValueError(f"each of its {len(prompt)} prompt tokens must be in exactly one of its spans")
        if (
            "image" not in spans
            or min(values["image_size"]) < 1
            or not (tokens and values["layers"] and values["heads"])
        ):
            raise ValueError("it must have an image, a span of it, and at least one token, layer and head")
        relevancy = {f"relevancy {index}": index for index in range(len(tokens))}
        shapes = {
            "weights": "layers heads answer prompt", "to_answer": "layers heads answer written", "logprobs": "answer",
            "rollout": "answer prompt", "places": "cells image", **dict.fromkeys(relevancy, "prompt"),
        }  # fmt: skip
        if unknown := [name for name in tensors if name not in shapes]:
            raise ValueError(f"it holds {unknown[0]!r}, which is no part of an attention")
        check_shapes(
            tensors,
            [(name, axes) for name, axes in shapes.items() if name in _TENSORS or name in tensors],
            layers=len(values["layers"]), heads=len(values["heads"]), answer=len(tokens), prompt=len(prompt),
            image=len(spans["image"]),
        )  # fmt: skip
        values |= {name: tensors[name] for name in _TENSORS} | {"places": tensors.get("places")}
        found["relevancy"] = {index: tensors[name] for name, index in relevancy.items() if name in tensors}
        if "rollout" in tensors:
            found["rollout"] = tensors["rollout"]
        made = cls(**values, image=image, _found=found)
        cells = len(spans["image"]) if made.places is None else len(made.places)
        if made.grid < 0 or (made.grid and (not cells or cells % made.grid)):
            raise ValueError(f"the {cells} cells of its map must be in {made.grid} rows of one length")
        return made

    def _positions(self, span: str) -> list[int]:
        if span not in self.spans:
            raise KeyError(f"there is no span {span!r}; the spans are {', '.join((*self.spans, ANSWER_SO_FAR))}")
        return self.spans[span]

    def _mean(self, values: Tensor, layer: int | None, head: int | None) -> Tensor:
        """Take one layer or their mean, and one head or their mean: (L, H, …) → (…)."""
        return _one_or_mean(_one_or_mean(values, layer, self.layers, "layer"), head, self.heads, "head")

    @contextmanager
    def _live(self, what: str) -> Iterator[Replay]:
        """Give what runs the answer again, with the weights of then, which stay until the block ends."""
        if self.only:
            raise RuntimeError(f"{self.only}; {what} cannot be computed")
        if self._replay is None:
            raise RuntimeError(f"{what} was not saved with this attention; ask the model again to compute it")
        with self._replay.loaded.hold_weights():
            self.check_weights(self._replay.loaded, what)
            yield self._replay

    def check_weights(self, loaded: LoadedModel, what: str) -> None:
        """Raise WeightsChangedError if the model has been trained since the attention was recorded."""
        if self.weights_version not in (None, loaded.weights_version):
            raise WeightsChangedError(
                f"the model was trained after this attention was recorded, so {what} would mix old and new weights; "
                "ask the question again, and look at the new answer"
            )

    def _once(self, name: str, compute: Callable[[Replay], Any]) -> Any:
        if name not in self._found:
            with self._live(name) as replay:
                self._found[name] = compute(replay)
        return self._found[name]


def _one_or_mean(values: Tensor, number: int | None, known: Sequence[int], what: str) -> Tensor:
    if number is None:
        return values.mean(dim=0)
    if number not in known:
        raise IndexError(f"{what} {number!r} was not recorded; recorded: {', '.join(map(str, known))}")
    return values[known.index(number)]


def attention_of(
    replay: Replay,
    layers: Sequence[int] | int | None,
    heads: Sequence[int] | int | None,
    dtype: torch.dtype,
    limit: float,
) -> Attention:
    """See `Answer.attention`."""
    encoded, prompt = replay.encoded, replay.prompt
    model = encoded.loaded.model
    layers, heads, size = wanted_and_size(replay, layers, heads, dtype)
    check_size(size, limit, layers, heads, dtype)
    kept = size - map_bytes(model.config, model.dtype, forced_tokens(replay))  # check_pass adds one layer's itself
    check_pass(replay, "the attention needs", kept)
    weights, logprobs = record(replay, layers, heads, dtype)
    return Attention(
        weights=weights[..., : replay.length],
        to_answer=weights[..., replay.length :],
        tokens=list(replay.tokens),
        prompt_tokens=token_texts(prompt.input_ids, encoded.loaded.processor.tokenizer),
        spans=named_spans(prompt),
        logprobs=logprobs,
        layers=layers,
        heads=heads,
        grid=model.config.grid_size,
        image_size=encoded.size,
        image=small_image(encoded.image),
        regions=dict(sorted(zip(prompt.regions, replay.boxes, strict=True))),
        weights_version=encoded.loaded.weights_version,
        _replay=replay,
    )


def wanted_and_size(
    replay: Replay, layers: Sequence[int] | int | None, heads: Sequence[int] | int | None, dtype: torch.dtype
) -> tuple[list[int], list[int], int]:
    """Return the checked layers and heads, and the bytes that recording them needs."""
    if dtype not in (torch.float16, torch.float32):
        raise ValueError(f"dtype must be torch.float16 or torch.float32, but is {dtype}")
    text = replay.loaded.model.config.text_config
    layers = chosen(layers, text.num_hidden_layers, "layers")
    heads = chosen(heads, text.num_attention_heads, "heads")
    return layers, heads, attention_bytes(replay, layers, heads, dtype)
