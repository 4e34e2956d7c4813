"""Map the predictions of a result to their labels in FiftyOne and back: ids, selections, tags."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from gpt4roi_nb.failures.database import connect


class DatasetGone(RuntimeError):
    """Raised when a dataset does not exist any more: it was deleted, in the App or elsewhere.

    >>> from gpt4roi_nb.failures import DatasetGone, open_dataset
    >>> try:
    ...     dataset = open_dataset("deleted")
    ... except DatasetGone as error:
    ...     print(error)
    there is no dataset 'deleted'...
    """


def open_dataset(name: str, database_folder: str | os.PathLike[str] | None = None) -> Any:
    """Open a dataset that `to_fiftyone` made.

    Args:
        name: of the dataset.
        database_folder: see `connect`.

    Returns:
        The `fiftyone.Dataset`.

    Raises:
        DatasetGone: there is no such dataset.
        NoDatabase: no MongoDB answers.
        RuntimeError: a database already runs with another folder.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import evaluate
    >>> from gpt4roi_nb.failures import open_dataset, to_fiftyone
    >>> world = write_world("world", 2, progress=False)
    >>> result = evaluate("vcr", GPT4RoI.from_pretrained(), world, progress=False)
    >>> dataset = to_fiftyone(result, progress=False)
    >>> len(open_dataset("vcr"))  # one sample per image
    1
    """
    fo = connect(database_folder)
    if not fo.dataset_exists(name):
        raise DatasetGone(
            f"there is no dataset {name!r} any more; it was deleted, in the App or elsewhere. Open the App again, or "
            "call `to_fiftyone`, to create it again from the result (tags are lost)"
        )
    return fo.load_dataset(name)


def label_ids(dataset: Any, field: str) -> dict[str, str]:
    """Map predictions to their labels.

    Args:
        dataset: of `to_fiftyone`.
        field: of predictions, or `ground_truth`.

    Returns:
        Item (a prediction's id) → id of its label in the field.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import evaluate
    >>> from gpt4roi_nb.failures import field_of, label_ids, to_fiftyone
    >>> world = write_world("world", 2, progress=False)
    >>> result = evaluate("vcr", GPT4RoI.from_pretrained(), world, progress=False)
    >>> labels = label_ids(to_fiftyone(result, progress=False), field_of(result))
    >>> set(labels) == set(result.predictions["id"])
    True
    """
    return {item: label for item, (_, label) in places_of(dataset, field).items()}


def places_of(dataset: Any, field: str) -> dict[str, tuple[str, str]]:
    """Return item → (id of its sample, id of its label) in a field."""
    columns = dataset.values(["id", f"{field}.detections.item", f"{field}.detections.id"])
    return {
        item: (sample, label)
        for sample, items, labels in zip(*columns, strict=True)
        for item, label in zip(items or (), labels or (), strict=True)
    }


def items_of(dataset: Any, field: str, labels: Iterable[str]) -> list[str]:
    """Map labels of any of our fields back to items, in the order of the labels; other labels are left out.

    Args:
        dataset: of `to_fiftyone`.
        field: of predictions, searched first.
        labels: ids of labels.
    """
    wanted = list(dict.fromkeys(labels))
    found: dict[str, str] = {}
    for place in _fields(dataset, field):
        view = dataset.select_labels(ids=wanted, fields=place)
        ids, items = view.values([f"{place}.detections.id", f"{place}.detections.item"], unwind=True)
        found.update((label, item) for label, item in zip(ids, items, strict=True) if item)
    return list(dict.fromkeys(found[label] for label in wanted if label in found))


def _fields(dataset: Any, first: str) -> list[str]:
    """Return the fields that hold items: `first`, then the ground truth and those of other checkpoints."""
    schema = dataset.get_field_schema(flat=True)
    ending = ".detections.item"
    found = [name.removesuffix(ending) for name in schema if name.endswith(ending)]
    return [first, *(name for name in found if name != first)]


def tag(dataset: Any, field: str, items: Iterable[str], name: str) -> int:
    """Tag predictions.

    Args:
        dataset: of `to_fiftyone`.
        field: of predictions; see `field_of`.
        items: ids of predictions.
        name: of the tag; blanks around it are removed.

    Returns:
        How many predictions did not have the tag before.

    Raises:
        ValueError: the name is empty, or the field does not hold an item.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import evaluate
    >>> from gpt4roi_nb.failures import field_of, tag, to_fiftyone
    >>> world = write_world("world", 2, progress=False)
    >>> result = evaluate("vcr", GPT4RoI.from_pretrained(), world, progress=False)
    >>> dataset = to_fiftyone(result, progress=False)
    >>> tag(dataset, field_of(result), result.predictions["id"][:2], "left and right confused")
    2
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


def labels_of(dataset: Any, field: str, items: Iterable[str], *, only_matches: bool = True) -> Any:
    """Return the view of some predictions: their images, with only their labels in the field.

    Args:
        dataset: of `to_fiftyone`, or a view of it.
        field: of predictions.
        items: ids of predictions.
        only_matches: whether images without such labels are left out.
    """
    from fiftyone import ViewField

    return dataset.filter_labels(field, ViewField("item").is_in(list(items)), only_matches=only_matches)


def read_tags(dataset: Any, field: str) -> dict[str, list[str]]:
    """Read the tags of a field of predictions, set in a notebook or in the App.

    Args:
        dataset: of `to_fiftyone`.
        field: of predictions; see `field_of`.

    Returns:
        Tag → items that have it.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import evaluate
    >>> from gpt4roi_nb.failures import field_of, read_tags, tag, to_fiftyone
    >>> world = write_world("world", 2, progress=False)
    >>> result = evaluate("vcr", GPT4RoI.from_pretrained(), world, progress=False)
    >>> dataset, field = to_fiftyone(result, progress=False), field_of(result)
    >>> tag(dataset, field, result.predictions["id"], "seen")
    6
    >>> len(read_tags(dataset, field)["seen"])
    6
    """
    found: dict[str, list[str]] = {}
    for tags, item in _tags(dataset, field):
        for name in tags:
            found.setdefault(name, []).append(item)
    return found


def _tags(view: Any, field: str) -> Iterator[tuple[list[str], str]]:
    """Yield (tags, item) of each label of a field."""
    tags, items = view.values([f"{field}.detections.tags", f"{field}.detections.item"])
    for names, ids in zip(tags, items, strict=True):
        for given, item in zip(names or (), ids or (), strict=True):
            yield given or [], item
