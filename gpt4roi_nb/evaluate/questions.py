"""The questions of a benchmark run, and the way from their answers to a `Result`."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt4roi_nb.data.image_files import Folder
from gpt4roi_nb.data.problems import AMBIGUOUS, NO_IMAGE, OUTSIDE_FOLDER, BadRecord, Problems
from gpt4roi_nb.evaluate.benchmarks.benchmark import Benchmark
from gpt4roi_nb.evaluate.benchmarks.item import EMPTY_ANSWER, EvalConfig, Item, Prediction
from gpt4roi_nb.evaluate.card import ProtocolCard
from gpt4roi_nb.evaluate.metrics.scorers import mapping_of
from gpt4roi_nb.evaluate.metrics.statistics import intervals
from gpt4roi_nb.evaluate.predict import Outcome
from gpt4roi_nb.evaluate.predictions import predictions_table
from gpt4roi_nb.evaluate.result import Result
from gpt4roi_nb.evaluate.worlds import title_of
from gpt4roi_nb.files import stamp_of, write_json

LEFT_OUT = "left_out.json"
DIGEST_LENGTH = 12
CardOf = Callable[[dict[str, Any]], ProtocolCard]


class Questions:
    """The questions that a run asks, in the order in which it asks them, and what cannot be asked.

    Args:
        benchmark: the benchmark.
        config: of the run.

    Attributes:
        items: the questions, sorted by image and id.
        problems: what was wrong with other records.
        unusable: image → why it is not a file inside the data folders.

    Raises:
        ValueError: no question is usable.
    """

    def __init__(self, benchmark: Benchmark, config: EvalConfig) -> None:
        self.benchmark = benchmark
        self.config = config
        self.problems = Problems()
        found = list(benchmark.items(config, self.problems))
        folders = benchmark.image_folders(config.root, config.split)
        self.unusable = unusable_images(folders, {item.image for item in found})
        # Sorted, so that batches do not depend on the order of the file.
        items = draw(list(self._sound(found)), config.limit, config.seed)
        self.items = sorted(items, key=lambda item: (item.image, item.id))
        if not self.items:
            raise ValueError(
                f"{benchmark.name} ({config.split}) has no usable question in {str(config.root)!r}\n"
                + self.problems.table()
            )
        self._image_of = {item.id: item.image for item in self.items}
        self._stamps: dict[str, str] = {}  # by image, as first read

    def _sound(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items that have a unique id and an image inside the data folder; note the others in `problems`."""
        seen = set()
        for item in items:
            bad = self.unusable.get(item.image)
            if item.id in seen:
                self.problems.add(BadRecord(AMBIGUOUS, "another question has the same id"), item.id)
            elif bad is not None and bad.reason == OUTSIDE_FOLDER:
                self.problems.add(bad, item.id)
            else:
                seen.add(item.id)
                yield item

    def warn_of_missing_images(self, stacklevel: int) -> None:
        """Warn of missing images before the run starts; their questions will be left out."""
        names = {item.image for item in self.items}
        gone = sorted(name for name in names & self.unusable.keys() if self.unusable[name].reason == NO_IMAGE)
        if gone:
            warnings.warn(
                f"{len(gone):,} of {len(names):,} images are missing, such as {gone[0]}; their questions are left out "
                "and counted",
                stacklevel=stacklevel + 1,
            )

    def stamp(self, item_id: str) -> str:
        """A value that changes when the file of a question's image changes; "" for a missing image or an unknown id."""
        image = self._image_of.get(item_id)
        if image is None:
            return ""
        if image not in self._stamps:  # once per image: a network disk is slow
            try:
                self._stamps[image] = stamp_of(image)
            except OSError:
                self._stamps[image] = ""
        return self._stamps[image]

    def digest(self) -> str:
        """Return a hash of the ids, texts, boxes and options of all questions."""
        asked = hashlib.sha256()
        for item in self.items:
            asked.update(f"{item.id}\n{item.question}\n{item.boxes}\n{item.options}\n".encode())
        return asked.hexdigest()[:DIGEST_LENGTH]

    def unfinished(self, answered: Collection[str]) -> set[str]:
        """Return the groups with a question that is not answered. answered: ids of items."""
        return {_group(item) for item in self.items if item.id not in answered}

    def judged(self, outcomes: Mapping[str, Outcome], card_of: CardOf) -> Result:
        """Score the answers of all groups that are complete.

        Args:
            outcomes: by id of an item.
            card_of: makes the card from its entries about what was asked.

        Raises:
            ValueError: no question could be asked.
        """
        unfinished = self.unfinished(outcomes.keys())
        items, predictions, left_out = [], [], Counter(self.problems.counts())
        details = list(self.problems)
        for item in self.items:
            outcome = outcomes.get(item.id)
            if isinstance(outcome, Prediction):
                if _group(item) not in unfinished:  # a group counts as a whole or not at all
                    items.append(item)
                    predictions.append(outcome)
            elif outcome is not None:
                left_out[outcome[1].reason] += 1
                details.append({"reason": outcome[1].reason, "where": item.id, "detail": outcome[1].detail})
        if not items:
            reasons = ", ".join(f"{count} × {reason}" for reason, count in left_out.items())
            raise ValueError(f"none of the {len(self.items)} questions could be asked: {reasons}; {details[-1]}")
        if self.config.keep:
            (self.config.folder / LEFT_OUT).unlink(missing_ok=True)  # of an earlier call
            if details:
                write_json(self.config.folder / LEFT_OUT, {"left_out": details})
        scores = self.benchmark.score(items, predictions, self.config)
        empty = sum(not prediction.answer for prediction in predictions)
        if empty:
            scores.counts.setdefault(EMPTY_ANSWER, empty)
        left_out.update(self.problems.left_out)
        about = self._asked(items, predictions) | {
            "complete": not unfinished,
            "left_out": dict(left_out),
            "counts": scores.counts,
        }
        return Result(
            benchmark=self.benchmark.name,
            metrics={name: metric.value for name, metric in scores.metrics.items()},
            intervals=intervals(scores.metrics, self.config.seed),
            card=card_of(about),
            predictions=predictions_table(items, predictions, scores),
            notes=scores.notes,
            folder=self.config.folder if self.config.keep else None,
        )

    def _asked(self, items: Sequence[Item], predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return the entries of a card that say what was asked and how it is scored."""
        likely = self.config.scorer == "likelihood"
        return {
            "benchmark": self.benchmark.name,
            "dataset": title_of(self.benchmark.title, self.config.root),
            "split": self.config.split,
            "images": len({item.image for item in items}),
            "regions": len({(item.image, box) for item in items for box in item.boxes}),
            "questions": len(items),
            "limit": self.config.limit,
            "seed": self.config.seed,
            "prompt": self.config.question
            or self.benchmark.wordings.get(self.config.wording or "", self.benchmark.prompt),
            "scorer": self.config.scorer,
            # With likelihoods the answer is one of the options, so nothing is mapped.
            "mapping": "" if likely else mapping_of(self.benchmark.mapping, self.config.mapping_model),
            "seconds": sum(prediction.seconds for prediction in predictions),
        }


def _group(item: Item) -> str:
    return item.group or item.id


def chosen_of(what: str, given: str | None, known: Sequence[str]) -> str:
    """Return the given value, or by default the first known one. Raises ValueError for an unknown one.

    what: names it in the message.
    """
    if given is None:
        return known[0]
    if given not in known:
        raise ValueError(f"{what} must be one of {', '.join(map(repr, known))}, but is {given!r}")
    return given


def check_words(chosen: Benchmark, question: str | None, wording: str | None) -> None:
    """Raise ValueError for a question or a wording that a benchmark's protocol does not leave open."""
    if question is not None and chosen.fixed_prompt:
        raise ValueError(f"the protocol of {chosen.name} fixes its wording, {chosen.prompt!r}; omit `question`")
    if wording is not None and wording not in chosen.wordings:
        known = f"has {', '.join(map(repr, chosen.wordings))}" if chosen.wordings else "has one alone; omit `wording`"
        raise ValueError(f"there is no wording {wording!r} of {chosen.name}, which {known}")


def unusable_images(folders: Sequence[Path], images: Collection[str]) -> dict[str, BadRecord]:
    """Find images that are not files inside the data folders.

    Args:
        folders: the data folders, inner ones first.
        images: absolute paths. Those below none of the folders are not checked.

    Returns:
        Image → what is wrong with it.
    """
    found: dict[str, BadRecord] = {}
    rest = set(images)
    for folder in folders:
        prefix = str(folder.absolute()).rstrip("/") + "/"
        below = {image for image in rest if image.startswith(prefix)}
        rest -= below
        wrong = Folder(folder).unusable(image.removeprefix(prefix) for image in below)
        found |= {prefix + name: bad for name, bad in wrong.items()}
    return found


def draw(items: list[Item], limit: int | None, seed: int) -> list[Item]:
    """Choose the items of at most `limit` groups by seed, independently of the order of the items."""
    groups = dict.fromkeys(item.group or item.id for item in items)
    if limit is None or len(groups) <= limit:
        return items

    def rank(group: str) -> bytes:
        return hashlib.sha256(f"{seed}/{group}".encode()).digest()

    chosen = set(sorted(groups, key=rank)[:limit])
    return [item for item in items if (item.group or item.id) in chosen]
