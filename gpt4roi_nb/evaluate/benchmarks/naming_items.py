"""The two questions about a region's name, as items: what it is called, and which of two names is right.

The wording is exactly that of the protocols: Osprey's for the first (`osprey/eval/lvis_paco_eval.py`), Ferret's for the
second (`ferret/eval/model_lvis.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.protocol_texts import NAME_PROMPT, clean_name
from gpt4roi_nb.evaluate.benchmarks.item import Item
from gpt4roi_nb.evaluate.metrics.similarity import ferret_forms, surface_forms

NAME, CHOICE = "name", "choice"  # values of `facts["asked"]`


@dataclass(frozen=True)
class Asked:
    """The region that a question is about.

    Attributes:
        id: of the item.
        image: path of the image file.
        box: pixel xyxy in the original image.
        group: of the image; `limit` draws by it.
    """

    id: str
    image: str
    box: Box
    group: str


def kind_of(name: str) -> str:
    """Return PACO's slice of a name: `mug:handle` is a "part", `mug` an "object"."""
    return "part" if ":" in name else "object"


def name_item(asked: Asked, name: str) -> Item:
    """Build the item that asks what a region is called. name: as in the file, such as `mug:handle`."""
    return _item(asked, NAME_PROMPT, name, {"asked": NAME})


def choice_item(
    asked: Asked, question: str, options: Sequence[str], name: str, synonyms: Sequence[str], false: tuple[str, ...]
) -> Item:
    """Build the item that asks which of two names is a region's.

    Args:
        asked: the region.
        question: names `<region1>` and both names.
        options: both names, in the question's order; empty if unknown.
        name: the true name, as in the file.
        synonyms: of the true name, as in the file.
        false: `surface_forms` of the other name; empty if unknown, and then no answer contains it.
    """
    facts = {
        "asked": CHOICE,
        "ferret": ferret_forms(clean_name(name), synonyms),
        "true": surface_forms(clean_name(name), synonyms),
        "false": false,
    }
    return _item(asked, question, name, facts, tuple(options))


def _item(asked: Asked, question: str, name: str, facts: dict[str, Any], options: tuple[str, ...] = ()) -> Item:
    return Item(
        id=asked.id,
        image=asked.image,
        boxes=(asked.box,),
        question=question,
        target=clean_name(name),
        options=options,
        region=1,
        kind=kind_of(name),
        group=asked.group,
        facts=facts,
    )
