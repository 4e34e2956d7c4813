"""GAR-Bench-VQA: questions about regions given as masks, with two to four lettered options.

    gar_bench/    GAR-Bench-VQA.json, and images/ (as in `annotations/` of the benchmark's repository)

424 questions of seven types (Grasp Any Region, arXiv 2510.18876). The file calls the regions `<Prompt0>`, `<Prompt1>`,
… in the order of its masks, which are compressed run lengths; here they are `<region1>`, `<region2>`, …, each with the
tight box of its mask. An answer is right if it is the letter of the right option and nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpt4roi_nb.data.json_stream import elements
from gpt4roi_nb.data.problems import OUT_OF_RANGE, WRONG_TYPE, BadRecord, Problems, field, path_field, shown, text_field
from gpt4roi_nb.data.record import harmless, regions_of
from gpt4roi_nb.data.run_lengths import mask_from_lengths
from gpt4roi_nb.evaluate.benchmarks.benchmark import Benchmark, Published, part
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.benchmarks.letters import accuracy, letter_of
from gpt4roi_nb.evaluate.metrics.statistics import mean_metric
from gpt4roi_nb.prompt import region

NAME = "gar_bench"
FILE = "GAR-Bench-VQA.json"
LETTERS = ("A", "B", "C", "D")
TYPES = ("color", "shape", "texture/pattern", "material", "ordering", "mirror", "relation")
# The protocol's own words (evaluation/GAR-Bench/inference.py of its repository).
FORM = "Question: {question}\nOptions:\n{options}\nAnswer with the correct option's letter directly."
HALF = 0.5
BOXES = "regions given as the box of their mask"
THIN = "masks that fill less than half of their box"
OTHER_SIZE = "masks of another size than their image"
IN_OTHER_WORDS = "right letters with other text around them, which do not count"
UNSEEN = (
    "Masks become boxes: the model sees neither a mask's outline nor which of the things in its box it marks. "
    "Published figures are for models that see the masks."
)
GUESSING = "Guessing gives 25 with four options, and 50 with two."

_PROMPT = re.compile(r"<Prompt(\d{1,3})>")


def _base(root: Path) -> Path:
    """Return the folder of the question file: the dataset's, or `annotations` in it."""
    base = part(root, NAME)
    inner = base / "annotations"
    return inner if not (base / FILE).is_file() and (inner / FILE).is_file() else base


def files(root: Path, split: str) -> dict[str, Path]:
    """Return the questions and the folder of images."""
    return {"questions": _base(root) / FILE, "images": _base(root) / "images"}


def items(config: EvalConfig, problems: Problems) -> Iterator[Item]:
    """Yield one item per question. `limit` draws whole images."""
    file = files(config.root, config.split)["questions"]
    for number, (_, entry) in enumerate(elements(file, problems)):
        try:
            yield _item(entry, number, file.parent)
        except BadRecord as bad:
            problems.add(bad, f"{file.name}: question {number}")


def _item(entry: Any, number: int, base: Path) -> Item:
    image = str((base / path_field(entry, "image")).absolute())
    kind = field(entry, "type", str)
    if kind not in TYPES:
        raise BadRecord(WRONG_TYPE, f"'type' must be one of {', '.join(TYPES)}, but is {shown(kind)}")
    choices = field(entry, "choices", list)
    letters = LETTERS[: len(choices)]
    if not 2 <= len(choices) <= len(LETTERS) or not all(map(_is_lettered, choices, letters)):
        raise BadRecord(WRONG_TYPE, f"'choices' must be two to four texts 'A. …', 'B. …', …, but is {shown(choices)}")
    target = field(entry, "answer", str)
    if target not in letters:
        raise BadRecord(OUT_OF_RANGE, f"'answer' must be one of {', '.join(letters)}, but is {shown(target)}")
    masks = [mask_from_lengths(lengths) for lengths in field(entry, "mask_rles", list)]
    asked = harmless(FORM.format(question=text_field(entry, "question"), options="\n".join(choices)))
    question, end, rest = _numbered(asked).partition("\nOptions:\n")
    named = regions_of([question, rest])
    if sorted(named) != list(range(1, len(masks) + 1)):
        raise BadRecord(OUT_OF_RANGE, f"there are {len(masks)} masks, but the texts name {shown(named)}, from 1")
    about = regions_of([question])
    return Item(
        id=f"{NAME}/{number}",
        image=image,
        boxes=tuple(mask.box for mask in masks),
        question=question + end + rest,
        target=target,
        options=letters,
        region=about[0] if about else 0,
        kind=kind,
        group=image,
        facts={"masks": masks},
    )


def masks(config: EvalConfig, items: Sequence[Item]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield the masks of each item's regions, at their own size."""
    for item in items:
        yield item.id, [{"size": list(mask.size), "counts": mask.counts} for mask in item.facts["masks"]]


def _is_lettered(choice: Any, letter: str) -> bool:
    return isinstance(choice, str) and choice.startswith(f"{letter}. ") and bool(choice[3:].strip())


def _numbered(text: str) -> str:
    """Replace the file's references by this package's, which count from 1."""
    return _PROMPT.sub(lambda found: region(int(found[1]) + 1), text)


def score(items: Sequence[Item], predictions: Sequence[Prediction], config: EvalConfig) -> Scores:
    """Compute accuracy by exact match, ignoring case: over all questions, and for each type that occurs."""
    right = [_matches(item, one) for item, one in zip(items, predictions, strict=True)]
    kinds = {item.kind for item in items}
    metrics = {"overall": mean_metric(right, [item.image for item in items])}
    metrics |= {kind: accuracy(items, right, kind) for kind in TYPES if kind in kinds}
    counts: Counter[str] = Counter()
    outlines: list[str | None] = []
    for item, one, exact in zip(items, predictions, right, strict=True):
        masks = item.facts["masks"]
        same_size = all(mask.size == (one.height, one.width) for mask in masks)
        counts[BOXES] += len(masks)
        counts[THIN] += sum(mask.fill < HALF for mask in masks)
        counts[OTHER_SIZE] += not same_size
        counts[IN_OTHER_WORDS] += not exact and letter_of(one.answer) == f"({item.target})"
        outlines.append(masks[item.region - 1].counts if item.region and same_size else None)
    return Scores(metrics, {"correct": right, "mask": outlines}, dict(+counts), [UNSEEN, GUESSING])


def _matches(item: Item, prediction: Prediction) -> bool:
    return prediction.answer.strip().lower() == item.target.lower()


def _published(model: str, overall: float, *by_type: float) -> Published:
    source = f"{model}, from its repository (evaluation/EVALUATION.md); none is published for GPT4RoI"
    figures = {"overall": overall} | dict(zip(TYPES, by_type, strict=True))
    return Published(source, "all 424 questions; another model, with masks", figures, model=model, split="test")


GAR_BENCH = Benchmark(
    name=NAME,
    title="GAR-Bench-VQA, masks given as their boxes",
    splits=("test",),  # the only one
    scoring=("generate", "likelihood"),
    prompt=FORM.format(question="… <region1> …?", options="A. …\nB. …\nC. …\nD. …"),
    mapping="exact match with the letter of the right option, ignoring case",
    max_new_tokens=16,
    fixed_prompt=True,
    files=files,
    more_folders=lambda root, split: [_base(root)],
    items=items,
    score=score,
    masks=masks,
    published=(
        _published("GAR-1B", 47.9, 49.3, 50.0, 58.6, 38.9, 20.3, 59.0, 56.4),
        _published("GAR-8B", 57.8, 58.0, 53.1, 75.9, 52.8, 43.8, 59.0, 65.4),
    ),
)
