"""Region captions: what Visual Genome and RefCOCOg have in common as benchmarks. One caption a region."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt4roi_nb.evaluate.benchmarks.item import EMPTY_ANSWER, Box, Item, Prediction, Scores, Setting
from gpt4roi_nb.evaluate.metrics.caption_scores import score_captions
from gpt4roi_nb.evaluate.metrics.statistics import Figure
from gpt4roi_nb.evaluate.scorers import CAPTIONS

PROMPT = "Give a short description of <region1>."
MAX_NEW_TOKENS = 48
JUDGES = (CAPTIONS,)
CIDER = (
    "CIDEr is 100 for a score of 1, and at most 1000. It weighs words by how rare they are among the references at "
    "hand, so that figures of different sets of regions do not compare."
)


@dataclass(frozen=True, slots=True)
class CaptionedRegion:
    """A region with all that people wrote about it.

    id: unique within the data set. image: path of the picture. box: pixel xyxy. group: the picture's own id.
    """

    id: str
    image: Path
    box: Box
    references: tuple[str, ...]
    group: str


def caption_items(dataset: str, regions: Iterable[CaptionedRegion], setting: Setting) -> Iterator[Item]:
    """An item for each region. `target` is the first reference; all are in `facts`."""
    for region in regions:
        yield Item(
            id=f"{dataset}/{region.id}",
            image=str(region.image.absolute()),
            boxes=(region.box,),
            question=setting.question or PROMPT,
            target=region.references[0],
            region=1,
            group=f"{dataset}/{region.group}",
            facts={"references": list(region.references)},
        )


def caption_figures(
    answers: Sequence[str], references: Sequence[Sequence[str]], units: Sequence[str]
) -> tuple[dict[str, Figure], list[float]]:
    """METEOR, CIDEr, BLEU-4 and ROUGE-L, and METEOR of each caption from 0 to 1.

    units: (N,) the image of each caption. Errors are those of `score_captions`.
    """
    scores = score_captions(answers, references)
    return scores.figures(units), (scores.items["METEOR"] / 100).tolist()


def score(items: Sequence[Item], predictions: Sequence[Prediction], setting: Setting) -> Scores:
    """The figures of captions; the `score` of an item is its METEOR. An empty answer scores 0 and is counted."""
    answers = [prediction.answer for prediction in predictions]
    references = [list(map(str, item.facts["references"])) for item in items]
    counts = Counter({EMPTY_ANSWER: sum(not answer.strip() for answer in answers)})
    if not items:
        return Scores({}, {"score": []}, {}, ["There was nothing to score."])
    figures, each = caption_figures(answers, references, [item.group for item in items])
    share = sum(map(len, references)) / len(references)
    notes = [f"{share:.3g} references a region, {len(items)} regions ({setting.split}).", CIDER]
    return Scores(figures, {"score": each}, dict(+counts), notes)
