"""What the region encoder makes of boxes, step by step, and what can be read off it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.boxes import Box, normalise
from gpt4roi_nb.capture.contributions import contributions, plain, shares
from gpt4roi_nb.capture.logit_lens import LogitLens, read_words
from gpt4roi_nb.capture.pca import PCA, fit_components
from gpt4roi_nb.capture.similarity import Neighbours, cosine, nearest, similarity_map
from gpt4roi_nb.capture.storage import read, small_picture, write
from gpt4roi_nb.inference.encoded_image import EncodedImage
from gpt4roi_nb.inference.loaded_model import WeightsChangedError

KIND = "region features"
LISTS = ("levels", "input_convs", "fused_maps", "pooled", "head_outputs")
_SINGLE = ("boxes", "content", "position_embedding", "tokens")
MAPS = ("levels", "input_convs", "fused_maps")


@dataclass(frozen=True, eq=False)
class RoIFeatures:
    """What the region encoder makes of N boxes, step by step; all float32 on the CPU.

    Maps lie in the frame of the whole picture, pooled grids each in the frame of its box; both row by row from the top
    left. Levels come shallowest first; S_l is the side of level l's map, o that of RoIAlign's grid.

    boxes: (N, 4) xyxy in [0, 1].
    levels: (C, grid, grid) a level: the tower's hidden states.
    input_convs: (R, S_l, S_l) a level: resized, with coordinates, through the level's first convolution.
    fused_maps: (R, S_l, S_l) a level: after the last round of mixing.
    fusion_rounds: such a list of maps for each round, or None where it was not asked for.
    pooled: (N, R, o, o) a level: RoIAlign of the fused maps.
    head_outputs: (N, R, o, o) a level: the pooled grids through the level's convolution; their sum goes through ReLU.
    content: (N, E): that sum, flattened and projected. position_embedding: (N, E): what is added for the box's place.
    tokens: (N, D): the region tokens, as the language model reads them: content and position projected once more.
    image: the picture, at most 1024 pixels a side. image_size: (width, height) of the original.
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
        """The n main components of features, shared over all levels (and `others`), so that colours compare.

        of: "levels", "input_convs" or "fused_maps", in the picture's frame, or "pooled", in the boxes'.
        """
        if of not in (*MAPS, "pooled"):
            raise ValueError(f"of must be one of {', '.join((*MAPS, 'pooled'))}, but is {of!r}")
        return fit_components([self, *others], of, n)

    def norms(self) -> dict[str, Any]:
        """Euclidean norm of each vector: {"levels": [(grid, grid) …], "input_convs": [(S_l, S_l) …], "fused_maps": …,
        "pooled": [(N, o, o) …], "head_outputs": …, "content": (N,), "position_embedding": (N,), "tokens": (N,)}."""
        norms: dict[str, Any] = {name: [each.norm(dim=-3) for each in getattr(self, name)] for name in LISTS}
        return norms | {name: getattr(self, name).norm(dim=-1) for name in _SINGLE[1:]}

    def similarity(self, other: RoIFeatures | None = None) -> Tensor:
        """(N, M) cosines of the region tokens, with those of `other` or with one another.

        Tokens share a large common part, so that all cosines may be near 1: compare them with one another.
        """
        return cosine(self.tokens, (self if other is None else other).tokens)

    def similarity_map(self, region: int, of: str = "fused_maps", level: int = -1) -> Tensor:
        """What else looks like a region: (S, S) cosines between it and every place of a level's map.

        The region is the mean of the map inside its box (RoIAlign). The map's mean over all places is subtracted from
        both: what all places share says nothing. region: row of `boxes`. of: "levels", "input_convs" or "fused_maps".
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
        """The k regions of a bank whose tokens are most like each of these.

        bank: features, several of them, or (M, D) tokens. labels: of its M regions; None numbers them.
        """
        if isinstance(bank, RoIFeatures):
            bank = bank.tokens
        elif not isinstance(bank, Tensor):
            bank = torch.cat([features.tokens for features in bank])
        return nearest(self.tokens, bank, k, labels)

    def contribution(self) -> dict[str, Tensor]:
        """The tokens in parts that add up to them exactly: {"level 0": (N, D), …, "position": (N, D), "bias": (N, D)}.

        The ReLU after the levels' sum is held as it is: what it lets through counts for each level, what it stops for
        none; in half precision they add up to its rounding. So a part says what a level adds here, not what would be
        left without it. "bias" is all that the levels' and projections' constants give; "position" is the box's place
        through the last projection.
        """
        return self._once(
            "contribution",
            lambda encoded: contributions(
                encoded.loaded.model.region_encoder.head, self.head_outputs, self.position_embedding
            ),
        )

    def shares(self) -> dict[str, Tensor]:
        """Length of each part of `contribution` along the token, divided by the token's: (N,) each; they sum to 1.
        One that points the other way is negative."""
        return shares(self.contribution())

    def logit_lens(self, k: int = 5, of: str = "regions") -> LogitLens:
        """The k words nearest to each region token, or each image token, after every layer; see `lens.LogitLens`.

        of: "regions", N rows, each read in the prompt of a question about that region alone; or "image", grid² rows.
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
        """Writes all that is needed to draw it again as `.npz` or `.safetensors`, the contributions included.

        Of `logit_lens`, what was asked for before is written, and after `unload` of all else, too.
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
        """What `save` wrote. What was not computed by then is an error when asked for.

        Raises:
            FileNotFoundError, ValueError: there is no such file, or it is none of these.
        """
        tensors, image, about = read(path, KIND)
        levels, rounds = range(about["num_levels"]), about["num_rounds"]
        found: dict[str, Any] = {name: LogitLens(words, tensors[name]) for name, words in about["lenses"].items()}
        if about["parts"]:
            found["contribution"] = {name: tensors[f"part {name}"] for name in about["parts"]}
        values: dict[str, Any] = {name: tensors[name] for name in _SINGLE}
        values |= {name: [tensors[f"{name} {index}"] for index in levels] for name in LISTS}
        values["fusion_rounds"] = None
        if rounds is not None:
            values["fusion_rounds"] = [[tensors[f"round {n} {index}"] for index in levels] for n in range(rounds)]
        return cls(**values, image=image, image_size=tuple(about["image_size"]), _found=found)

    def _region(self, region: int) -> int:
        if not isinstance(region, int) or not -len(self.boxes) <= region < len(self.boxes):
            raise IndexError(f"there are {len(self.boxes)} regions, rows numbered from 0, but region is {region!r}")
        return region

    def _once(self, name: str, compute: Callable[[EncodedImage], Any]) -> Any:
        if name not in self._found:
            if self._encoded is None:
                raise RuntimeError(
                    f"{name!r} was not saved with these features; take them from a session to compute it"
                )
            with self._encoded.loaded.hold_weights():
                if self._encoded.loaded.weights_version != self.weights_version:
                    raise WeightsChangedError(
                        f"the model was trained after these features were recorded, so that {name!r} would mix old and "
                        "new weights; take the features again (RegionSession.roi_features)"
                    )
                self._found[name] = compute(self._encoded)
        return self._found[name]


@torch.inference_mode()
def record_roi_features(encoded: EncodedImage, boxes: Sequence[Box], *, rounds: bool = False) -> RoIFeatures:
    """Features of boxes on one encoded image. boxes: pixel xyxy, checked. rounds: keep each round's maps."""
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
        kept.append([plain(level[0]) for level in maps])
    grid = model.config.grid_size
    return RoIFeatures(
        boxes=plain(normalised),
        levels=[plain(rearrange(level[0], "(h w) c -> c h w", h=grid)) for level in encoding.levels],
        input_convs=[plain(level[0]) for level in inputs],
        fused_maps=[plain(level[0]) for level in encoding.fused_maps],
        fusion_rounds=kept if rounds else None,
        pooled=[plain(level) for level in pooled],
        head_outputs=[plain(conv(level)) for conv, level in zip(head.level_convs, pooled, strict=True)],
        content=plain(content),
        position_embedding=plain(position),
        tokens=plain(head.output_projection(content + position)),
        image=small_picture(encoded.image),
        image_size=encoded.size,
        weights_version=encoded.loaded.weights_version,
        _encoded=encoded,
    )
