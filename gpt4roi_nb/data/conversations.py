"""Your own conversations about your own boxes: LLaVA's JSON, in which each record carries its boxes.

    [{"id": "1", "image": "a.jpg", "boxes": [[10, 20, 110, 220]],
      "conversations": [{"from": "human", "value": "<image>\\nWhat is <region1>?"},
                        {"from": "gpt", "value": "a cracked cup"}]}]

Boxes are pixel xyxy in the original image, and `<region1>` is the first. The questions of a record name each of its
boxes; answers name no others. Without `boxes` a conversation is about the image alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt4roi_nb.data.box_check import box_from_xyxy
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.llava import texts_of_turns
from gpt4roi_nb.data.problems import OUT_OF_RANGE, BadRecord, Problems, field, id_field, path_field
from gpt4roi_nb.data.record import CONVERSATION, Annotation, as_boxes, regions_of
from gpt4roi_nb.prompt import HALF_CHARACTER, check_turns


def read_conversations(
    file: Path, problems: Problems, images: Path | None = None, *, name: str = "conversations"
) -> Iterator[Annotation]:
    """Yield one annotation per record, in the words of the file.

    Args:
        name: the source that records name.
    """
    for index, (_, entry) in enumerate(elements(file, problems)):
        try:
            image = path_field(entry, "image")
            boxes = [box_from_xyxy(box) for box in field(entry, "boxes", list, [])]
            texts = texts_of_turns(field(entry, "conversations", list), _whole)
            _check(texts, len(boxes))
            record_id = f"{id_field(entry, 'id')}-{index}"
            yield Annotation(CONVERSATION, image, as_boxes(boxes), texts, name, record_id)
        except BadRecord as bad:
            problems.add(bad, f"{file.name}: record {index}")


def _whole(text: str) -> str:
    """A text that may name regions."""
    return HALF_CHARACTER.sub("\ufffd", text).strip()


def _check(texts: tuple[str, ...], count: int) -> None:
    """Raise BadRecord unless the questions name regions 1 to `count`, and the answers no others."""
    turns: Any = [(("user", "assistant")[k % 2], text) for k, text in enumerate(texts)]
    try:
        check_turns(turns)
    except ValueError as error:  # a misspelt reference
        raise BadRecord(OUT_OF_RANGE, str(error)) from error
    expected, asked, answered = set(range(1, count + 1)), regions_of(texts[::2]), regions_of(texts[1::2])
    if set(asked) != expected or not set(answered) <= expected:
        raise BadRecord(
            OUT_OF_RANGE,
            f"there are {count} boxes, but the questions name regions {sorted(asked)} and the answers "
            f"{sorted(answered)}; the questions must name each from 1 to {count} as <region1>, the answers no other",
        )
