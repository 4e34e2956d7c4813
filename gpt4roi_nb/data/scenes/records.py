"""Generated scenes as training records in the world's own short words: images in a folder, one question per object.

The annotation files of `python -m gpt4roi_nb.data.scenes` have the forms and words of published data sets. These
records ask what `questions.ask` asks, in words that the demo checkpoint's language model knows.
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
    """Write images of generated scenes into a folder and return training records about them.

    Args:
        folder: where the images are written; made if it does not exist.
        count, seed: which scenes, as `scenes(seed, count)` draws them.
        kind: what to ask about each object: "phrase" for all of it, or "category", "colour", "material", "size".
        size: side of the square images in pixels.
        n_objects: least and most objects per image, both included.
        together: return one record per scene, with one question about each object, instead of one record per object.
            Training then reads each image once for all of its objects.

    Returns:
        The records, in the order of the scenes. Their image paths are relative to `folder`.

    Raises:
        ValueError: the kind is not about one region, or a scene cannot be drawn, as in `make_scene`.

    Example:
        >>> from gpt4roi_nb.data.scenes import scene_records
        >>> records = scene_records("images", 1, seed=0, kind="colour", n_objects=(3, 3))
        >>> len(records), records[0].image, records[0].boxes.shape
        (3, '0-0.png', (1, 4))
    """
    # imported here, since it imports transformers, which the processes that write a world do without
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
        asked = [question for question in drawn if question is not None]  # never None for one region
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
