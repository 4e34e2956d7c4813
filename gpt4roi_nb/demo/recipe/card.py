"""The files beside the weights: the recipe with its figures, as JSON and as a readable card."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpt4roi_nb.demo.check import Figures, table
from gpt4roi_nb.demo.recipe.recipe import ABOUT, Further, Recipe

CARD = """\
# The demo checkpoint of gpt4roi_nb

{about}

`python -m gpt4roi_nb.demo.recipe.make --seed {seed} --out FOLDER` trains it as `recipe.json` says. This one took
{minutes:.0f} minutes on a CPU, and some more to draw the scenes:

{phases}

The phases before "stage1" give the tower and the language model something to start from. They have two halves, vision
and the lessons listed after it, which run independently. The phases after "stage2" continue it. Both stages train the
same parts as `gpt4roi_nb.train`, but in the recipe's own loop: each row holds many questions about one image, and
throw-away heads learn to read from the language model's layers what an answer is based on. The weights are stored in
float16.
"""


FURTHER_CARD = """\
# The demo checkpoint of gpt4roi_nb

{about}

`python -m gpt4roi_nb.demo.recipe.further --seed {seed} --out FOLDER` made it, as `recipe.json` says, from weights whose
SHA-256 is `{begins_with}`:
the checkpoint of commit {commit}, which has the recipe that made those. Before, `python -m gpt4roi_nb.demo.recipe.make`
had made the first weights, and earlier states of `further` had continued them and added words and layers. Their parts
took:

{old_parts}

The new part took {minutes:.0f} minutes on a CPU, and some more to draw the scenes:

{phases}

In "order" the tower's last {vision} layers and the projector learn to number the objects from left to right, with
throw-away heads in place of a language model; objects that stand about level may take each other's number. All else is
frozen. In "answers" and "balance" these layers and the parts of the second stage train in the recipe's own loop: each
row holds many questions about one image, and throw-away heads learn along. "last" is the package's own
`gpt4roi_nb.train.train`, on files of `python -m gpt4roi_nb.data.scenes`. The weights are stored in float16.
"""
FIGURES = """
`python -m gpt4roi_nb.demo.check --scenes {scenes} --seed {check_seed}` says, on scenes that were used neither for
training nor for any choice (shares of right answers; "shuffled" is the control in which every region gets another
object's box):

```
{table}
```
"""
RECORD = "recipe.json"


def write_further_card(
    recipe: Further,
    seed: int,
    took: dict[str, dict[str, float]],
    figures: Figures,
    check: dict[str, int],
    begun: dict[str, Any],
    out: Path,
) -> None:
    """As `write_card`, for a checkpoint that was trained further from another. begun: the other one's record."""
    kept = ("recipe", "seed", "steps", "minutes", "threads", "before")
    about = record(recipe, seed, took, figures, check) | {
        "before": {name: begun[name] for name in kept if name in begun}
    }
    parts: list[str] = []
    part: dict[str, Any] | None = begun
    while part is not None:
        phases = {
            name: {"steps": steps, "minutes": part["minutes"][name], "threads": part["threads"][name]}
            for name, steps in part["steps"].items()
        }
        parts.insert(0, f"{sum(part['minutes'].values()):.0f} minutes:\n\n{lines(phases)}")
        part = part.get("before")
    text = FURTHER_CARD.format(
        about=ABOUT,
        seed=seed,
        begins_with=recipe.begins_with,
        commit=recipe.commit,
        old_parts="\n\n".join(parts),
        minutes=sum(phase["minutes"] for phase in took.values()),
        phases=lines(took),
        vision=recipe.trained_vision_layers,
    )
    _write(out, about, text)


def record(
    recipe: Recipe, seed: int, took: dict[str, dict[str, float]], figures: Figures, check: dict[str, int]
) -> dict[str, Any]:
    """What `recipe.json` holds."""
    return {
        "recipe": asdict(recipe),
        "seed": seed,
        "steps": {name: int(phase["steps"]) for name, phase in took.items()},
        "minutes": {name: round(phase["minutes"], 1) for name, phase in took.items()},
        "threads": {name: int(phase["threads"]) for name, phase in took.items()},
        "check": {**check, **figures},
    }


def lines(took: dict[str, dict[str, float]]) -> str:
    """Each phase with its steps and minutes."""
    return "\n".join(
        f"- {name}: {phase['steps']:,.0f} steps, {phase['minutes']:.0f} minutes on {phase['threads']:.0f} thread(s)"
        for name, phase in took.items()
    )


def write_card(
    recipe: Recipe,
    seed: int,
    took: dict[str, dict[str, float]],
    figures: Figures,
    check: dict[str, int],
    out: Path,
) -> None:
    """Writes `recipe.json` and `README.md` into `out`.

    took: steps, minutes and threads of each phase. check: the scenes and the seed of the figures.
    """
    about = record(recipe, seed, took, figures, check)
    text = CARD.format(
        about=ABOUT,
        seed=seed,
        minutes=sum(phase["minutes"] for phase in took.values()),
        phases=lines(took),
    )
    _write(out, about, text)


def _write(out: Path, about: dict[str, Any], text: str) -> None:
    """The record, and the card: its text and then the record's figures."""
    check = about["check"]
    (out / RECORD).write_text(json.dumps(about, indent=2) + "\n")
    figures = FIGURES.format(scenes=check["scenes"], check_seed=check["seed"], table=table(check))
    (out / "README.md").write_text(text + figures)
