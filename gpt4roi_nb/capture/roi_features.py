"""What the region encoder computes for boxes, step by step, and what follows from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.boxes import Box, normalise
from gpt4roi_nb.capture.contributions import contributions, shares
from gpt4roi_nb.capture.logit_lens import LogitLens, read_words
from gpt4roi_nb.capture.pca import PCA, fit_components
from gpt4roi_nb.capture.similarity import Neighbours, cosine, nearest, similarity_map
from gpt4roi_nb.capture.storage import check_shapes, checking, float32_copy, read, small_image, write
from gpt4roi_nb.finite import nan_error
from gpt4roi_nb.inference.encoded_image import EncodedImage
from gpt4roi_nb.inference.loaded_model import WeightsChangedError
from gpt4roi_nb.typed import typed_fields

KIND = "region features"
LISTS = ("levels", "input_convs", "fused_maps", "pooled", "head_outputs")
_SINGLE = ("boxes", "content", "position_embedding", "tokens")
MAPS = ("levels", "input_convs", "fused_maps")
_ABOUT = {
    "kind": str, "image_size": tuple[int, int], "num_levels": int, "num_rounds": int | None, "parts": list[str],
    "lenses": dict[str, list[list[list[str]]]],
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class RoIFeatures:
    """What the region encoder computes for N boxes, step by step; all float32 on the CPU.

    Maps lie in the frame of the whole image, pooled grids in the frame of their box; both row by row from the top left.
    Levels are ordered from the shallowest; S_l is the side of level l's map, o that of RoIAlign's grid.

    Attributes:
        boxes: (N, 4) xyxy in [0, 1].
        levels: (C, grid, grid) per level: the tower's hidden states.
        input_convs: (R, S_l, S_l) per level: resized, with coordinates, through the level's first convolution.
        fused_maps: (R, S_l, S_l) per level: after the last round of mixing.
        fusion_rounds: such a list of maps per round; None if not requested.
        pooled: (N, R, o, o) per level: RoIAlign of the fused maps.
        head_outputs: (N, R, o, o) per level: the pooled grids through the level's convolution; their sum goes through
            ReLU.
        content: (N, E): that sum, flattened and projected.
        position_embedding: (N, E): what is added for the box's position.
        tokens: (N, D): the region tokens that the language model reads: content and position, projected once more.
        image: the image, at most 1024 pixels per side.
        image_size: (width, height) of the original.

    Examples:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> scene = make_scene(5)
        >>> gpt4roi = GPT4RoI.from_pretrained(device="cpu")
        >>> features = gpt4roi.session(scene.image).roi_features([thing.box for thing in scene.objects[:2]])
        >>> features.tokens.shape == (2, gpt4roi.model.config.text_config.hidden_size)
        True
        >>> features.similarity().shape, len(features.pooled) == len(features.levels)
        (torch.Size([2, 2]), True)
    """

    boxes: Tensor
    levels: list[Tensor]
    input_convs: list[Tensor]
    fused_maps: list[Tensor]
    fusion_rounds: list[list[Tensor]] | None
    pooled: list[Tensor]
    head_outputs: list[Tensor]
    content: Tensor
    position_embedding: Tensor
    tokens: Tensor
    image: Image.Image = field(repr=False)
    image_size: tuple[int, int]
    weights_version: int | None = field(default=None, repr=False)  # of the model then; None in a saved file
    _encoded: EncodedImage | None = field(default=None, repr=False)
    _found: dict[str, Any] = field(default_factory=dict, repr=False)  # what was computed once

    def pca(self, of: str = "fused_maps", n: int = 3, others: Sequence[RoIFeatures] = ()) -> PCA:
        """Fit the n main components of features, shared by all levels (and `others`), so that colours can be compared.

        Args:
            of: "levels", "input_convs" or "fused_maps", in the frame of the image, or "pooled", in that of the boxes.
            n: number of components.
            others: features of other boxes or images to fit as well.

        Raises:
            ValueError: for other features, a bad n, or fewer than 2 vectors.
        """
        if of not in (*MAPS, "pooled"):
            raise ValueError(f"of must be one of {', '.join((*MAPS, 'pooled'))}, but is {of!r}")
        return fit_components([self, *others], of, n)

    def norms(self) -> dict[str, Any]:
        """Compute the Euclidean norm of each vector.

        Returns:
            {"levels": [(grid, grid) …], "input_convs": [(S_l, S_l) …], "fused_maps": …, "pooled": [(N, o, o) …],
            "head_outputs": …, "content": (N,), "position_embedding": (N,), "tokens": (N,)}.
        """
        norms: dict[str, Any] = {name: [each.norm(dim=-3) for each in getattr(self, name)] for name in LISTS}
        return norms | {name: getattr(self, name).norm(dim=-1) for name in _SINGLE[1:]}

    def similarity(self, other: RoIFeatures | None = None) -> Tensor:
        """Compute (N, M) cosines between the region tokens and those of `other`, or one another.

        Tokens have a large part in common, so all cosines may be near 1: compare them only with each other.
        """
        return cosine(self.tokens, (self if other is None else other).tokens)

    def similarity_map(self, region: int, of: str = "fused_maps", level: int = -1) -> Tensor:
        """Show what else looks like a region: cosines between it and every place of a level's map.

        The region is the mean of the map inside its box (RoIAlign). The map's mean over all places is subtracted from
        both, since what all places have in common says nothing.

        Args:
            region: row of `boxes`.
            of: "levels", "input_convs" or "fused_maps".
            level: which level; negative ones count from the end.

        Returns:
            (S, S).

        Raises:
            ValueError: for other maps.
            IndexError: for a region or level that does not exist.
        """
        if of not in MAPS:
            raise ValueError(f"of must be one of {', '.join(MAPS)}, but is {of!r}")
        maps: list[Tensor] = getattr(self, of)
        if not -len(maps) <= level < len(maps):
            raise IndexError(f"there are {len(maps)} levels, numbered from 0, but level is {level}")
        return similarity_map(maps[level], self.boxes[self._region(region)])

    def nearest(
        self, bank: RoIFeatures | Sequence[RoIFeatures] | Tensor, k: int = 5, labels: Sequence[Any] | None = None
    ) -> Neighbours:
        """Find the k regions of a bank whose tokens are most like each of these.

        Args:
            bank: features, several of them, or (M, D) tokens.
            k: neighbours per region.
            labels: of the M regions of the bank; None numbers them from 0.

        Raises:
            ValueError: if the bank, the labels or k do not fit.
        """
        if isinstance(bank, RoIFeatures):
            bank = bank.tokens
        elif not isinstance(bank, Tensor):
            bank = torch.cat([features.tokens for features in bank])
        return nearest(self.tokens, bank, k, labels)

    def contribution(self) -> dict[str, Tensor]:
        """Split the tokens into parts that add up to them exactly.

        The ReLU after the levels' sum is kept fixed: what it lets through counts for each level, what it stops for
        none. So a part says what a level adds here, not what would be left without it. In half precision, the sum is
        exact up to rounding. "bias" is what the constants of the levels and projections give; "position" is the
        position embedding through the last projection.

        Returns:
            {"level 0": (N, D), …, "position": (N, D), "bias": (N, D)}.

        Raises:
            RuntimeError: for features from a file without these parts.
            WeightsChangedError: if the model has been trained since.
        """
        return self._once(
            "contribution",
            lambda encoded: contributions(
                encoded.loaded.model.region_encoder.head, self.head_outputs, self.position_embedding
            ),
        )

    def shares(self) -> dict[str, Tensor]:
        """Compute the length of each part of `contribution` along the token, divided by the token's own length.

        Returns:
            (N,) per part; they sum to 1. A part that points the other way is negative.
        """
        return shares(self.contribution())

    def logit_lens(self, k: int = 5, of: str = "regions") -> LogitLens:
        """Find the k words nearest to each region or image token after every layer; see `logit_lens.LogitLens`.

        Args:
            k: words per token.
            of: "regions", N rows, each in the prompt of a question about that region alone; or "image", grid² rows.

        Raises:
            ValueError: for another `of`, or k below 1.
            RuntimeError: for features from a file without these words.
            WeightsChangedError: if the model has been trained since.
        """
        if of not in ("regions", "image"):
            raise ValueError(f'of must be "regions" or "image", but is {of!r}')
        k = whole_number(k, "k", least=1)
        lens = self._once(f"lens {of} {k}", lambda encoded: read_words(encoded, self.pixel_boxes, of, k))
        return lens  # noqa: RET504 (its type is LogitLens)

    @property
    def pixel_boxes(self) -> list[Box]:
        """The boxes, pixel xyxy in the original image."""
        width, height = self.image_size
        return [tuple(box) for box in (self.boxes * torch.tensor([width, height, width, height])).tolist()]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save all that is needed to draw it again, including the contributions.

        Of `logit_lens`, only earlier results are saved; after `unload`, this holds for everything else as well.

        Args:
            path: ends with `.npz` or `.safetensors`.

        Raises:
            ValueError: for a name with another ending.
            FileNotFoundError: if its folder does not exist.
        """
        if self._encoded is not None and self._encoded.loaded.is_loaded:
            self.contribution()
        tensors = {name: getattr(self, name) for name in _SINGLE}
        for name in LISTS:
            tensors |= {f"{name} {index}": each for index, each in enumerate(getattr(self, name))}
        for number, maps in enumerate(self.fusion_rounds or []):
            tensors |= {f"round {number} {index}": each for index, each in enumerate(maps)}
        tensors |= {f"part {name}": part for name, part in self._found.get("contribution", {}).items()}
        about: dict[str, Any] = {
            "image_size": self.image_size,
            "num_levels": len(self.levels),
            "num_rounds": None if self.fusion_rounds is None else len(self.fusion_rounds),
            "parts": list(self._found.get("contribution", {})),
            "lenses": {},
        }
        for name, lens in self._found.items():
            if isinstance(lens, LogitLens):
                about["lenses"][name] = lens.words
                tensors[name] = lens.probabilities
        write(path, KIND, tensors, self.image, about)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RoIFeatures:
        """Load what `save` wrote. Methods raise RuntimeError for what was not computed before.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it does not hold saved region features.
        """
        tensors, image, about = read(path, KIND)
        with checking(path, KIND):
            return cls._made(tensors, image, about)

    @classmethod
    def _made(cls, tensors: dict[str, Tensor], image: Image.Image, about: dict[str, Any]) -> RoIFeatures:
        """Make it of what a file holds; raise ValueError for what is missing, of another type or does not fit."""
        about = typed_fields(about, _ABOUT, "its description")
        levels, rounds, lenses = range(about["num_levels"]), about["num_rounds"], about["lenses"]
        if not levels or min(about["image_size"]) < 1 or (rounds is not None and rounds < 0):
            raise ValueError("it must have an image, at least one level, and no or more rounds")
        if not all(name.startswith("lens ") for name in lenses):
            raise ValueError(f"its lenses must be named 'lens regions …' or 'lens image …', but are {list(lenses)}")
        check_shapes(tensors, _shapes(levels, range(rounds or 0), about["parts"], lenses))
        if not ((tensors["boxes"] >= 0) & (tensors["boxes"] <= 1)).all():
            raise ValueError("its boxes must lie between 0 and 1")
        found: dict[str, Any] = {name: LogitLens(words, tensors[name]) for name, words in lenses.items()}
        for name, lens in found.items():
            layers, rows, k = lens.probabilities.shape
            if [[len(row) for row in layer] for layer in lens.words] != [[k] * rows] * layers:
                raise ValueError(f"the words of {name!r} must be as many as its probabilities, {layers} × {rows} × {k}")
        if about["parts"]:
            found["contribution"] = {name: tensors[f"part {name}"] for name in about["parts"]}
        values: dict[str, Any] = {name: tensors[name] for name in _SINGLE}
        values |= {name: [tensors[f"{name} {index}"] for index in levels] for name in LISTS}
        values["fusion_rounds"] = None
        if rounds is not None:
            values["fusion_rounds"] = [[tensors[f"round {n} {index}"] for index in levels] for n in range(rounds)]
        return cls(**values, image=image, image_size=about["image_size"], _found=found)

    def _region(self, region: int) -> int:
        region = whole_number(region, "region")
        if not -len(self.boxes) <= region < len(self.boxes):
            raise IndexError(f"there are {len(self.boxes)} regions, rows numbered from 0, but region is {region}")
        return region

    def _once(self, name: str, compute: Callable[[EncodedImage], Any]) -> Any:
        if name not in self._found:
            if self._encoded is None:
                raise RuntimeError(
                    f"{name!r} was not saved with these features; record them again in a session to compute it"
                )
            with self._encoded.loaded.hold_weights():
                if self._encoded.loaded.weights_version != self.weights_version:
                    raise WeightsChangedError(
                        f"the model was trained after these features were recorded, so {name!r} would mix old and new "
                        "weights; record the features again (RegionSession.roi_features)"
                    )
                self._found[name] = compute(self._encoded)
        return self._found[name]


def _shapes(
    levels: Iterable[int], rounds: Iterable[int], parts: Iterable[str], lenses: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """The axes of each tensor in a file; see `RoIFeatures`."""
    yield from {
        "boxes": "regions 4", "content": "regions embedding", "position_embedding": "regions embedding",
        "tokens": "regions token",
    }.items()  # fmt: skip
    for level in levels:
        side = f"side{level}"
        yield f"levels {level}", "channels grid grid"
        yield from ((f"{name} {level}", f"features {side} {side}") for name in ("input_convs", "fused_maps"))
        yield from ((f"{name} {level}", "regions features bins bins") for name in ("pooled", "head_outputs"))
    yield from ((f"round {n} {level}", f"features side{level} side{level}") for n in rounds for level in levels)
    yield from ((f"part {name}", "regions token") for name in parts)
    yield from ((name, f"layers rows-{name.replace(' ', '-')} k-{name.replace(' ', '-')}") for name in lenses)


@torch.inference_mode()
def record_roi_features(encoded: EncodedImage, boxes: Sequence[Box], *, rounds: bool = False) -> RoIFeatures:
    """Record the features of boxes, pixel xyxy, checked, on one encoded image. rounds: whether to keep their maps.

    Raises:
        FloatingPointError: if the model computes NaN or infinity.
    """
    model, encoding = encoded.loaded.model, encoded.encoding
    fusion, head = model.region_encoder.fusion, model.region_encoder.head
    normalised = torch.from_numpy(normalise(boxes, *encoded.size))
    given = [normalised.to(encoding.fused_maps[0].device)]
    pooled = head.pool(encoding.fused_maps, given)
    content = head.content(pooled)
    position = head.position(given, content.dtype)
    maps = inputs = fusion.project(encoding.levels)
    kept = []
    for fusion_round in fusion.rounds if rounds else ():
        maps = [fusion_round(mixed) for mixed in fusion.mix(maps)]
        kept.append([float32_copy(level[0]) for level in maps])
    tokens = head.output_projection(content + position)
    if not all(torch.isfinite(each).all() for each in (*encoding.fused_maps, tokens)):
        raise nan_error(model, "region features")
    grid = model.config.grid_size
    return RoIFeatures(
        boxes=float32_copy(normalised),
        levels=[float32_copy(rearrange(level[0], "(h w) c -> c h w", h=grid)) for level in encoding.levels],
        input_convs=[float32_copy(level[0]) for level in inputs],
        fused_maps=[float32_copy(level[0]) for level in encoding.fused_maps],
        fusion_rounds=kept if rounds else None,
        pooled=[float32_copy(level) for level in pooled],
        head_outputs=[float32_copy(conv(level)) for conv, level in zip(head.level_convs, pooled, strict=True)],
        content=float32_copy(content),
        position_embedding=float32_copy(position),
        tokens=float32_copy(tokens),
        image=small_image(encoded.image),
        image_size=encoded.size,
        weights_version=encoded.loaded.weights_version,
        _encoded=encoded,
    )
