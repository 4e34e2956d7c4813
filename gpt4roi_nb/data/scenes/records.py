"""Generated scenes as training records in the world's own short words: pictures in a folder, a question per object.

The annotation files of `python -m gpt4roi_nb.data.scenes` are in the datasets' forms and words; these are questions as
`questions.ask` words them, which the demo checkpoint's language model knows.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from gpt4roi_nb.data.scenes.questions import ONE_REGION, Question, ask
from gpt4roi_nb.data.scenes.scene import scenes

if TYPE_CHECKING:
    from gpt4roi_nb.data.record import Record


def scene_records(
    folder: str | os.PathLike[str],
    count: int,
    *,
    seed: int,
    kind: str = "phrase",
    size: int = 336,
    n_objects: tuple[int, int] = (3, 7),
    together: bool = False,
) -> list[Record]:
    """One record per object of each scene, in the order of the scenes; the images are written into `folder`.

    Args:
        count, seed: which scenes, as `scenes(seed, count)` draws them.
        kind: what is asked about each object: "phrase" for all of it, or "category", "colour", "material", "size".
        size: side of the pictures in pixels.
        n_objects: least and most objects of an image, both included.
        together: one record per scene, a conversation with a turn about each object. Training then reads an image once
            for all of its objects.

    Raises:
        ValueError: for a kind that is not about one region.
    """
    # imports transformers, which the processes that write a world do without
    from gpt4roi_nb.data.record import Record, as_boxes

    if kind not in ONE_REGION:
        raise ValueError(f"kind must be one of {', '.join(ONE_REGION)}, but is {kind!r}")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, count])
    records = []
    for number, scene in enumerate(scenes(seed, count, size=size, n_objects=n_objects)):
        name = f"{seed}-{number}.png"
        Image.fromarray(scene.image).save(target / name)
        drawn = [ask(scene, kind, rng, objects=(index,)) for index in range(len(scene.objects))]
        asked = [question for question in drawn if question is not None]  # of one region it never is
        source, entry = f"scenes/{kind}", f"{seed}-{number}"
        boxes = [thing.box for thing in scene.objects]
        if together:
            turns = [turn for index, question in enumerate(asked, start=1) for turn in _turns(question, index)]
            records.append(Record(name, as_boxes(boxes), tuple(turns), source, entry))
        else:
            records += [
                Record(name, as_boxes([box]), _turns(question, 1), source, f"{entry}/{index}")
                for index, (box, question) in enumerate(zip(boxes, asked, strict=True))
            ]
    return records


def _turns(question: Question, region: int) -> tuple[tuple[str, str], tuple[str, str]]:
    """A question about one region and its answer, as turns about region number `region`."""
    return ("user", question.text.replace("<region1>", f"<region{region}>")), ("assistant", question.answer)
