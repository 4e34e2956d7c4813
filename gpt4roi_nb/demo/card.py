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

`python -m gpt4roi_nb.demo.make --seed {seed} --out FOLDER` trains it for {minutes:.0f} minutes on {threads} CPU
threads, as `recipe.json` says. A phase lasts a set time, so another machine takes another number of steps and makes
another model of about the same quality. This one took {steps}.
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
    steps: dict[str, int],
    figures: Figures,
    check: dict[str, int],
    out: Path,
    history: str = "",
) -> None:
    """Writes `recipe.json` and `README.md` into `out`.

    check: the scenes and the seed that the figures are of. history: how the run differed from the recipe, if it did.
    """
    about = {
        "recipe": asdict(recipe),
        "seed": seed,
        "threads": threads,
        "steps": steps,
        "history": history,
        "check": {**check, **figures},
    }
    (out / "recipe.json").write_text(json.dumps(about, indent=2) + "\n")
    text = CARD.format(
        about=ABOUT,
        seed=seed,
        minutes=recipe.minutes,
        threads=threads,
        history=f"\n\n{history}" if history else "",
        steps=", ".join(f"{count:,} {name} steps" for name, count in steps.items()),
        scenes=check["scenes"],
        check_seed=check["seed"],
        table=table(figures),
    )
    (out / "README.md").write_text(text)
