"""VCR: choose one of four answers, and one of four rationales; val has labels, test is for the leaderboard.

Q→A offers the four answers, QA→R the right answer with four rationales. Q→AR counts an annotation only if both are
right. The test split has no labels: the rationale is asked for after each of the answers, and the probabilities are
written to the file for the leaderboard.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.box_check import box_from_xyxy
from gpt4roi_nb.data.image_files import Folder
from gpt4roi_nb.data.json_stream import lines
from gpt4roi_nb.data.problems import BadRecord, Problems, field, length_field
from gpt4roi_nb.data.protocol_texts import LETTERS, choice_question
from gpt4roi_nb.data.record import ANSWER_CHOICE, Annotation, as_boxes
from gpt4roi_nb.data.vcr import OPTIONS, UNLABELLED, read_vcr
from gpt4roi_nb.evaluate.benchmarks.benchmark import Published, part
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.benchmarks.letters import accuracy, chosen_rightly, lettered, without_letter
from gpt4roi_nb.evaluate.metrics.statistics import mean_metric
from gpt4roi_nb.files import read_json
from gpt4roi_nb.prompt import references

SUBMISSION = "vcr_test_submission.csv"
GROUPS = ("answer", *(f"rationale_conditioned_on_a{k}" for k in range(OPTIONS)))
HEAD = ("annot_id", *(f"{group}_{k}" for group in GROUPS for k in range(OPTIONS)))
GUESS = (1 / OPTIONS,) * OPTIONS
SUM_TOLERANCE = 1e-3
_KINDS = {"Q→A": "qa", "QA→R": "qar"}


def files(root: Path, split: str) -> dict[str, Path]:
    """Return the annotations, and the folder of images with their metadata."""
    folder = part(root, "vcr")
    return {"annotations": folder / f"{split}.jsonl", "images and metadata": folder / "vcr1images"}


def items(config: EvalConfig, problems: Problems) -> Iterator[Item]:
    """Yield two questions per annotation; five in the test split."""
    found = files(config.root, config.split)
    if config.split == "test" and config.scorer != "likelihood":
        raise ValueError("the leaderboard takes probabilities: VCR's test split needs scorer='likelihood'")
    if config.split == "test" and not config.keep:
        raise ValueError(f"VCR's test split has no metrics, only {SUBMISSION}: give the folder to write it into")
    images = found["images and metadata"]
    rendering = UNLABELLED if config.split == "test" else "choice"
    for annotation in read_vcr(found["annotations"], problems, images, rendering=rendering):
        yield _item(annotation, images)


def _item(annotation: Annotation, images: Path) -> Item:
    group, _, asked = annotation.id.rpartition("/")
    first = annotation.kind == ANSWER_CHOICE
    question, *rest = annotation.texts
    answer = None if first else rest.pop(0)
    cited = references(question)
    kind = "qa" if first else "qar"
    suffix = kind if first or asked == "rationale" else asked  # "rationale2": after answer 2, in the test split
    return Item(
        id=f"vcr/{group}/{suffix}",
        image=str(images / annotation.image),
        boxes=tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in annotation.boxes.tolist()),
        question=choice_question(len(annotation.boxes), question, rest, answer),
        target=LETTERS[annotation.choice] if annotation.choice >= 0 else "",
        options=LETTERS,
        region=cited[0] if cited else 0,
        kind=kind,
        group=group,
        facts={"choice": annotation.choice, "part": suffix},
    )


def masks(config: EvalConfig, items: Sequence[Item]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield the polygons of each item's regions, from the metadata files beside the images (`segms`)."""
    folder = Folder(files(config.root, config.split)["images and metadata"])
    by_image: dict[str, list[Item]] = {}
    for item in items:
        by_image.setdefault(item.image, []).append(item)
    for image, about in by_image.items():
        try:
            file = folder.file(Path(image).relative_to(folder.root).with_suffix(".json").as_posix())
            outlines = _outlines(read_json(file, "the folder of the image"))
        except (OSError, ValueError):  # BadRecord is one
            continue
        for item in about:
            yield item.id, [outlines.get(box) for box in item.boxes]


def _outlines(facts: dict[str, Any]) -> dict[Box, Any]:
    """Return box → polygons of the objects of a metadata file."""
    size = length_field(facts, "width"), length_field(facts, "height")
    found = {}
    for row, polygons in zip(field(facts, "boxes", list), field(facts, "segms", list), strict=True):
        try:
            box = box_from_xyxy(row[:4] if isinstance(row, list) else row, *size)
        except BadRecord:  # noted when the questions were read
            continue
        ((x1, y1, x2, y2),) = as_boxes([box]).tolist()  # rounded as those of the questions
        found[x1, y1, x2, y2] = _flat(polygons)
    return found


def _flat(polygons: Any) -> Any:
    """Convert polygons of corners [x, y] to lists [x, y, x, y, …]; leave what is malformed."""

    def flat(polygon: Any) -> Any:
        if not isinstance(polygon, list) or not all(isinstance(corner, list) for corner in polygon):
            return polygon
        return [side for corner in polygon for side in corner]

    return list(map(flat, polygons)) if isinstance(polygons, list) else polygons


def score(items: Sequence[Item], predictions: Sequence[Prediction], config: EvalConfig) -> Scores:
    """Compute Q→A, QA→R and, on annotations with both, Q→AR. For the test split, write the submission instead."""
    if config.split == "test":
        return _submitted(items, predictions, config)
    right = chosen_rightly(items, predictions)
    metrics = {name: accuracy(items, right, kind) for name, kind in _KINDS.items()}
    both: dict[str, dict[str, int]] = {}
    for k, item in enumerate(items):
        both.setdefault(item.group, {})[item.kind] = k
    whole = [parts for parts in both.values() if len(parts) == len(_KINDS)]
    metrics["Q→AR"] = mean_metric(
        [all(right[k] for k in parts.values()) for parts in whole], [items[parts["qa"]].image for parts in whole]
    )
    return Scores(metrics, {"correct": list(right)}, without_letter(predictions), ["guessing gives 25, 25 and 6.25"])


def _submitted(items: Sequence[Item], predictions: Sequence[Prediction], config: EvalConfig) -> Scores:
    """Write a row for each annotation of the file, as the leaderboard demands, with guesses for those not asked."""
    rows: dict[str, dict[str, tuple[float, ...]]] = {}
    for item, one in zip(items, predictions, strict=True):
        name = "answer" if item.kind == "qa" else f"rationale_conditioned_on_a{item.facts['part'][-1]}"
        rows.setdefault(item.group, {})[name] = tuple(map(math.exp, one.option_logprobs or ()))
    file = config.folder / SUBMISSION
    names = list(rows) if config.limit is not None else _annotations(files(config.root, "test")["annotations"])
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(HEAD)
        for name in dict.fromkeys((*names, *rows)):
            given = [rows.get(name, {}).get(group, GUESS) for group in GROUPS]
            writer.writerow([name, *(f"{value:.8f}" for group in given for value in group)])
    check_submission(file, names)
    counts = {"rows of the submission": len(names)}
    notes = [f"the split has no labels: {SUBMISSION} holds the probabilities for the leaderboard"]
    guessed = sum(len(rows.get(name, {})) < len(GROUPS) for name in names)
    if guessed:
        counts["annotations with guesses in the submission"] = guessed
        notes.append(f"{guessed} annotations lack answers; {SUBMISSION} has {GUESS[0]} for each option there")
    return Scores({}, {}, counts, notes)


def _annotations(file: Path) -> list[str]:
    """Return the ids of all annotations of a file, including those that cannot be asked about."""
    entries = (entry for _, entry in lines(file, Problems()))
    names = (entry.get("annot_id") for entry in entries if isinstance(entry, dict))
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and name))


def check_submission(file: Path, annotations: Iterable[str]) -> None:
    """Check a leaderboard file: its header, one row per annotation, and probabilities that sum to 1 in every group.

    Args:
        file: the CSV file.
        annotations: ids that it must have.

    Raises:
        ValueError: the file is wrong; the message names the first wrong row.
    """
    with file.open(newline="", encoding="utf-8") as stream:
        head, *rows = list(csv.reader(stream))
    if tuple(head) != HEAD:
        raise ValueError(f"{file.name}: the header must be {', '.join(HEAD)}, but is {', '.join(head)}")
    expected = list(annotations)
    names = [row[0] for row in rows if row]
    if sorted(names) != sorted(expected):
        odd = sorted({*names} ^ {*expected}) or sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{file.name}: there must be one row per annotation; see {odd[0]!r}")
    for row in rows:
        values = [float(cell) for cell in row[1:]]
        if len(values) != len(HEAD) - 1 or not all(0 <= value <= 1 for value in values):
            raise ValueError(f"{file.name}: row {row[0]!r} must hold {len(HEAD) - 1} probabilities")
        for place, group in enumerate(GROUPS):
            total = sum(values[place * OPTIONS : (place + 1) * OPTIONS])
            if abs(total - 1) > SUM_TOLERANCE:
                raise ValueError(f"{file.name}: row {row[0]!r}: {group} must sum to 1, but sums to {total:.4f}")


VCR = lettered(
    name="vcr",
    title="VCR",
    splits=("val", "test", "train"),
    prompt=choice_question(1, "… <region1> …?", ["…", "…", "…", "…"]) + '\n(QA→R: with "Answer: …" before the options)',
    files=files,
    items=items,
    score=score,
    masks=masks,
    published=(
        Published(
            "GPT4RoI-7B",
            "val, fine-tuned to the answer format, generate",
            {"Q→A": 87.4, "QA→R": 89.6, "Q→AR": 78.6},
            model="GPT4RoI-7B",
            split="val",
        ),
        Published(
            "GPT4RoI-13B",
            "test, fine-tuned to the answer format",
            {"Q→A": 89.4, "QA→R": 91.0, "Q→AR": 81.6},
            model="GPT4RoI-13B",
            split="test",
        ),
    ),
)
