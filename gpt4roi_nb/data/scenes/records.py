"""Generated scenes as training records in the world's own short words: pictures in a folder, a question an object.

The annotation files of `python -m gpt4roi_nb.data.scenes` are in the datasets' forms and words; these are questions as
`questions.ask` words them, which the demo checkpoint's language model knows.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from gpt4roi_nb.data.record import Record, as_boxes
from gpt4roi_nb.data.scenes.questions import ONE_REGION, ask
from gpt4roi_nb.data.scenes.scene import scenes


def scene_records(
    folder: str | os.PathLike[str],
    count: int,
    *,
    seed: int,
    kind: str = "phrase",
    size: int = 336,
    n_objects: tuple[int, int] = (3, 7),
) -> list[Record]:
    """One record an object of each scene, in the order of the scenes; the pictures are written into `folder`.

    Args:
        count, seed: which scenes, as `scenes(seed, count)` draws them.
        kind: what is asked about each object: "phrase" for all of it, or "category", "colour", "material", "size".
        size: side of the pictures in pixels.
        n_objects: least and most objects of a picture, both included.

    Raises:
        ValueError: for a kind that is not about one region.
    """
    if kind not in ONE_REGION:
        raise ValueError(f"kind must be one of {', '.join(ONE_REGION)}, but is {kind!r}")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, count])
    records = []
    for number, scene in enumerate(scenes(seed, count, size=size, n_objects=n_objects)):
        name = f"{seed}-{number}.png"
        Image.fromarray(scene.image).save(target / name)
        for index, thing in enumerate(scene.objects):
            question = ask(scene, kind, rng, objects=(index,))
            if question is not None:  # of one region it never is
                turns = (("user", question.text), ("assistant", question.answer))
                records.append(Record(name, as_boxes([thing.box]), turns, f"scenes/{kind}", f"{seed}-{number}/{index}"))
    return records
