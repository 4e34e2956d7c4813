"""Import the predictions of a `Result` into a FiftyOne dataset."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from tqdm.auto import tqdm

from gpt4roi_nb.failures.database import NoDatabase, connect, is_lost
from gpt4roi_nb.failures.heat_maps import heat_map_field
from gpt4roi_nb.failures.labels import GROUND_TRUTH, PREDICTED, SHARED
from gpt4roi_nb.failures.rows import ResultLike, field_of, fingerprint, model_name, rows_of
from gpt4roi_nb.failures.views import FAILURES, label_for, make_views, view_name
from gpt4roi_nb.failures.writing import DetectionWriter, added_labels, get_collection

# Images per write: large enough that the database waits for Python, small enough that a lost connection loses little.
IMAGES_PER_BATCH = 500
_MARK = "gpt4roi_nb"
# Names that FiftyOne rejects or uses itself, beside those that each new dataset has.
RESERVED = frozenset((GROUND_TRUTH, "frames", "groups", "pk"))


def to_fiftyone(
    result: ResultLike,
    name: str | None = None,
    *,
    field: str | None = None,
    overwrite: bool = False,
    database_folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Any:
    """Import a result into a persistent FiftyOne dataset: one sample per image, one detection per prediction.

    If a dataset of that name exists, the predictions become a further field, so that checkpoints can be compared image
    by image. Existing content stays unchanged, tags included. An interrupted import continues. If the images of a
    result were moved, their samples follow.

    Field `ground_truth`: label and `target`, `question`, `region`, `size_bin`, `kind`, `item` (the prediction's id),
    and the mask if the benchmark has one. Field `predictions_…`: the same and `answer`, `correct`, `score`,
    `logprob`, `margin`, `mapped_sbert`, `mapped_lexical`, `mappings_agree`, `error_kind`; `confidence` is exp(logprob).
    The box of a prediction about a whole image is the whole image.

    Args:
        result: a `Result`. Its images must be where its table says.
        name: of the dataset. By default, the benchmark's.
        field: for the predictions, a name such as `mine` that the dataset does not use otherwise. By default, see
            `field_of`.
        overwrite: replace the field if it holds another result of the same checkpoint. Its tags, saved views, map,
            similarity search and heat maps are deleted, and `ground_truth` if this is the only field of predictions.
            Beside other fields, `ground_truth` stays; each prediction has the `target` that it was judged by.
        database_folder: see `connect`.
        progress: show a progress bar.

    Returns:
        The `fiftyone.Dataset`.

    Raises:
        NoDatabase: no MongoDB answers, or it went away during the import.
        FileNotFoundError: images are missing.
        ValueError: the table is not that of a `Result`; the name is empty; the dataset of that name was not made by
            this package; the field holds another result or something else, or its name is invalid.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import evaluate
    >>> from gpt4roi_nb.failures import to_fiftyone
    >>> world = write_world("world", 2, progress=False)
    >>> result = evaluate("vcr", GPT4RoI.from_pretrained(), world, progress=False)
    >>> dataset = to_fiftyone(result, progress=False)
    >>> dataset.name, len(dataset), dataset.count("ground_truth.detections")
    ('vcr', 1, 6)
    """
    rows = rows_of(result)
    _check_images(rows)
    name = result.benchmark if name is None else name
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"the dataset needs a name, but got {name!r}; leave it out to take the benchmark's")
    field = field_of(result) if field is None else field
    if not isinstance(field, str) or not field.isidentifier() or field.startswith("_") or field in RESERVED:
        raise ValueError(
            f"predictions cannot go into a field {field!r}: expected a name of letters, digits and underscores that "
            "begins with a letter, such as 'predictions_mine', and is not used by FiftyOne or the ground truth"
        )
    mark = fingerprint(rows)
    fo = connect(database_folder)
    done = [0]
    images = _by_image(rows)
    try:
        dataset = _open(fo, name)
        _prepare(fo, dataset, field, mark, result, overwrite)
        with tqdm(total=len(images), unit="image", desc="Importing", disable=not progress) as bar:
            for count in _import(fo, dataset, field, images):
                done[0] += count
                bar.update(count)
        for title, view in make_views(fo, dataset, field, rows):
            dataset.save_view(view_name(label_of(dataset, field), title), view, overwrite=True)
        _note(dataset, field, {"complete": True})
    except Exception as error:
        if not is_lost(error):
            raise
        raise NoDatabase(
            f"the database went away after {done[0]} of {len(images)} images. What was written is kept: start the "
            "database again (FiftyOne's own starts by itself) and call `to_fiftyone` once more; the import continues "
            "from there without duplicates"
        ) from None
    return dataset


def _check_images(rows: Iterable[Mapping[str, Any]]) -> None:
    images = dict.fromkeys(str(row["image"]) for row in rows)
    missing = [image for image in images if not os.path.isfile(image)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the result's {len(images)} images are missing, such as {missing[0]}; the App shows the "
            "files, so evaluate on this machine, or put them where the table's column `image` says"
        )


def _by_image(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    images: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        images.setdefault(os.path.abspath(str(row["image"])), []).append(row)
    return images


def _open(fo: Any, name: str) -> Any:
    if not fo.dataset_exists(name):
        dataset = fo.Dataset(name, persistent=True)
        dataset.info[_MARK] = {}
        dataset.save()
        return dataset
    dataset = fo.load_dataset(name)
    if _MARK not in dataset.info and not len(dataset):  # probably a call that was killed before it set the mark
        dataset.persistent = True
        dataset.info[_MARK] = {}
        dataset.save()
    if _MARK not in dataset.info:
        raise ValueError(
            f"the dataset {name!r} was not made by this package, and is left unchanged; choose another name"
        )
    return dataset


def _prepare(fo: Any, dataset: Any, field: str, mark: str, result: ResultLike, overwrite: bool) -> None:
    """Declare the fields, so that the App can filter by them, and protect what another result wrote."""
    noted = dataset.info[_MARK].get(field)
    if noted and noted["fingerprint"] != mark:
        if not overwrite:
            raise ValueError(
                f"{dataset.name!r} holds another result of this checkpoint in {field!r}; name another `field` for this "
                "one, or replace the other with overwrite=True"
            )
        _clear(dataset, field)
    schema = dataset.get_field_schema(flat=True)
    if not noted and field in schema:
        raise ValueError(
            f"the field {field!r} of {dataset.name!r} holds something else, and is left unchanged; name another `field`"
        )
    # Noted first, so that after an interrupt the field is known as ours.
    what = {"checkpoint": result.card.checkpoint, "benchmark": result.benchmark, "complete": False}
    if not noted:
        others = [label_of(dataset, other) for other in dataset.info[_MARK]]
        what["views"] = label_for(model_name(result), field, others)
    _note(dataset, field, {"fingerprint": mark, **what})
    for place, names in ((GROUND_TRUTH, SHARED), (field, PREDICTED)):
        if place not in schema:
            dataset.add_sample_field(place, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        for name, (_, kind) in names.items():
            if f"{place}.detections.{name}" not in schema:
                dataset.add_sample_field(f"{place}.detections.{name}", getattr(fo, kind))


def _clear(dataset: Any, field: str) -> None:
    """Delete a field of predictions and what was made from it; ignore what is already gone."""
    for view in dataset.list_saved_views():
        if view.startswith(view_name(label_of(dataset, field), "")):
            dataset.delete_saved_view(view)
    for run in dataset.list_brain_runs(patches_field=field):
        dataset.delete_brain_run(run)
    alone = set(dataset.info[_MARK]) <= {field}
    for place in (field, heat_map_field(field), *([GROUND_TRUTH] if alone else [])):
        dataset.delete_sample_field(place, error_level=2)


def failures_view(dataset: Any, field: str) -> Any:
    """Return the saved view of a field's failures; None if it has none.

    Args:
        dataset: of `to_fiftyone`.
        field: of predictions.
    """
    name = view_name(label_of(dataset, field), FAILURES)
    return dataset.load_saved_view(name) if name in dataset.list_saved_views() else None


def label_of(dataset: Any, field: str) -> str:
    """Return what names a field's model in saved views; earlier versions used the field's own name."""
    return str(dataset.info[_MARK].get(field, {}).get("views", field))


def _note(dataset: Any, field: str, what: dict[str, Any]) -> None:
    dataset.info[_MARK] = {**dataset.info[_MARK], field: {**dataset.info[_MARK].get(field, {}), **what}}
    dataset.save()


def _import(fo: Any, dataset: Any, field: str, images: dict[str, list[dict[str, Any]]]) -> Iterable[int]:
    """Write what is missing, and yield the number of images of each batch."""
    _follow(dataset, field, images)
    there = dict(zip(*dataset.values(["filepath", "id"]), strict=True))
    writer = DetectionWriter(fo)
    places = ((GROUND_TRUTH, writer.ground_truth), (field, writer.prediction))
    items = {place: dict(zip(there, dataset.values(f"{place}.detections.item"), strict=True)) for place, _ in places}
    collection = get_collection(dataset)
    paths = list(images)
    for start in range(0, len(paths), IMAGES_PER_BATCH):
        batch = paths[start : start + IMAGES_PER_BATCH]
        new = [path for path in batch if path not in there]
        if new:
            samples = [_sample(fo, path, images[path][0]) for path in new]
            there.update(zip(new, dataset.add_samples(samples, progress=False), strict=True))
        writes = []
        for path in batch:
            changes = {}
            for place, make in places:
                present = items[place].get(path)
                lacking = [make(row) for row in images[path] if not present or row["id"] not in present]
                if lacking:
                    changes[place] = (present is None, lacking)
            if changes:
                writes.append(added_labels(there[path], changes))
        if writes:
            collection.bulk_write(writes, ordered=False)
        yield len(batch)
    dataset.reload()


def _follow(dataset: Any, field: str, images: dict[str, list[dict[str, Any]]]) -> None:
    """Point samples at images that were moved; else these would be imported twice.

    The field holds this result or nothing, which `_prepare` ensures.
    """
    now = {row["id"]: path for path, rows in images.items() for row in rows}
    columns = dataset.values(["id", "filepath", f"{field}.detections.item"])
    there = set(columns[1])
    moved = {
        sample: now[item]
        for sample, path, items in zip(*columns, strict=True)
        for item in (items or ())[:1]
        if now.get(item, path) != path and now[item] not in there
    }
    if moved:
        dataset.set_values("filepath", moved, key_field="id")


def _sample(fo: Any, path: str, row: dict[str, Any]) -> Any:
    size = fo.ImageMetadata(width=int(row["width"]), height=int(row["height"]), num_channels=3)
    return fo.Sample(filepath=path, metadata=size)
