"""`export_questions`: the questions of a benchmark as JSON lines, for a model that runs elsewhere."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.data.problems import BadRecord
from gpt4roi_nb.evaluate.benchmarks.item import Item
from gpt4roi_nb.evaluate.benchmarks.masks import run_lengths_of
from gpt4roi_nb.evaluate.benchmarks.registry import benchmark, check_files
from gpt4roi_nb.evaluate.exchange import FORMAT, LIKELIHOOD, Asked, Sizes, sizes_of
from gpt4roi_nb.evaluate.processes import data_root
from gpt4roi_nb.evaluate.questions import Questions, chosen_of
from gpt4roi_nb.evaluate.worlds import title_of
from gpt4roi_nb.files import replacing

HOW_TO = {
    "generate": "one line per question: {id, answer: the text that the model wrote}",
    LIKELIHOOD: (
        "one line per question: {id, option_logprobs: natural log-probability of each of the options, in their order}; "
        "the likeliest option is the answer"
    ),
}


def export_questions(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    scorer: str | None = None,
    question: str | None = None,
    wording: str | None = None,
) -> Path:
    """Write the questions of a benchmark as JSON lines, for a model that runs in an environment of its own.

    The first line is a header: benchmark, split, how answers are scored, and `questions`, a hash of all questions. Each
    further line is a question:

    - `id`;
    - `image`: its path relative to `root`; `width`, `height`: of the upright image in pixels;
    - `question`: as the benchmark asks it, with `<region1>` for the first region; with lettered options, if it has any;
    - `boxes`: pixel xyxy in the upright image, one per region;
    - `masks`: one per region, COCO's compressed run lengths, or null; null if the benchmark has none;
    - `options`: texts to compare or to choose from; empty for a free answer;
    - `region`: number of the region that the question is about, 0 for the whole image.

    Questions about images that are missing or cannot be read are left out, with a warning.

    Args:
        name: one of `BENCHMARKS`.
        root, split, limit, seed, scorer, question, wording: as for `evaluate`.
        out: the file to write. None writes "<name>.questions.jsonl" in the working folder.

    Returns:
        The file.

    Raises:
        FileNotFoundError: data is missing; the message names each file.
        ImportError: pycocotools is missing, and the benchmark's masks are polygons.
        ValueError, TypeError: an argument is invalid, or no question is usable.

    >>> import json
    >>> from gpt4roi_nb.data.scenes.formats.write import write_world
    >>> from gpt4roi_nb.evaluate import export_questions
    >>> world = write_world("world", 2, progress=False)
    >>> header, *lines = export_questions("coco", world, out="questions.jsonl").read_text().splitlines()
    >>> json.loads(header)["benchmark"], sorted(json.loads(lines[0]))
    ('coco', ['boxes', 'height', 'id', 'image', 'masks', 'options', 'question', 'region', 'width'])
    """
    chosen = benchmark(name)
    asked = Asked(
        chosen.name,
        chosen_of("split", split, chosen.splits),
        None if limit is None else whole_number(limit, "limit", least=1),
        whole_number(seed, "seed"),
        chosen_of("scorer", scorer, chosen.scoring),
        question,
        wording,
    )
    place = data_root(root, None)
    check_files(chosen.name, place, asked.split)
    questions = asked.read(place)
    questions.warn_of_missing_images(stacklevel=2)
    sizes = sizes_of(questions.items)
    items = [item for item in questions.items if isinstance(sizes[item.image], tuple)]
    if not items:
        raise ValueError(f"none of the {len(sizes):,} images can be read, such as {questions.items[0].image!r}")
    masks = _masks(questions, items, sizes)
    header = {
        "format": FORMAT,
        **asked.header(),
        "questions": questions.digest(),
        "count": len(items),
        "dataset": title_of(chosen.title, place),
        "prompt": question or chosen.wordings.get(wording or "", chosen.prompt),
        "max_new_tokens": chosen.max_new_tokens,
        "answers": HOW_TO[asked.scorer],
    }
    target = Path(f"{chosen.name}.questions.jsonl" if out is None else out)
    with replacing(target) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.write(_line(header))
        for item in items:
            stream.write(_line(_told(item, place, sizes[item.image], masks.get(item.id))))
    return target


def _told(item: Item, root: Path, size: tuple[int, int] | BadRecord, masks: Sequence[Any] | None) -> dict[str, Any]:
    width, height = size if isinstance(size, tuple) else (0, 0)
    return {
        "id": item.id,
        "image": Path(os.path.relpath(item.image, root)).as_posix(),
        "width": width,
        "height": height,
        "question": item.question,
        "boxes": [list(map(float, box)) for box in item.boxes],
        "masks": None if masks is None else list(masks),
        "options": list(item.options),
        "region": item.region,
    }


def _masks(questions: Questions, items: Sequence[Item], sizes: Sizes) -> dict[str, list[dict[str, Any] | None]]:
    """Return id → the masks of an item's regions as run lengths; None for one that cannot be used."""
    images = {item.id: item.image for item in items}
    found: dict[str, list[dict[str, Any] | None]] = {}
    unusable: Counter[str] = Counter()
    for name, several in questions.benchmark.masks(questions.config, items):
        size = sizes.get(images.get(name, ""))
        if not isinstance(size, tuple):
            continue
        found[name] = []
        for one in several:
            try:
                found[name].append(run_lengths_of(one, *size))
            except BadRecord as bad:
                found[name].append(None)
                unusable[str(bad)] += 1
    if unusable:
        warnings.warn(
            f"{unusable.total():,} masks cannot be used and are null, such as: {next(iter(unusable))}", stacklevel=3
        )
    return found


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"
