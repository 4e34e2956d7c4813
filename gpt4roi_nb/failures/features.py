"""RoI features as embeddings: which failures look alike to the model, as a search and as a map in the App."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from gpt4roi_nb.failures.rows import ResultLike, field_of, rows_of
from gpt4roi_nb.failures.tags import open_dataset, places_of

if TYPE_CHECKING:
    from gpt4roi_nb.session.gpt4roi import GPT4RoI

Vectors = Mapping[str, np.ndarray]
# Cosines hardly change by what lies beyond, and 50,000 vectors of a 7B model would fill a database with a gigabyte.
DIMENSIONS = 64
# UMAP draws its first places and its samples at random; the same features shall give the same map.
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
    """Gives the regions of an imported result a similarity search and a 2-D map in the App's Embeddings panel.

    Args:
        result: as it was given to `to_fiftyone`.
        model: computes the features: each image is encoded once. Not needed with `vectors`.
        vectors: item → (D,) float, for some or all of the result's predictions, computed before.
        name, field, database_folder: as in `to_fiftyone`.
        method: "pca", or "umap" (needs `umap-learn`); None takes UMAP where it is installed.

    Returns:
        Item → (D,) float32, for those who want to compute with them.

    Raises:
        ValueError: neither model nor vectors, fewer than three regions, or a method that is not there.
        DatasetGone, NoDatabase: as they say.
    """
    method = _method(method)
    if vectors is None:
        if model is None:
            raise ValueError("features need a model to compute them, or `vectors` computed before")
        vectors = region_vectors(result, model, progress=progress)
    dataset = open_dataset(name or result.benchmark, database_folder)
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
    # Given as vectors, FiftyOne would look them up by the ids of samples; places it takes by those of labels.
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
        raise ValueError("method 'umap' needs the package umap-learn; install it, or take 'pca'")
    return method


def _umap(vectors: np.ndarray) -> np.ndarray:
    """(N, 2) float: places on a map where neighbours of (N, D) stay neighbours."""
    umap = importlib.import_module("umap")
    places: np.ndarray = umap.UMAP(n_components=2, random_state=SEED, n_jobs=1).fit_transform(vectors)
    return places


def principal_components(vectors: np.ndarray, count: int) -> np.ndarray:
    """(N, count or fewer) float32: the coordinates of (N, D) vectors along their directions of largest spread."""
    centred = vectors - vectors.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
    return (centred @ directions[:, ::-1][:, :count]).astype(np.float32)


def region_vectors(
    result: ResultLike, model: GPT4RoI, *, progress: bool = True, of: Callable[[Any], Any] | None = None
) -> dict[str, np.ndarray]:
    """Item → (D,) float32 region features, of the predictions that are about a region.

    of: what to take of `session.roi_features(boxes)`, (N, D); by default `content`: what lies in the box, without the
        embedding of the box's place, which would sort a map by where things lie.
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
