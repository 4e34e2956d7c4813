"""RoI features as embeddings: find failures that look alike to the model, by search and on a map in the App."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from gpt4roi_nb.capture.pca import principal_axes
from gpt4roi_nb.failures.rows import ResultLike, field_of, rows_of
from gpt4roi_nb.failures.tags import open_dataset, places_of
from gpt4roi_nb.session.region_model import needs_gpt4roi

if TYPE_CHECKING:
    from gpt4roi_nb.session.gpt4roi import GPT4RoI

Vectors = Mapping[str, np.ndarray]
# Further dimensions hardly change cosines, and 50,000 full vectors of a 7B model would take a gigabyte in the database.
DIMENSIONS = 64
# UMAP draws initial positions and samples at random; with a fixed seed, the same features give the same map.
SEED = 0


def add_features(
    result: ResultLike,
    model: GPT4RoI | None = None,
    *,
    vectors: Vectors | None = None,
    name: str | None = None,
    field: str | None = None,
    method: str | None = None,
    database_folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Vectors:
    """Add a similarity search and a 2-D map of the regions to an imported result, for the App's Embeddings panel.

    Args:
        result: as given to `to_fiftyone`.
        model: computes the features and encodes each image once. Not needed with `vectors`.
        vectors: item → (D,) float, computed before, for some or all of the result's predictions.
        name, field, database_folder: as for `to_fiftyone`.
        method: "pca", or "umap" (needs `umap-learn`). None chooses UMAP if it is installed.
        progress: show a progress bar.

    Returns:
        Item → (D,) float32, for further computations.

    Raises:
        ValueError: there is neither model nor vectors, there are fewer than three regions, or the method is unknown or
            not installed.
        DatasetGone: the dataset does not exist.
        NoDatabase: no MongoDB answers.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import evaluate
    >>> from gpt4roi_nb.failures import add_features, to_fiftyone
    >>> gpt4roi, world = GPT4RoI.from_pretrained(), write_world("world", 2, progress=False)
    >>> result = evaluate("vcr", gpt4roi, world, progress=False)
    >>> dataset = to_fiftyone(result, progress=False)
    >>> vectors = add_features(result, gpt4roi, method="pca", progress=False)
    >>> set(vectors) == set(result.predictions["id"])
    True
    """
    method = _method(method)
    if vectors is None:
        if model is None:
            raise ValueError("features need a model that computes them, or `vectors` that were computed before")
        needs_gpt4roi(model, "add_features")
        vectors = region_vectors(result, model, progress=progress)
    dataset = open_dataset(result.benchmark if name is None else name, database_folder)
    field = field or field_of(result)
    places = places_of(dataset, field)
    items = [item for item in vectors if item in places]
    if len(items) < 3:
        raise ValueError(f"a map needs at least 3 regions, but {len(items)} of {field!r} have features")
    full = np.stack([np.asarray(vectors[item], dtype=np.float32) for item in items])
    reduced = principal_components(full, DIMENSIONS)
    points = reduced[:, :2] if method == "pca" else _umap(reduced)
    samples, labels = zip(*(places[item] for item in items), strict=True)

    import fiftyone.brain as fob

    map_key, search_key = f"map_{field}", f"similar_{field}"
    for key in (map_key, search_key):
        if dataset.has_brain_run(key):
            dataset.delete_brain_run(key)
    # FiftyOne would look up vectors by ids of samples, but takes points by ids of labels.
    fob.compute_visualization(
        dataset, patches_field=field, points=dict(zip(labels, points, strict=True)), brain_key=map_key, verbose=False
    )
    index = fob.compute_similarity(
        dataset, patches_field=field, embeddings=False, brain_key=search_key, backend="sklearn", progress=False
    )
    index.add_to_index(reduced, list(samples), label_ids=list(labels))
    index.save()
    return vectors


def _method(method: str | None) -> str:
    has_umap = importlib.util.find_spec("umap") is not None
    if method is None:
        return "umap" if has_umap else "pca"
    if method not in ("pca", "umap"):
        raise ValueError(f"method must be 'pca' or 'umap', but is {method!r}")
    if method == "umap" and not has_umap:
        raise ValueError("method 'umap' needs the package umap-learn; install it, or use 'pca'")
    return method


def _umap(vectors: np.ndarray) -> np.ndarray:
    """Project (N, D) vectors to (N, 2) float points, where neighbours stay neighbours."""
    umap = importlib.import_module("umap")
    places: np.ndarray = umap.UMAP(n_components=2, random_state=SEED, n_jobs=1).fit_transform(vectors)
    return places


def principal_components(vectors: np.ndarray, count: int) -> np.ndarray:
    """Project (N, D) vectors onto their principal components.

    Args:
        vectors: (N, D) float32.
        count: number of components.

    Returns:
        (N, count or fewer) float32.
    """
    rows = torch.from_numpy(vectors)
    mean, axes, _ = principal_axes(rows)
    return ((rows - mean) @ axes[:count].T).numpy()


def region_vectors(
    result: ResultLike, model: GPT4RoI, *, progress: bool = True, of: Callable[[Any], Any] | None = None
) -> dict[str, np.ndarray]:
    """Compute the region features of the predictions that are about a region.

    Args:
        result: a `Result`.
        model: encodes each image once.
        progress: show a progress bar.
        of: what to use of `session.roi_features(boxes)`, (N, D). By default `content`: what is in the box, without the
            embedding of the box's position, which would arrange a map by position.

    Returns:
        Item → (D,) float32.
    """
    images: dict[str, list[tuple[str, Any]]] = {}
    for row in rows_of(result):
        if 0 < int(row["region"] or 0) <= len(row["boxes"]):
            images.setdefault(row["image"], []).append((row["id"], row["boxes"][int(row["region"]) - 1]))
    found: dict[str, np.ndarray] = {}
    for image, regions in tqdm(images.items(), unit="image", desc="Region features", disable=not progress):
        features = model.session(image).roi_features([box for _, box in regions])
        rows = (features.content if of is None else of(features)).numpy()
        found.update(zip((item for item, _ in regions), rows, strict=True))
    return found
