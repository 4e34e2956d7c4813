"""What stands beside the weights: the recipe with its figures, for machines and for people."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from gpt4roi_nb.demo.check import Figures, table
from gpt4roi_nb.demo.recipe.recipe import ABOUT, Recipe

CARD = """\
# The demo checkpoint of gpt4roi_nb

{about}

`python -m gpt4roi_nb.demo.recipe.make --seed {seed} --out FOLDER` trains it as `recipe.json` says. This one took
{minutes:.0f} minutes on a CPU, and some more to draw the scenes:

{phases}

What comes before "stage1" gives the tower and the language model something to start from; its halves, vision and the
lessons after it, do not wait for one another. What comes after "stage2" goes on with it. In the stages train
the parts that `gpt4roi_nb.train` trains, but in a loop of their own, with many questions about a picture in a row, and
with throw-away heads that read off the language model's layers what an answer is made from. The weights are stored in
float16.

`python -m gpt4roi_nb.demo.check --scenes {scenes} --seed {check_seed}` says, on scenes that nothing was trained or
chosen on (a share of right answers; "shuffled" is the control in which every region gets another object's box):

```
{table}
```
"""


def write_card(
    recipe: Recipe,
    seed: int,
    took: dict[str, dict[str, float]],
    figures: Figures,
    check: dict[str, int],
    out: Path,
) -> None:
    """Writes `recipe.json` and `README.md` into `out`.

    took: steps, minutes and threads of each phase. check: the scenes and the seed that the figures are of.
    """
    about = {
        "recipe": asdict(recipe),
        "seed": seed,
        "steps": {name: int(phase["steps"]) for name, phase in took.items()},
        "minutes": {name: round(phase["minutes"], 1) for name, phase in took.items()},
        "threads": {name: int(phase["threads"]) for name, phase in took.items()},
        "check": {**check, **figures},
    }
    (out / "recipe.json").write_text(json.dumps(about, indent=2) + "\n")
    text = CARD.format(
        about=ABOUT,
        seed=seed,
        minutes=sum(phase["minutes"] for phase in took.values()),
        phases="\n".join(
            f"- {name}: {phase['steps']:,.0f} steps, {phase['minutes']:.0f} minutes on {phase['threads']:.0f} thread(s)"
            for name, phase in took.items()
        ),
        scenes=check["scenes"],
        check_seed=check["seed"],
        table=table(figures),
    )
    (out / "README.md").write_text(text)
