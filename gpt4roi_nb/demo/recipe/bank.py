"""Scenes drawn once and kept on disk: what the demo checkpoint trains on, in any order, at the speed of memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gpt4roi_nb.data.scenes.out_of_domain import out_of_domain_images
from gpt4roi_nb.data.scenes.scene import Scene, SceneObject, make_scene, scene_seed, scenes
from gpt4roi_nb.files import replacing

# A patch belongs to the object that covers most of it, if that is at least this share of the patch.
PATCH_SHARE = 0.3
NO_OBJECT = -1
REPORT_EVERY = 1000
DRAWN_AT = (168, 336)  # sides of the images that are not of this world: half of them are drawn at each


@dataclass(frozen=True)
class SceneBank:
    """N scenes at one size.

    images: (N, S, S, 3) uint8 RGB. owners: (N, grid, grid) int8, the object that each patch shows, or `NO_OBJECT`.
    objects: for each scene what is in it; boxes are pixels of the kept image. series: from which they were drawn.
    """

    images: np.ndarray
    owners: np.ndarray
    objects: Sequence[tuple[SceneObject, ...]]
    series: int | None = None

    def __len__(self) -> int:
        return len(self.objects)

    @property
    def scenes(self) -> int:
        """How many scenes there are; images that are not of this world follow them."""
        return sum(map(bool, self.objects))

    def scene(self, index: int) -> Scene:
        """Scene `index`, for asking questions about; its masks are not kept."""
        image = self.images[index]
        seed = -1 if self.series is None else scene_seed(self.series, index)
        return Scene(image, np.zeros((0, *image.shape[:2]), bool), self.objects[index], seed)


def world_fingerprint(size: int) -> str:
    """Changes whenever the generated world draws other images for the same seeds."""
    digest = hashlib.sha256()
    for seed in range(4):
        digest.update(make_scene(seed, size=size).image.tobytes())
    return digest.hexdigest()[:16]


def load_or_draw(
    folder: Path,
    series: int,
    count: int,
    *,
    size: int,
    grid: int,
    n_objects: tuple[int, int],
    workers: int = 0,
    report: Callable[[str], None] = print,
) -> SceneBank:
    """Load the bank in `folder`; draw it first if it is missing or was drawn with other settings.

    Args:
        series, count, n_objects, workers: as `data.scenes.scenes` takes them.
        size: side of the images in pixels. grid: patches along a side.
    """
    about = {
        "series": series,
        "count": count,
        "size": size,
        "grid": grid,
        "n_objects": list(n_objects),
        "world": world_fingerprint(size),
    }
    if not (folder / "objects.json").exists() or json.loads((folder / "about.json").read_text()) != about:
        _draw(folder, about, workers, report)
    listed = json.loads((folder / "objects.json").read_text())
    objects = [tuple(_object(values) for values in scene) for scene in listed]
    return SceneBank(np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "owners.npy"), objects, series)


def _draw(folder: Path, about: dict, workers: int, report: Callable[[str], None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "objects.json").unlink(missing_ok=True)  # written last: its presence says that the bank is whole
    count, size, grid = about["count"], about["size"], about["grid"]
    images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(count, size, size, 3))
    owners = np.empty((count, grid, grid), np.int8)
    objects = []
    drawn = scenes(about["series"], count, size=size, n_objects=tuple(about["n_objects"]), workers=workers)
    for index, scene in enumerate(drawn):
        images[index] = scene.image
        owners[index] = patch_owners(scene.masks, grid)
        objects.append([asdict(thing) for thing in scene.objects])
        if (index + 1) % REPORT_EVERY == 0:
            report(f"{folder.name}: {index + 1} of {count} scenes drawn")
    images.flush()
    np.save(folder / "owners.npy", owners)
    (folder / "about.json").write_text(json.dumps(about))
    (folder / "objects.json").write_text(json.dumps(objects))


def with_out_of_domain(bank: SceneBank, folder: Path, series: int, count: int) -> SceneBank:
    """The scenes of a bank, and after them `count` images that are not of this world, with no objects.

    If `folder` does not hold these yet, they are drawn, half of them at each side of `DRAWN_AT`, and then resized.
    """
    size, grid = bank.images.shape[1], bank.owners.shape[1]
    path = folder / f"strangers-{series}-{count}-{size}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        drawn = [
            np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
            for part, larger in enumerate(DRAWN_AT)
            for image in out_of_domain_images(series + part, count // len(DRAWN_AT), size=larger)
        ]
        with replacing(path) as partial, partial.open("wb") as file:
            np.save(file, np.stack(drawn))
    others = np.load(path)
    return SceneBank(
        np.concatenate([bank.images, others]),
        np.concatenate([bank.owners, np.full((len(others), grid, grid), NO_OBJECT, np.int8)]),
        [*bank.objects, *[()] * len(others)],
        bank.series,
    )


def patch_owners(masks: np.ndarray, grid: int) -> np.ndarray:
    """masks: (N, S, S) bool, disjoint → (grid, grid) int8: index of the object that a patch shows, or `NO_OBJECT`."""
    count, size, _ = masks.shape
    patch = size // grid
    shares = masks.reshape(count, grid, patch, grid, patch).mean(axis=(2, 4))
    return np.where(shares.max(0) >= PATCH_SHARE, shares.argmax(0), NO_OBJECT).astype(np.int8)


def _object(values: dict) -> SceneObject:
    return SceneObject(**{**values, "box": tuple(values["box"]), "position": tuple(values["position"])})
