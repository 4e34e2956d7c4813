"""Views of what several models got wrong together, and of what one of them alone got wrong or right."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from gpt4roi_nb.failures.dataset import label_of
from gpt4roi_nb.failures.rows import ResultLike, field_of
from gpt4roi_nb.failures.tags import open_dataset

Verdicts = tuple[bool, ...]  # of one item, by each model in turn


def add_comparison(
    *results: ResultLike,
    name: str | None = None,
    fields: Sequence[str] | None = None,
    database_folder: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Add saved views of the shared and the exclusive failures of several models to their dataset.

    The results may be of any models, also those of `import_answers`. Only questions that each of them answered and that
    have a right answer count. For models A and B the views are *A and B wrong*, *A right, B wrong* and *B right, A
    wrong*; for more models *A, B and C wrong*, and *only A wrong* and *only A right* for each. A view shows the images
    with such questions, and in the models' fields only the predictions for these. Empty views are not made. The views
    follow later changes of the fields.

    Args:
        results: two or more of one benchmark, each imported by `to_fiftyone`.
        name, database_folder: as for `to_fiftyone`.
        fields: those of the predictions, one per result. By default, see `field_of`.

    Returns:
        Name of a saved view → the view.

    Raises:
        ValueError: there are fewer than two results or two of them are in one field, they are of different benchmarks,
            or one is not in the dataset.
        DatasetGone: the dataset does not exist.
        NoDatabase: no MongoDB answers.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import evaluate
    >>> from gpt4roi_nb.failures import add_comparison, to_fiftyone
    >>> gpt4roi, world = GPT4RoI.from_pretrained(), write_world("world", 2, progress=False)
    >>> first, second = (evaluate("vcr", gpt4roi, world, seed=seed, progress=False) for seed in (0, 1))
    >>> for result, field in ((first, "first"), (second, "second")):
    ...     dataset = to_fiftyone(result, field=field, progress=False)
    >>> views = add_comparison(first, second, fields=("first", "second"))
    >>> set(views) <= set(dataset.list_saved_views())
    True
    """
    benchmarks = list(dict.fromkeys(result.benchmark for result in results))
    if len(results) < 2 or len(benchmarks) > 1:
        raise ValueError(
            f"a comparison needs two or more results of one benchmark, but got {len(results)} of {benchmarks}"
        )
    chosen = [field_of(result) for result in results] if fields is None else list(fields)
    if len(chosen) != len(results) or len(set(chosen)) < len(chosen):
        raise ValueError(f"each of the {len(results)} results needs a field of its own, but the fields are {chosen}")
    dataset = open_dataset(benchmarks[0] if name is None else name, database_folder)
    schema = dataset.get_field_schema()
    for field in chosen:
        if field not in schema:
            raise ValueError(f"{dataset.name!r} has no field {field!r}; import the result first, with `to_fiftyone`")
    verdicts = _verdicts(results)
    made = {}
    for title, wanted in _titles([label_of(dataset, field) for field in chosen]):
        if wanted in verdicts:
            made[title] = _view(dataset, chosen, wanted)
            dataset.save_view(title, made[title], overwrite=True)
        elif title in dataset.list_saved_views():
            dataset.delete_saved_view(title)
    return made


def _verdicts(results: Sequence[ResultLike]) -> set[Verdicts]:
    """Return which combinations of right and wrong occur among the questions that all models answered."""
    judged = [result.predictions.dropna(subset=["correct"]).set_index("id")["correct"] for result in results]
    common = judged[0].index
    for one in judged[1:]:
        common = common.intersection(one.index)
    return set(zip(*(one.loc[common].astype(bool).tolist() for one in judged), strict=True))


def _titles(labels: Sequence[str]) -> Iterator[tuple[str, Verdicts]]:
    """Yield the name of each view, and the verdicts of the items in it."""
    count = len(labels)
    yield f"{', '.join(labels[:-1])} and {labels[-1]} wrong", (False,) * count
    for k, label in enumerate(labels):
        alone = tuple(place == k for place in range(count))
        if count == 2:
            yield f"{label} right, {labels[1 - k]} wrong", alone
            continue
        yield f"only {label} wrong", tuple(not one for one in alone)
        yield f"only {label} right", alone


def _view(dataset: Any, fields: Sequence[str], wanted: Verdicts) -> Any:
    """Return the view of the items with these verdicts; a stage for each field filters its predictions."""
    from fiftyone import ViewField as F

    view = dataset
    for field, right in zip(fields, wanted, strict=True):
        condition = F("correct") == right
        for other, other_right in zip(fields, wanted, strict=True):
            if other != field:  # "$" begins at the image; a stage before this one has left only such items in its field
                its = F(f"${other}.detections").filter(F("correct") == other_right).map(F("item"))
                condition &= its.contains([F("item")])
        view = view.filter_labels(field, condition)
    return view
