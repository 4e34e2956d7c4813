"""Attention of chosen predictions as heat maps on their images in FiftyOne."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from einops import rearrange

from gpt4roi_nb.failures.rows import ResultLike, field_of, rows_of
from gpt4roi_nb.failures.tags import open_dataset
from gpt4roi_nb.session.region_model import needs_gpt4roi

if TYPE_CHECKING:
    from gpt4roi_nb.session.conversation import Answer
    from gpt4roi_nb.session.gpt4roi import GPT4RoI


def heat_map_field(field: str) -> str:
    """Return the name of the field that holds the heat maps of a field of predictions."""
    return f"attention_{field}"


def add_attention(
    result: ResultLike,
    model: GPT4RoI,
    items: Iterable[str],
    *,
    name: str | None = None,
    field: str | None = None,
    database_folder: str | os.PathLike[str] | None = None,
) -> int:
    """Add heat maps of where the answers to some questions attend: field `attention_predictions_…` of their images.

    Each question is asked again. The map is the attention to the image's tokens, averaged over layers, heads and tokens
    of the answer. An image has one map per checkpoint, that of its last item. The map's attributes are:

    - `item`, `answer`, `region`: of the prediction;
    - `mass_image`, `mass_regions`: the shares of all attention that went to the image and to the region tokens;
    - `fell_without_region`: by how much the answer's mean log-probability per token falls when the region that the
      prediction is about (`region`) is removed. A map's brightest spot may hold a hundredth of all attention and mean
      nothing.

    For a prediction about the whole image, `region` and `fell_without_region` are None. `AttentionInspector` shows
    more.

    Args:
        result: as given to `to_fiftyone`.
        model: the checkpoint that gave the answers.
        items: ids of predictions.
        name, field, database_folder: as for `to_fiftyone`.

    Returns:
        The number of maps.

    Raises:
        ValueError: the result does not have an item.
        TypeError: the model is not a GPT4RoI.
        DatasetGone: the dataset does not exist.
        NoDatabase: no MongoDB answers.

    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import evaluate
    >>> from gpt4roi_nb.failures import add_attention, to_fiftyone
    >>> gpt4roi, world = GPT4RoI.from_pretrained(), write_world("world", 2, progress=False)
    >>> result = evaluate("vcr", gpt4roi, world, progress=False)
    >>> dataset = to_fiftyone(result, progress=False)
    >>> add_attention(result, gpt4roi, result.predictions["id"][:1])
    1
    """
    needs_gpt4roi(model, "add_attention")
    dataset = open_dataset(result.benchmark if name is None else name, database_folder)
    place = heat_map_field(field or field_of(result))
    import fiftyone as fo

    rows = {row["id"]: row for row in rows_of(result)}
    maps: dict[str, Any] = {}
    for item in items:
        if item not in rows:
            raise ValueError(f"the result has no prediction {item!r}; see the column `id` of its table")
        row = rows[item]
        number = int(row["region"] or 0)
        with model.hold_weights():
            answer = model.session(row["image"]).ask(row["question"], row["boxes"])
            if not answer.tokens:
                continue
            recorded = answer.attention()
            fall = _fall(answer, number) if f"region{number}" in recorded.spans else None
        mean = recorded.weights.mean(dim=(0, 1, 2))
        flat = mean[recorded.spans["image"]]
        regions = [positions for span, positions in recorded.spans.items() if span.startswith("region")]
        grid = rearrange(flat, "(h w) -> h w", h=model.model.config.grid_size).numpy()
        maps[os.path.abspath(row["image"])] = fo.Heatmap(
            map=grid,
            range=[0.0, float(grid.max())],
            item=item,
            answer=answer.text,
            region=number or None,
            fell_without_region=fall,
            mass_image=float(flat.sum()),
            mass_regions=float(sum(mean[positions].sum() for positions in regions)),
        )
    if maps:
        if place not in dataset.get_field_schema():
            dataset.add_sample_field(place, fo.EmbeddedDocumentField, embedded_doc_type=fo.Heatmap)
        dataset.set_values(place, maps, key_field="filepath")
        dataset.add_dynamic_sample_fields(fields=place)
    return len(maps)


def _fall(answer: Answer, number: int) -> float:
    return -float(answer.ablate(number, "remove", generate=False).change.mean())
