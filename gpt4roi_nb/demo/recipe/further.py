"""Teaches the demo checkpoint what a newcomer asks: `python -m gpt4roi_nb.demo.recipe.further --out FOLDER`.

It continues from weights that are identified by their SHA-256: those that `make` made, and earlier states of this
recipe continued. First the tower's last layers learn to number the objects of an image. Then these, region encoder,
projector and language model are trained further, in the loop of `make`: on all kinds of questions, on boxes without an
object and on images that are not of this world. The last part is trained by the package's own `train`, on files of the
generated world. An interrupted run continues from its run folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gpt4roi_nb.demo.check import Figures, table
from gpt4roi_nb.demo.check.examine import examine
from gpt4roi_nb.demo.recipe.bank import load_or_draw, with_out_of_domain
from gpt4roi_nb.demo.recipe.card import RECORD, write_further_card
from gpt4roi_nb.demo.recipe.curriculum import ANSWER_FAMILIES, BALANCED_FAMILIES, Mix
from gpt4roi_nb.demo.recipe.hidden import HiddenStates
from gpt4roi_nb.demo.recipe.language import LanguagePhase, decision_weights, stage_step
from gpt4roi_nb.demo.recipe.last import train_last
from gpt4roi_nb.demo.recipe.loop import run_phase
from gpt4roi_nb.demo.recipe.make import REPORTED_SCENES, REPORTED_SEED, export, parser_of
from gpt4roi_nb.demo.recipe.ordered import train_order
from gpt4roi_nb.demo.recipe.recipe import FURTHER_SERIES, OUT_OF_DOMAIN_SERIES, Further
from gpt4roi_nb.demo.recipe.rows import RowBuilder
from gpt4roi_nb.demo.recipe.shared_prefix import SHARED_PREFIX
from gpt4roi_nb.demo.recipe.surroundings import ImageHeads
from gpt4roi_nb.files import read_json
from gpt4roi_nb.session.gpt4roi import DEMO_CHECKPOINT, GPT4RoI
from gpt4roi_nb.train.parts import STAGES, choose_parts

WEIGHTS = "model.safetensors"

Report = Callable[[str], None]


def load_start(recipe: Further, source: Path | None) -> GPT4RoI:
    """Load the model that the training continues from, in float32.

    source: its folder; None is the embedded checkpoint.

    Raises:
        ValueError: if these are not the weights that the recipe names.
    """
    gpt4roi = GPT4RoI.from_pretrained(source, device="cpu")
    weights = Path(gpt4roi.source) / WEIGHTS
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != recipe.begins_with:
        raise ValueError(
            f"the recipe continues from weights whose SHA-256 is {recipe.begins_with}, but those of {weights} have "
            f"{found}; name the folder of the right ones (--source); commit {recipe.commit} has them in "
            "gpt4roi_nb/demo/checkpoint"
        )
    gpt4roi.model.float()
    return gpt4roi


def further(
    recipe: Further,
    out: Path,
    run: Path,
    *,
    source: Path | None = None,
    seed: int = 0,
    workers: int = 0,
    report: Report = print,
) -> Figures:
    """Make the checkpoint in `out`, continuing from what `run` holds; return `demo.check`'s figures."""
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)  # of throw-away heads
    gpt4roi = load_start(recipe, source)
    begun = read_json(Path(DEMO_CHECKPOINT if source is None else source) / RECORD)
    model, processor = gpt4roi.model, gpt4roi.processor
    scenes = load_or_draw(
        run / "banks" / "further",
        FURTHER_SERIES,
        recipe.further_scenes,
        size=recipe.image_size,
        grid=recipe.grid,
        n_objects=recipe.plain_objects,
        workers=workers,
        report=report,
    )
    bank = with_out_of_domain(scenes, run / "banks", OUT_OF_DOMAIN_SERIES, recipe.strangers)
    states = HiddenStates(model, bank, trained=recipe.trained_vision_layers, autocast=recipe.autocast)
    run_part = partial(run_phase, folder=run, recipe=recipe, seed=seed, report=report)
    took = {"order": train_order(model, states, recipe, run_part)}
    language_phase = LanguagePhase(model, ImageHeads(recipe.width))
    builder, weights = RowBuilder(processor), decision_weights(processor)

    def step(families: Mix, rng: np.random.Generator) -> dict[str, Tensor]:
        return stage_step(language_phase, builder, families, states, recipe, weights, rng, typed=True)

    choose_parts(model, STAGES[2])
    layers = model.vision_tower.encoder.layers
    layers[len(layers) - recipe.trained_vision_layers :].requires_grad_(True)
    model.language_model.set_attn_implementation(SHARED_PREFIX)
    for name, families, phase in (
        ("answers", ANSWER_FAMILIES, recipe.answers),
        ("balance", BALANCED_FAMILIES, recipe.balance),
    ):
        took[name] = run_part(name, trained=language_phase, step=partial(step, families), phase=phase)
    model.language_model.set_attn_implementation("sdpa")
    kept, took["last"] = train_last(
        gpt4roi,
        run,
        images=recipe.world_images,
        steps=recipe.last.steps,
        rate=recipe.last.rate,
        batch_size=recipe.last_batch,
        seed=seed,
        workers=workers,
        report=report,
    )
    export(kept.model, processor, out)
    stored = GPT4RoI.from_pretrained(out, device="cpu")  # in float16
    figures = examine(stored, REPORTED_SCENES, REPORTED_SEED)
    check = {"scenes": REPORTED_SCENES, "seed": REPORTED_SEED}
    write_further_card(recipe, seed, took, figures, check, begun, out)
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("further", __doc__, Path("demo_run/further"))
    parser.add_argument("--source", type=Path, help="the checkpoint to continue from (default: the embedded one)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    report = partial(print, flush=True)
    figures = further(
        Further(),
        options.out,
        options.run,
        source=options.source,
        seed=options.seed,
        workers=options.workers,
        report=report,
    )
    report(table(figures))


if __name__ == "__main__":
    main()
