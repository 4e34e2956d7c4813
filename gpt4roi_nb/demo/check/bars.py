"""The bars of the demo checkpoint in one table: `demo.check` prints them beside its figures, and tests enforce them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import NamedTuple

from gpt4roi_nb.demo.check.figures import CALLED_NOTHING, JOINT, REFUSED, TAKEN_FOR_STRANGER, Figures
from gpt4roi_nb.demo.check.strangers import LIBRARY_IMAGES
from gpt4roi_nb.demo.choices import QA, QAR

# Whether the package's weights must reach the bars for a newcomer's questions (`NEWCOMER`), or, until they have learnt
# those, only the other bars.
NEWCOMER_BARS_HELD = False


class Bar(NamedTuple):
    """What a figure must reach or, with `at_most`, must not exceed; column and name are those of `Figures`."""

    column: str
    name: str
    value: float
    at_most: bool = False

    def holds(self, figure: float) -> bool:
        """Whether a figure is good enough."""
        compare: Callable[[float, float], bool] = operator.le if self.at_most else operator.ge
        return compare(figure, self.value)

    def words(self) -> str:
        """Return the bar as the table shows it."""
        return f"{'<=' if self.at_most else '>='} {self.value:.4g}"


def _bars(column: str, bars: dict[str, float], *, at_most: bool = False) -> tuple[Bar, ...]:
    return tuple(Bar(column, name, value, at_most) for name, value in bars.items())


# By benchmark and metric of `evaluate`, as shares. The strict choice counts an answer that has both names as wrong.
BENCHMARKS: dict[str, dict[str, float]] = {
    "lvis": {"binary choice (strict)": 0.90, "S-IoU": 0.60},
    "paco": {"binary choice (strict)": 0.80},
    "visual7w": {"pointing": 0.85, "telling": 0.60},
    "cityscapes": {"PQ stuff": 0.50},
    "ade20k": {"PQ stuff": 0.50},
}


def figure_name(benchmark: str, metric: str) -> str:
    """Return the name of a benchmark's figure."""
    return f"{benchmark}: {metric}"


# Bars since the first weights.
ATTRIBUTES_AND_PAIRS = _bars(
    "accuracy",
    {
        **dict.fromkeys(("category", "colour", "material", "size"), 0.98),
        "phrase": 0.95,
        "same": 0.97,
        **dict.fromkeys(("larger", "left_right", "front_behind"), 0.93),
        "count": 0.85,
        QA: 0.80,
        QAR: 0.80,
        JOINT: 0.65,
    },
)
NEWCOMER = (
    Bar("accuracy", "count", 0.88),
    *_bars("accuracy", {"which": 0.85, "describe": 0.85, "nothing": 0.90, "unknown": 0.90}),
    *_bars("accuracy", dict.fromkeys(("relation", "around", "between", "shared"), 0.93)),
    *_bars("mistakes", {CALLED_NOTHING: 0.01, REFUSED: 0.01, TAKEN_FOR_STRANGER: 0.005}, at_most=True),
    Bar("strangers", LIBRARY_IMAGES, 0.80),
    *_bars(
        "benchmarks",
        {figure_name(name, metric): bar for name, metrics in BENCHMARKS.items() for metric, bar in metrics.items()},
    ),
)
BARS: dict[tuple[str, str], Bar] = {(bar.column, bar.name): bar for bar in (*ATTRIBUTES_AND_PAIRS, *NEWCOMER)}

# How far a figure may be below another one: the third question of a conversation below the first, jittered boxes below
# exact ones, unseen wordings below seen ones.
MOST_LOST = {"in a conversation": 0.03, "with jittered boxes": 0.05, "in unseen wordings": 0.05}
MARGIN_ABOVE_CHANCE = 0.10  # how far the shuffled control may exceed chance
CONTROLLED = ("category", "colour")  # kinds whose control is checked
FIRST_KINDS = frozenset(bar.name for bar in ATTRIBUTES_AND_PAIRS) | {"which", "compound"}


def missed(figures: Figures, *, newcomer: bool = NEWCOMER_BARS_HELD) -> list[str]:
    """Return the bars that the figures miss, one line per bar. Figures that were not measured miss none.

    Args:
        figures: as `figures.measure` returns them.
        newcomer: also check the bars of `NEWCOMER`.
    """
    held = BARS.values() if newcomer else ATTRIBUTES_AND_PAIRS
    lines = []
    for bar in held:
        figure = figures.get(bar.column, {}).get(bar.name)
        if figure is not None and not bar.holds(figure):
            lines.append(f"{bar.name}: {figure:.4f}, but must be {bar.words()}")
    accuracy = figures["accuracy"]
    for kind, jittered in figures["jittered"].items():
        lost = MOST_LOST["with jittered boxes"]
        if (newcomer or kind in FIRST_KINDS) and jittered < accuracy[kind] - lost:
            lines.append(f"{kind}: {jittered:.3f} with jittered boxes, {accuracy[kind]:.3f} with exact ones")
    for kind in CONTROLLED:
        control, chance = figures["shuffled"][kind], figures["chance"][kind]
        if control > chance + MARGIN_ABOVE_CHANCE:
            lines.append(f"{kind}: {control:.3f} in the control, chance {chance:.3f}")
    turns = figures["turns"]
    if turns["of them"] and turns["third"] < turns["first"] - MOST_LOST["in a conversation"]:
        lines.append(f"third question {turns['third']:.3f}, first {turns['first']:.3f}")
    wordings = figures.get("wordings")
    if newcomer and wordings and wordings["unseen"] < wordings["seen"] - MOST_LOST["in unseen wordings"]:
        lines.append(f"unseen wordings {wordings['unseen']:.3f}, seen ones {wordings['seen']:.3f}")
    return lines
