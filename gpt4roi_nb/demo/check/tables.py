"""The figures of the examination as lines of text, each with its bar beside it."""

from __future__ import annotations

from gpt4roi_nb.demo.check.bars import BARS
from gpt4roi_nb.demo.check.figures import Figures

COLUMNS = ("accuracy", "bar", "unseen", "misspelt", "jittered", "shuffled", "chance")
SHARES = ("mistakes", "strangers", "benchmarks")  # columns whose figures are not kinds of question


def table(figures: Figures) -> str:
    """Return the figures as lines of text, with the columns that they have."""
    columns = [name for name in COLUMNS if name == "bar" or name in figures]
    lines = [f"{'kind':14}" + "".join(f"{name:>10}" for name in columns) + f"{'n':>7}"]
    for kind, count in figures["n"].items():
        cells = [_cell(figures, name, kind) for name in columns]
        lines.append(f"{kind:14}" + "".join(f"{cell:>10}" for cell in cells) + f"{count:7.0f}")
    turns = figures["turns"]
    if turns["of them"]:
        lines.append(
            f"first question of a conversation {turns['first']:.3f}, third {turns['third']:.3f} "
            f"({turns['of them']:.0f} conversations)"
        )
    if figures.get("wordings"):
        wordings = figures["wordings"]
        lines.append(f"mean over kinds: seen wordings {wordings['seen']:.3f}, unseen {wordings['unseen']:.3f}")
    for column in SHARES:
        for name, figure in figures.get(column, {}).items():
            bar = BARS.get((column, name))
            text = f"{figure:.0f}" if name == "files" else f"{figure:.4f}"
            lines.append(f"{name:34}{text:>8}" + (f"  {bar.words()}" if bar else ""))
    return "\n".join(lines)


def _cell(figures: Figures, column: str, kind: str) -> str:
    if column == "bar":
        bar = BARS.get(("accuracy", kind))
        return bar.words() if bar else ""
    return f"{figures[column][kind]:.3f}" if kind in figures[column] else ""
