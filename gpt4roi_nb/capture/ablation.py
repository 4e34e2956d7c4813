"""Change something about a region and score the same answer again: the check that a map has to pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.batches import BatchSize
from gpt4roi_nb.boxes import Box, checked_boxes, normalise
from gpt4roi_nb.capture.recording import forced_tokens
from gpt4roi_nb.capture.replay import Replay
from gpt4roi_nb.capture.storage import float32_copy
from gpt4roi_nb.memory import work_bytes

How = Literal["remove", "blur", "swap", "move", "position_only", "feature_only"]
ABLATIONS: tuple[How, ...] = get_args(How)
BASELINES = ("mean", "zero")
MORE_TOKENS = 16  # by which a new answer may be longer than the old one
Places = tuple[int, int, int, int]  # left, top, right, bottom, in places of a grid over an image
REFERENCE_SIDES = (2, 3, 4)  # the image is cut into this many boxes per side, and all of them are reference boxes


@dataclass(frozen=True, eq=False)
class Ablation:
    """An answer before and after something about a region was changed.

    Attributes:
        how, region, baseline: what was changed; see `Answer.ablate`.
        box: the box whose token took the region's place, pixel xyxy; None if there is none.
        tokens: text of each of the answer's A tokens.
        before, after: (A,) float32, natural log-probability of each of them, given the answer before it.
        answer: the new answer; None if none was requested.

    Examples:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> scene = make_scene(5)
        >>> session = GPT4RoI.from_pretrained(device="cpu").session(scene.image)
        >>> answer = session.ask("What colour is <region1>?", [scene.objects[0].box])
        >>> ablation = answer.ablate(1, "remove", generate=False)
        >>> ablation.change.shape == (len(answer.tokens),)
        True
        >>> ablation.verdict()
        'without region 1 the log-probability of the answer ...'
    """

    how: str
    region: int
    baseline: str
    box: Box | None
    tokens: list[str]
    before: Tensor
    after: Tensor
    answer: str | None

    @property
    def change(self) -> Tensor:
        """(A,) after - before; negative where the answer needed what was changed."""
        return self.after - self.before

    def verdict(self, token: int | None = None) -> str:
        """Say the change in words: "without region 1 the log-probability of 'red' falls by 3.1".

        Args:
            token: index of an answer token; None takes the whole answer.
        """
        change = float(self.change.sum() if token is None else self.change[token])
        of = "the answer" if token is None else repr(self.tokens[token].strip())
        if abs(change) < 0.005:
            moved = "stays the same"
        elif abs(change) < 0.05:
            moved = f"hardly changes ({change:+.2f})"
        else:
            moved = f"{'falls' if change < 0 else 'rises'} by {abs(change):.1f}"
        return f"{_CONDITIONS[self.how].format(self.region)} the log-probability of {of} {moved}"


_CONDITIONS = {
    "remove": "without region {}",
    "blur": "with region {} blurred",
    "swap": "with another region's token for region {}",
    "move": "with region {} moved elsewhere",
    "position_only": "with only the position of region {}",
    "feature_only": "without the position of region {}",
}


@torch.inference_mode()
def ablate(
    replay: Replay,
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
    if how not in ABLATIONS:
        raise ValueError(f"how must be one of {', '.join(ABLATIONS)}, but is {how!r}")
    if baseline not in BASELINES:
        raise ValueError(f"baseline must be one of {', '.join(BASELINES)}, but is {baseline!r}")
    _check_unused(how, other, box)
    position, own = replay.region(region)
    prompt = replay.embeddings()
    changed = prompt.clone()
    target: Box | None = None
    if how == "blur":
        changed = replay.encoded.of(blurred(replay.encoded.image, own)).embed(replay.prompt, replay.boxes)
    elif how == "swap" and box is None:
        there, target = _other(replay, region, other)
        changed[:, [position, there]] = prompt[:, [there, position]]
    elif how in ("swap", "move"):
        target = _checked(replay, box) if box is not None else farthest_corner(own, replay.encoded.size)
        changed[:, position] = replay.encoded.region_tokens([target]).to(changed.dtype)
    else:
        changed[:, position] = _region_token(replay, own, how, baseline).to(changed.device, changed.dtype)
    before, after = replay.log_probabilities(torch.cat([prompt, changed]))
    answer = None
    if generate:
        answer = replay.answer(changed, len(replay.ids) + MORE_TOKENS if max_new_tokens is None else max_new_tokens)
    return Ablation(
        how, region, baseline, target, list(replay.tokens), float32_copy(before), float32_copy(after), answer
    )


def _check_unused(how: str, other: int | None, box: Box | None) -> None:
    if other is not None and (how != "swap" or box is not None):
        raise ValueError('other=… goes only with how="swap", and not together with box=…')
    if box is not None and how not in ("swap", "move"):
        raise ValueError(f'box=… goes with how="swap" or "move", but how is {how!r}')


def _other(replay: Replay, region: int, other: int | None) -> tuple[int, Box]:
    """Return prompt position and box of the region to exchange with."""
    regions = sorted(replay.prompt.regions)
    if other is None:
        if len(regions) < 2:
            raise ValueError(
                'the prompt has only one region, so there is none to swap it with; give box=…, or use how="move"'
            )
        other = regions[(regions.index(region) + 1) % len(regions)]
    if other == region:
        raise ValueError(f"region {region} cannot be swapped with itself; give another number as other=…")
    return replay.region(other)


def _checked(replay: Replay, box: Box) -> Box:
    (checked,) = checked_boxes([box], *replay.encoded.size, what="box")
    return checked


def farthest_corner(box: Box, size: tuple[int, int]) -> Box:
    """Return a box of the same size in the corner of the image that is farthest from it."""
    (x1, y1, x2, y2), (width, height) = box, size
    left, top = 0.0 if x1 + x2 > width else width - (x2 - x1), 0.0 if y1 + y2 > height else height - (y2 - y1)
    return left, top, left + x2 - x1, top + y2 - y1


def blurred(image: Image.Image, box: Box) -> Image.Image:
    """Blur an image inside a box, so strongly that only its mean colours are left."""
    left, top = int(np.floor(box[0])), int(np.floor(box[1]))
    right, bottom = int(np.ceil(box[2])), int(np.ceil(box[3]))
    # Only pixels inside are mixed, so that their surroundings do not leak in.
    inside = image.crop((left, top, right, bottom))
    copy = image.copy()
    # Along each side in proportion to its length, or a long box would keep details along it.
    radius = (inside.width / 2, inside.height / 2)
    copy.paste(inside.filter(ImageFilter.GaussianBlur(radius)), (left, top))
    return copy


def reference_boxes(size: tuple[int, int], away_from: Box) -> list[Box]:
    """Return the boxes of a regular set in an image that do not touch a given box; all of the set if each does."""
    width, height = size
    boxes = [
        (width * column / side, height * row / side, width * (column + 1) / side, height * (row + 1) / side)
        for side in REFERENCE_SIDES
        for row in range(side)
        for column in range(side)
    ]
    x1, y1, x2, y2 = away_from
    free = [box for box in boxes if box[2] <= x1 or box[0] >= x2 or box[3] <= y1 or box[1] >= y2]
    return free or boxes


def mean_region(replay: Replay, away_from: Box) -> Tensor:
    """Compute the mean region token of the reference boxes: (1, D)."""
    return replay.encoded.region_tokens(reference_boxes(replay.encoded.size, away_from)).mean(dim=0, keepdim=True)


def _region_token(replay: Replay, own: Box, how: str, baseline: str) -> Tensor:
    """Compute the region's token, (1, D), with all or a part of it replaced by the baseline."""
    mean = baseline == "mean"
    if how == "remove":
        token = mean_region(replay, own)
        return token if mean else torch.zeros_like(token)
    head = replay.loaded.model.region_encoder.head
    boxes = [own, *(reference_boxes(replay.encoded.size, own) if mean else [])]
    maps = replay.encoded.encoding.fused_maps
    given = [torch.from_numpy(normalise(boxes, *replay.encoded.size)).to(maps[0].device)]
    content = head.content(head.pool(maps, given))
    position = head.position(given, content.dtype)

    def instead(values: Tensor) -> Tensor:
        return values[1:].mean(dim=0, keepdim=True) if mean else torch.zeros_like(values[:1])

    if how == "position_only":
        return head.output_projection(instead(content) + position[:1])
    return head.output_projection(content[:1] + instead(position))


@torch.inference_mode()
def occlusion(replay: Replay, patch: int, token: int | str | None, batch_size: int) -> Tensor:
    """See `Answer.occlusion`."""
    encoded = replay.encoded
    grid = encoded.loaded.model.config.grid_size
    patch = whole_number(patch, "patch", least=1)
    if patch > grid:
        raise ValueError(f"patch must be a whole number of places, from 1 to {grid}, but is {patch}")
    batch_size = whole_number(batch_size, "batch_size", least=1)
    token = check_token(token, len(replay.tokens))
    boxes, shape = squares(grid, grid, patch)
    batch = BatchSize(min(batch_size, len(boxes)), "covered images")
    batch.fit(encoded.loaded, lambda size: occlusion_bytes(replay, size))
    (whole,) = replay.log_probabilities(replay.embeddings())

    def drops(part: slice) -> Tensor:
        images = [covered(encoded.image, box, grid, grid) for box in boxes[part]]
        return whole - replay.log_probabilities(embed_images(replay, images), batch)

    return of_token(torch.cat(list(batch.run(len(boxes), drops))), token, shape)


def check_token(token: int | str | None, count: int) -> int | str | None:
    """Check that a token is None, "each" or an index into `count` answer tokens, and return it.

    Raises:
        IndexError: for an index of none of them.
        TypeError: for anything else.
    """
    if token is None or token == "each":
        return token
    index = whole_number(token, 'token, if it is neither None nor "each",')
    if not -count <= index < count:
        raise IndexError(f'token must be None, "each" or one of the {count} answer tokens, but is {index}')
    return index


def squares(rows: int, columns: int, patch: int) -> tuple[list[Places], tuple[int, int]]:
    """Cut a grid into squares of `patch` × `patch` places, smaller at the right and lower edge.

    Returns:
        The squares, row by row, and how many (rows, columns) of them there are.
    """
    down, across = range(0, rows, patch), range(0, columns, patch)
    boxes = [(x, y, min(x + patch, columns), min(y + patch, rows)) for y in down for x in across]
    return boxes, (len(down), len(across))


def of_token(drops: Tensor, token: int | str | None, shape: tuple[int, int]) -> Tensor:
    """Arrange the drops of each square, (squares, A), as a map of one token, of the whole answer or of each token."""
    each = float32_copy(drops.T.reshape(drops.shape[1], *shape))
    if token == "each":
        return each
    return float32_copy(each.sum(dim=0)) if token is None else each[token]  # type: ignore[index]


def occlusion_bytes(replay: Replay, batch_size: int) -> int:
    """Compute the most bytes that `occlusion` takes with this many images at a time."""
    return work_bytes(
        replay.loaded.model,
        rows=batch_size,
        images=batch_size,
        tokens=forced_tokens(replay),
        cached=0,
        logits=len(replay.tokens),
    )


def embed_images(replay: Replay, images: Sequence[Image.Image]) -> Tensor:
    """Embed the prompt about each of B images of the same size: (B, P, D)."""
    processor = replay.loaded.processor.image_processor
    pixel_values = torch.stack([processor.pixels(image) for image in images])
    with replay.loaded.inference() as model:
        encoding = model.encode_image(pixel_values)
        regions = None
        if replay.boxes:
            boxes = torch.from_numpy(normalise(replay.boxes, *replay.encoded.size))
            regions = model.encode_regions(encoding.fused_maps, [boxes] * len(images))
        ids = torch.tensor([replay.prompt.input_ids] * len(images), device=replay.loaded.device)
        return model.embed(ids, encoding.image_features, regions)


def covered(image: Image.Image, places: Places, rows: int, columns: int) -> Image.Image:
    """Paint a rectangle of places of an image, which has so many rows and columns of them, in its mean colour."""
    width, height = image.size
    left, right = round(places[0] * width / columns), round(places[2] * width / columns)
    top, bottom = round(places[1] * height / rows), round(places[3] * height / rows)
    mean = np.asarray(image).reshape(-1, 3).mean(axis=0).round().astype(int)
    copy = image.copy()
    copy.paste(tuple(mean.tolist()), (left, top, right, bottom))
    return copy
