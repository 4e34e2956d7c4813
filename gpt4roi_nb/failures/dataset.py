"""Predictions of a `Result` as a FiftyOne dataset: look at them, sort, search, select, tag.

FiftyOne shows and selects; the model stays in the kernel. How the parts fit is told in docs/failures.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from tqdm.auto import tqdm

from gpt4roi_nb.failures.database import NoDatabase, connect, is_lost
from gpt4roi_nb.failures.heat_maps import heat_map_field
from gpt4roi_nb.failures.labels import GROUND_TRUTH, PREDICTED, SHARED
from gpt4roi_nb.failures.rows import ResultLike, field_of, fingerprint, rows_of
from gpt4roi_nb.failures.views import FAILURES, label_for, make_views, view_name
from gpt4roi_nb.failures.writing import DetectionWriter, added_labels, get_collection

# Images a write: large enough that the database waits for Python, small enough that a lost connection loses little.
IMAGES_A_BATCH = 500
_MARK = "gpt4roi_nb"
# Names that FiftyOne refuses or that mean something to it, beside those that each dataset has from the beginning.
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
    """A persistent FiftyOne dataset of a result's predictions: one sample an image, one detection a prediction.

    Into a dataset of that name that is there already, the predictions come as one field more, so that checkpoints
    compare image by image. What is there stays as it is, tags included; an import that was interrupted goes on, and
    where the images of a result were moved, their samples follow.

    Field `ground_truth`: label and `target`, `question`, `region`, `size_bin`, `kind`, `item` (the prediction's id),
    and the mask where the benchmark has one. Field `predictions_…`: the same and `answer`, `correct`, `score`,
    `logprob`, `margin`, `mapped_sbert`, `mapped_lexical`, `mappings_agree`, `error_kind`; `confidence` is exp(logprob).
    A prediction about a whole image has the whole image as its box.

    Args:
        result: a `Result`. Its images must be where its table says.
        name: of the dataset; the benchmark's by default.
        field: where the predictions go, a name such as `mine` that the dataset does not use for anything else; by
            default `predictions_` and the checkpoint's name.
        overwrite: replace the field where it holds another result of the same checkpoint: its tags, saved views, map,
            similarity search and heat maps go with it, and `ground_truth` where it is the only field of predictions.
            Beside others, what `ground_truth` holds stays; each prediction has the `target` that it was judged by.
        database_folder: see `gpt4roi_nb.failures.database.connect`.
        progress: show a progress bar.

    Returns:
        The `fiftyone.Dataset`.

    Raises:
        NoDatabase: no MongoDB answers, or it went away during the import.
        FileNotFoundError: images are missing.
        ValueError: a bad table; a dataset of that name that is none of ours; a field that holds another result or
            something else, or whose name cannot be one.
    """
    rows = rows_of(result)
    _check_images(rows)
    field = field_of(result) if field is None else field
    if not isinstance(field, str) or not field.isidentifier() or field.startswith("_") or field in RESERVED:
        raise ValueError(
            f"predictions cannot go into a field {field!r}: expected a name of letters, digits and underscores that "
            "begins with a letter, such as 'predictions_mine', and none that FiftyOne or the right answers use"
        )
    mark = fingerprint(rows)
    fo = connect(database_folder)
    done = [0]
    images = _by_image(rows)
    try:
        dataset = _open(fo, name or result.benchmark)
        _prepare(fo, dataset, field, mark, result, overwrite)
        with tqdm(total=len(images), unit="image", desc="Importing", disable=not progress) as bar:
            for count in _import(fo, dataset, field, images):
                done[0] += count
                bar.update(count)
        for title, view in make_views(fo, dataset, field, rows):
            dataset.save_view(view_name(_label(dataset, field), title), view, overwrite=True)
        _note(dataset, field, {"complete": True})
    except Exception as error:
        if not is_lost(error):
            raise
        raise NoDatabase(
            f"the database went away after {done[0]} of {len(images)} images. What was written stays: start the "
            "database again (FiftyOne's own starts by itself) and call `to_fiftyone` once more; the import goes on "
            "from there, and nothing is doubled"
        ) from None
    return dataset


def _check_images(rows: Iterable[Mapping[str, Any]]) -> None:
    images = dict.fromkeys(str(row["image"]) for row in rows)
    missing = [image for image in images if not os.path.isfile(image)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the result's {len(images)} images are not there, such as {missing[0]}; the App shows "
            "the files, so measure on this machine, or put them where the table's column `image` says"
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
    if _MARK not in dataset.info and not len(dataset):  # a call that was killed before it set the mark, or as good
        dataset.persistent = True
        dataset.info[_MARK] = {}
        dataset.save()
    if _MARK not in dataset.info:
        raise ValueError(f"the dataset {name!r} was not made here, and is left as it is; choose another name")
    return dataset


def _prepare(fo: Any, dataset: Any, field: str, mark: str, result: ResultLike, overwrite: bool) -> None:
    """Declares the fields, so that the App can filter by them, and guards what another result wrote."""
    noted = dataset.info[_MARK].get(field)
    if noted and noted["fingerprint"] != mark:
        if not overwrite:
            raise ValueError(
                f"{dataset.name!r} holds another result of this checkpoint in {field!r}; name a `field` of its own for "
                "this one, or replace the other with overwrite=True"
            )
        _clear(dataset, field)
    schema = dataset.get_field_schema(flat=True)
    if not noted and field in schema:
        raise ValueError(
            f"the field {field!r} of {dataset.name!r} holds something else, and is left as it is; name another `field`"
        )
    # Noted first: where this is interrupted, the field is known as ours.
    what = {"checkpoint": result.card.checkpoint, "benchmark": result.benchmark, "complete": False}
    if not noted:
        others = [_label(dataset, other) for other in dataset.info[_MARK]]
        what["views"] = label_for(result.card.checkpoint_name, field, others)
    _note(dataset, field, {"fingerprint": mark, **what})
    for place, names in ((GROUND_TRUTH, SHARED), (field, PREDICTED)):
        if place not in schema:
            dataset.add_sample_field(place, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        for name, (_, kind) in names.items():
            if f"{place}.detections.{name}" not in schema:
                dataset.add_sample_field(f"{place}.detections.{name}", getattr(fo, kind))


def _clear(dataset: Any, field: str) -> None:
    """Deletes what a field of predictions holds, and what was made of it. Whatever is gone already is no error."""
    for view in dataset.list_saved_views():
        if view.startswith(view_name(_label(dataset, field), "")):
            dataset.delete_saved_view(view)
    for run in dataset.list_brain_runs(patches_field=field):
        dataset.delete_brain_run(run)
    alone = set(dataset.info[_MARK]) <= {field}
    for place in (field, heat_map_field(field), *([GROUND_TRUTH] if alone else [])):
        dataset.delete_sample_field(place, error_level=2)


def failures_view(dataset: Any, field: str) -> Any:
    """The saved view of a field's failures; None where it has none."""
    name = view_name(_label(dataset, field), FAILURES)
    return dataset.load_saved_view(name) if name in dataset.list_saved_views() else None


def _label(dataset: Any, field: str) -> str:
    """What the saved views of a field begin with; earlier versions took the field's own name."""
    return str(dataset.info[_MARK].get(field, {}).get("views", field))


def _note(dataset: Any, field: str, what: dict[str, Any]) -> None:
    dataset.info[_MARK] = {**dataset.info[_MARK], field: {**dataset.info[_MARK].get(field, {}), **what}}
    dataset.save()


def _import(fo: Any, dataset: Any, field: str, images: dict[str, list[dict[str, Any]]]) -> Iterable[int]:
    """Writes what is not there yet; yields how many images each batch brought further."""
    _follow(dataset, field, images)
    there = dict(zip(*dataset.values(["filepath", "id"]), strict=True))
    writer = DetectionWriter(fo)
    places = ((GROUND_TRUTH, writer.ground_truth), (field, writer.prediction))
    items = {place: dict(zip(there, dataset.values(f"{place}.detections.item"), strict=True)) for place, _ in places}
    collection = get_collection(dataset)
    paths = list(images)
    for start in range(0, len(paths), IMAGES_A_BATCH):
        batch = paths[start : start + IMAGES_A_BATCH]
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
    """Points samples at the images of their predictions, where these lie elsewhere now; else all would be there twice.

    The field holds this result or nothing: `_prepare` saw to that.
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
