"""The two questions about a region's name, as items: what it is called, and which of two names is its.

Their wording is the protocols', to the letter: the first Osprey's (`osprey/eval/lvis_paco_eval.py`), the second
Ferret's (`ferret/eval/model_lvis.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.protocol_texts import NAME_PROMPT
from gpt4roi_nb.evaluate.benchmarks.item import Item
from gpt4roi_nb.evaluate.metrics.similarity import clean_name, ferret_forms, surface_forms

NAME, CHOICE = "name", "choice"  # what `facts["asked"]` says


@dataclass(frozen=True)
class Asked:
    """The region that a question is about.

    id: of the item. image: path. box: pixel xyxy in the original image. group: the image's, by which `limit` draws.
    """

    id: str
    image: str
    box: Box
    group: str


def kind_of(name: str) -> str:
    """PACO's slices: `mug:handle` is a part, `mug` an object."""
    return "part" if ":" in name else "object"


def name_item(asked: Asked, name: str) -> Item:
    """Asks what a region is called. name: as the file has it, such as `mug:handle`."""
    return _item(asked, NAME_PROMPT, name, {"asked": NAME})


def choice_item(
    asked: Asked, question: str, options: Sequence[str], name: str, synonyms: Sequence[str], false: tuple[str, ...]
) -> Item:
    """Asks which of two names is a region's.

    Args:
        question: names `<region1>` and both.
        options: both, in the question's order; none where they are not known.
        name: the true one, as the file has it. synonyms: those of the file.
        false: `surface_forms` of the other one; none where it is not known, and then no answer says it.
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
