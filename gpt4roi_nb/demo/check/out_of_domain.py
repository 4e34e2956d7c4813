"""Measure whether images that are not of the generated world are recognised: those of matplotlib and scikit-image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from gpt4roi_nb.data.scenes.open_questions import about_out_of_domain
from gpt4roi_nb.data.scenes.open_scoring import says_out_of_domain
from gpt4roi_nb.data.scenes.out_of_domain import out_of_domain_images
from gpt4roi_nb.data.scenes.scene import Scene, scenes
from gpt4roi_nb.demo.check.queries import Answerer, Asked, query_of
from gpt4roi_nb.images import load_image

# Folders of images in packages, which training has not seen: photographs, drawings, micrographs, pages, textures.
LIBRARIES = {"matplotlib": ("mpl-data/sample_data", "mpl-data/images"), "skimage": ("data",)}
SUFFIXES = (".png", ".jpg", ".gif")
LEAST_SIDE = 48  # pixels; smaller ones are buttons
QUESTIONS = 6  # per image
DRAWN, SIZE = 60, 168  # number of images that are drawn, of fresh seeds, and their side in pixels
TOGETHER = 4  # images at a time
LIBRARY_IMAGES, DRAWN_IMAGES = "images of libraries", "images drawn afresh"


def library_images() -> list[Path]:
    """Return the image files in installed packages that are large enough to show something, by name."""
    found = []
    for package, folders in LIBRARIES.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        for folder in folders:
            place = Path(spec.origin).parent / folder
            found += sorted(path for path in place.glob("*") if path.suffix in SUFFIXES)
    return [path for path in found if min(load_image(path).size) >= LEAST_SIDE]


def measure_out_of_domain(answer: Answerer, seed: int) -> dict[str, float]:
    """Measure the share of questions about images of other worlds whose answer says that they are.

    Half of the questions are in wordings that training never sees.

    Returns:
        `LIBRARY_IMAGES`, `DRAWN_IMAGES`: shares. "files": the number of library images.
    """
    files = library_images()
    images = [np.asarray(load_image(path)) for path in files]
    found = {"files": float(len(files))}
    if images:
        found[LIBRARY_IMAGES] = _recognised(answer, images, seed)
    found[DRAWN_IMAGES] = _recognised(answer, out_of_domain_images(seed, DRAWN, size=SIZE), seed)
    return found


def _recognised(answer: Answerer, images: Iterable[np.ndarray], seed: int) -> float:
    rng = np.random.default_rng((seed, 1))
    (model_of_questions,) = scenes(seed, 1, size=64)  # the scene whose questions are asked; they do not fit the images
    verdicts: list[bool] = []
    group: list[Asked] = []
    for number, image in enumerate(images, start=1):
        height, width = image.shape[:2]
        shown = Scene(image, np.zeros((0, height, width), bool), (), seed=-1)
        for k in range(QUESTIONS):
            question = about_out_of_domain(model_of_questions, (width, height), rng, held_out=k % 2 == 1)
            group.append((shown, query_of(question)))
        if number % TOGETHER == 0:
            verdicts += _verdicts(answer, group)
            group = []
    verdicts += _verdicts(answer, group)
    return float(np.mean(verdicts))


def _verdicts(answer: Answerer, group: Sequence[Asked]) -> list[bool]:
    return [says_out_of_domain(text) for text in answer(group)] if group else []
