"""Attention of some predictions as heat maps on their images in FiftyOne, computed when asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from einops import rearrange

from gpt4roi_nb.failures.rows import ResultLike, field_of, rows_of
from gpt4roi_nb.failures.tags import open_dataset

if TYPE_CHECKING:
    from gpt4roi_nb.session.conversation import Answer
    from gpt4roi_nb.session.gpt4roi import GPT4RoI


def heat_map_field(field: str) -> str:
    """Where the heat maps of a checkpoint's field of predictions are."""
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
    """Shows where the answers to some predictions' questions attended: field `attention_predictions_…` of their images.

    The question is asked again. The map is the attention to the image's tokens, mean over layers, heads and tokens of
    the answer; an image has one map a checkpoint, of the last of its items. Beside it stand `item`, `answer`, `region`,
    and as `mass_image` and `mass_regions` the shares of all attention that went to the image and to the region tokens,
    and as `fell_without_region` how far the answer's mean log-probability a token falls when the region that the
    prediction is about (`region`) is removed: a map's brightest spot may hold a hundredth of the whole and mean
    nothing. Where a prediction is about the whole image, `region` and `fell_without_region` are None.
    `AttentionInspector` tells more.

    Args:
        result: as it was given to `to_fiftyone`.
        model: the checkpoint that gave the answers.
        items: ids of predictions.
        name, field, database_folder: as in `to_fiftyone`.

    Returns:
        How many maps were made.

    Raises:
        ValueError: an item that the result does not have.
        DatasetGone, NoDatabase: as they say.
    """
    dataset = open_dataset(name or result.benchmark, database_folder)
    place = heat_map_field(field or field_of(result))
    import fiftyone as fo

    rows = {row["id"]: row for row in rows_of(result)}
    maps: dict[str, Any] = {}
    for item in items:
        if item not in rows:
            raise ValueError(f"the result has no prediction {item!r}; its ids are those of the table's column `id`")
        row = rows[item]
        answer = model.session(row["image"]).ask(row["question"], row["boxes"])
        if not answer.tokens:
            continue
        recorded, number = answer.attention(), int(row["region"] or 0)
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
            fell_without_region=_fall(answer, number) if f"region{number}" in recorded.spans else None,
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
