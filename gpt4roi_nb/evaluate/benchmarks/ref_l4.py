"""Ref-L4 as captioning: long referring expressions are the references for the caption of their box.

    ref_l4/    ref-l4-val.parquet, ref-l4-test.parquet (or the same records as lists in …-val.json, …-test.json), and
               images/ with the unpacked images.tar.gz: images of COCO and Objects365

Ref-L4 (arXiv 2406.16866) has 45,341 expressions of 24 words on average. A box has several, some of them reworded by a
language model (`is_rewrite`). Each box is asked about once, and all of its expressions are references. Captions are
scored by rules alone. DAM and PixelRefer let GPT-4o shorten captions and references before scoring, so their figures
follow another protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.box_check import box_from_xywh
from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.problems import BadRecord, Problems, field, id_field, length_field, path_field, text_field
from gpt4roi_nb.data.record import one_line
from gpt4roi_nb.evaluate.benchmarks import captions
from gpt4roi_nb.evaluate.benchmarks.benchmark import Benchmark, part
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.metrics.scorers import CAPTIONS
from gpt4roi_nb.files import check_regular_file

NAME = "ref_l4"
ALL = "all"
SPLITS = ("val", "test", ALL)
PROMPT = "Give a detailed description of <region1>."  # no protocol with rule-based scores fixes a wording
COLUMNS = ("id", "caption", "bbox", "height", "width", "file_name")
NOT_PUBLISHED = (
    "Captions and references are scored as they are. For the published figures of captions on Ref-L4 (DAM, PixelRefer) "
    "GPT-4o shortens both first, so these are not comparable."
)


def files(root: Path, split: str) -> dict[str, Path]:
    """Return the annotations of a split, or of both, and the folder of images."""
    base = part(root, NAME)
    wanted = SPLITS[:2] if split == ALL else (split,)
    annotations = {f"annotations of {name}": _annotations(base, name) for name in wanted}
    return annotations | {"images (unpack images.tar.gz into that folder)": base / "images"}


def _annotations(base: Path, split: str) -> Path:
    parquet, listed = (base / f"ref-l4-{split}.{ending}" for ending in ("parquet", "json"))
    return listed if listed.is_file() and not parquet.exists() else parquet


def items(config: EvalConfig, problems: Problems) -> Iterator[Item]:
    """Yield one item per box: `target` is its first expression, `facts` has all. `limit` draws whole images."""
    *annotations, images = files(config.root, config.split).values()
    asked: dict[tuple[str, Box], Item] = {}
    for file in annotations:
        for number, entry in enumerate(_records(file, problems)):
            try:
                item = _item(entry, images, config)
            except BadRecord as bad:
                problems.add(bad, f"{file.name}: annotation {number}")
                continue
            known = asked.setdefault((item.image, item.boxes[0]), item)
            if known is not item:
                known.facts["references"] += item.facts["references"]
    yield from asked.values()


def _item(entry: Any, images: Path, config: EvalConfig) -> Item:
    caption = one_line(text_field(entry, "caption"))
    image = str((images / path_field(entry, "file_name")).absolute())
    size = length_field(entry, "width"), length_field(entry, "height")
    return Item(
        id=f"{NAME}/{id_field(entry, 'id')}",
        image=image,
        boxes=(box_from_xywh(field(entry, "bbox", list), *size),),
        question=config.question or PROMPT,
        target=caption,
        region=1,
        group=image,
        facts={"references": [caption]},
    )


def _records(file: Path, problems: Problems) -> Iterator[Any]:
    """Yield the records of an annotation file. Raises ValueError if a Parquet file is damaged or lacks a column."""
    if file.suffix == ".json":
        yield from (entry for _, entry in elements(file, problems))
        return
    check_regular_file(file)
    try:
        columns = pq.read_schema(file).names
        missing = [name for name in COLUMNS if name not in columns]
        rows = [] if missing else pq.read_table(file, columns=list(COLUMNS)).to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{str(file)!r} is damaged or not a Parquet file: {error}") from error
    if missing:
        raise ValueError(f"{str(file)!r} lacks the column {missing[0]!r}; Ref-L4's files have {', '.join(COLUMNS)}")
    yield from rows


def score(items: Sequence[Item], predictions: Sequence[Prediction], config: EvalConfig) -> Scores:
    """Compute METEOR, CIDEr, BLEU-4 and ROUGE-L, as for the other captioning benchmarks."""
    scores = captions.score(items, predictions, config)
    return replace(scores, notes=[*scores.notes, NOT_PUBLISHED])


REF_L4 = Benchmark(
    name=NAME,
    title="Ref-L4 region captions, references not shortened",
    splits=SPLITS,
    scoring=("generate",),
    prompt=PROMPT,
    mapping="",
    max_new_tokens=96,
    files=files,
    items=items,
    score=score,
    scorers=(CAPTIONS,),
)
