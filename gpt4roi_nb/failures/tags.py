"""From the predictions of a result to their labels in FiftyOne and back: ids, selections, tags."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from gpt4roi_nb.failures.database import connect


class DatasetGone(RuntimeError):
    """The dataset was deleted, in the App or elsewhere."""


def open_dataset(name: str, database_folder: str | os.PathLike[str] | None = None) -> Any:
    """The dataset of that name. database_folder: see `gpt4roi_nb.failures.database.connect`, which raises as it says.

    Raises:
        DatasetGone: there is none.
        NoDatabase: no MongoDB answers.
    """
    fo = connect(database_folder)
    if not fo.dataset_exists(name):
        raise DatasetGone(
            f"there is no dataset {name!r} any more; it was deleted, in the App or elsewhere. The result has all of "
            "it: open the App again, or call `to_fiftyone`, and it is made anew (tags are lost)"
        )
    return fo.load_dataset(name)


def label_ids(dataset: Any, field: str) -> dict[str, str]:
    """Item (a prediction's id) → id of its label in a field."""
    return {item: label for item, (_, label) in places_of(dataset, field).items()}


def places_of(dataset: Any, field: str) -> dict[str, tuple[str, str]]:
    """Item → (id of its sample, id of its label) in a field."""
    columns = dataset.values(["id", f"{field}.detections.item", f"{field}.detections.id"])
    return {
        item: (sample, label)
        for sample, items, labels in zip(*columns, strict=True)
        for item, label in zip(items or (), labels or (), strict=True)
    }


def items_of(dataset: Any, field: str, labels: Iterable[str]) -> list[str]:
    """The items of labels of any field of ours, in the order of the labels; others are left out."""
    wanted = list(dict.fromkeys(labels))
    found: dict[str, str] = {}
    for place in _fields(dataset, field):
        view = dataset.select_labels(ids=wanted, fields=place)
        ids, items = view.values([f"{place}.detections.id", f"{place}.detections.item"], unwind=True)
        found.update((label, item) for label, item in zip(ids, items, strict=True) if item)
    return list(dict.fromkeys(found[label] for label in wanted if label in found))


def _fields(dataset: Any, first: str) -> list[str]:
    """The fields that hold items: that one, then the ground truth and the other checkpoints'."""
    schema = dataset.get_field_schema(flat=True)
    ending = ".detections.item"
    found = [name.removesuffix(ending) for name in schema if name.endswith(ending)]
    return [first, *(name for name in found if name != first)]


def tag(dataset: Any, field: str, items: Iterable[str], name: str) -> int:
    """Tags the predictions of a checkpoint's field; returns how many were tagged that were not before.

    Raises:
        ValueError: an empty name, or an item that the field does not hold.
    """
    name = name.strip()
    if not name:
        raise ValueError("a tag needs a name, such as 'left and right confused'")
    wanted = list(dict.fromkeys(items))
    if not wanted:
        return 0
    view = labels_of(dataset, field, wanted)
    tags = {item: given for given, item in _tags(view, field)}
    unknown = set(wanted) - set(tags)
    if unknown:
        raise ValueError(f"{field!r} of {dataset.name!r} holds no prediction {min(unknown)!r}")
    view.tag_labels(name, label_fields=field)
    return sum(name not in given for given in tags.values())


def labels_of(dataset: Any, field: str, items: Iterable[str]) -> Any:
    """The view of some predictions: their images, and of that field's labels only these."""
    from fiftyone import ViewField

    return dataset.filter_labels(field, ViewField("item").is_in(list(items)))


def read_tags(dataset: Any, field: str) -> dict[str, list[str]]:
    """Tag → items that have it, whoever tagged them: the notebook or somebody in the App."""
    found: dict[str, list[str]] = {}
    for tags, item in _tags(dataset, field):
        for name in tags:
            found.setdefault(name, []).append(item)
    return found


def _tags(view: Any, field: str) -> Iterator[tuple[list[str], str]]:
    """(tags, item) of each label of a field."""
    tags, items = view.values([f"{field}.detections.tags", f"{field}.detections.item"])
    for names, ids in zip(tags, items, strict=True):
        for given, item in zip(names or (), ids or (), strict=True):
            yield given or [], item
