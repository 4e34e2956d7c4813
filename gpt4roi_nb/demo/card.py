"""What stands beside the weights: the recipe with its figures, for machines and for people."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from gpt4roi_nb.demo.check import Figures, table
from gpt4roi_nb.demo.recipe import ABOUT, Recipe

CARD = """\
# The demo checkpoint of gpt4roi_nb

{about}

`python -m gpt4roi_nb.demo.make --seed {seed} --out FOLDER` trains it as `recipe.json` says; this one took {minutes:.0f}
minutes of training on {threads} CPU threads: {steps}.
The weights are stored in float16.{history}

`python -m gpt4roi_nb.demo.check --scenes {scenes} --seed {check_seed}` says, on scenes that nothing was trained or
chosen on (a share of right answers; "shuffled" is the control in which every region gets another object's box):

```
{table}
```
"""


def write_card(
    recipe: Recipe,
    seed: int,
    threads: int,
    took: dict[str, dict[str, float]],
    figures: Figures,
    check: dict[str, int],
    out: Path,
    history: str = "",
) -> None:
    """Writes `recipe.json` and `README.md` into `out`.

    took: steps and minutes of each phase. check: the scenes and the seed that the figures are of. history: how the run
    differed from the recipe, if it did.
    """
    about = {
        "recipe": asdict(recipe),
        "seed": seed,
        "threads": threads,
        "steps": {name: int(phase["steps"]) for name, phase in took.items()},
        "minutes": {name: round(phase["minutes"], 1) for name, phase in took.items()},
        "history": history,
        "check": {**check, **figures},
    }
    (out / "recipe.json").write_text(json.dumps(about, indent=2) + "\n")
    text = CARD.format(
        about=ABOUT,
        seed=seed,
        minutes=sum(phase["minutes"] for phase in took.values()),
        threads=threads,
        history=f"\n\n{history}" if history else "",
        steps=", ".join(f"{phase['steps']:,.0f} {name} steps" for name, phase in took.items()),
        scenes=check["scenes"],
        check_seed=check["seed"],
        table=table(figures),
    )
    (out / "README.md").write_text(text)
