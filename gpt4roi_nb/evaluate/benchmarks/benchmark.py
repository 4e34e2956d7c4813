"""`Benchmark`: how a benchmark is asked and scored, and what others have published on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.benchmarks.masks import Masks, no_masks


@dataclass(frozen=True)
class Published:
    """Metrics from one row or sentence of a publication: references, never results of this package.

    `evaluate.verify` compares a checkpoint with the figures of its model.

    Attributes:
        source: the publication and the model.
        protocol: split, regions and prompt, as far as they are stated.
        metrics: name → per cent.
        model: in this package's names, such as "GPT4RoI-7B", or "GPT4RoI" if no size is stated.
        split: in this package's names.
    """

    source: str
    protocol: str
    metrics: Mapping[str, float]
    model: str
    split: str


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is asked and scored.

    Attributes:
        name: as users write it.
        title: of its dataset.
        splits: the first is the default.
        scoring: "generate", "likelihood" or both; the first is the default.
        prompt, mapping: for the protocol card; mapping is "" if answers are not mapped.
        max_new_tokens: maximum length of an answer.
        files: (root, split) → the files and folders that must exist, as description → path.
        items: yields all questions of the split; bad records go to `Problems`.
        score: scores predictions, which are in the order of the items.
        fixed_prompt: whether the protocol fixes the wording.
        wordings: name → prompt for the card, where the protocol was published in several; the first is `prompt`.
        scorers: packages that score the answers, among those in `metrics/scorers.py`.
        published: what others have published, shown beside our own results.
        more_folders: (root, split) → further folders that may hold images, beside those of `files`; they need not
            exist.
        masks: (configuration, items) → the true masks of items that have some, for models that take masks.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    scoring: tuple[str, ...]
    prompt: str
    mapping: str
    max_new_tokens: int
    files: Callable[[Path, str], dict[str, Path]]
    items: Callable[[EvalConfig, Problems], Iterator[Item]]
    score: Callable[[Sequence[Item], Sequence[Prediction], EvalConfig], Scores]
    fixed_prompt: bool = False
    wordings: Mapping[str, str] = field(default_factory=dict)
    scorers: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    more_folders: Callable[[Path, str], list[Path]] = lambda root, split: []
    masks: Masks = no_masks

    def image_folders(self, root: Path, split: str) -> list[Path]:
        """Return the existing folders that may hold images of a split, inner ones first.

        Any may be a link, as when datasets are linked into one root.
        """
        folders = {*self.files(root, split).values(), *self.more_folders(root, split), root}
        return sorted((folder for folder in folders if folder.is_dir()), key=lambda one: (-len(one.parts), one))


def part(root: Path, folder: str) -> Path:
    """Return a dataset's subfolder of a data folder, or the folder itself if it is that dataset's own."""
    return root / folder if (root / folder).is_dir() else root
