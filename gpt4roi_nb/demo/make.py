"""Makes the demo checkpoint: `python -m gpt4roi_nb.demo.make --out FOLDER`.

Four phases, as `recipe.py` has them: tower and region encoder learn to see; the language model learns to read and
compare region vectors; all of it learns together, with the image's tokens; the language model learns on alone, which is
quicker. A run that was broken off goes on from its run folder.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gpt4roi_nb.demo import vision
from gpt4roi_nb.demo.bank import SceneBank, load_or_draw
from gpt4roi_nb.demo.card import write_card
from gpt4roi_nb.demo.check import Figures, measure, measure_on, model_answerer, table
from gpt4roi_nb.demo.language import Talking, decision_weights, scale_words, talk_step
from gpt4roi_nb.demo.loop import run_phase
from gpt4roi_nb.demo.recipe import DENSE_SERIES, PLAIN_SERIES, VALIDATION_SERIES, Recipe, model_config
from gpt4roi_nb.demo.rows import SHARED_PREFIX, RowBuilder
from gpt4roi_nb.demo.vocabulary import generation_config, make_processor
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIProcessor

REPORTED_SEED = 1  # of the check whose figures stand beside the weights
REPORTED_SCENES = 300
GLIMPSE = 60  # validation scenes that are asked about between phases
READABLE = 0o644

Report = Callable[[str], None]


@dataclass(frozen=True)
class Banks:
    """The scenes of a run."""

    dense: SceneBank
    plain: SceneBank
    validation: SceneBank


def make_banks(recipe: Recipe, run: Path, workers: int, report: Report) -> Banks:
    """Draws the scenes, or reads those of an earlier run."""

    def bank(name: str, series: int, count: int, n_objects: tuple[int, int]) -> SceneBank:
        return load_or_draw(
            run / "banks" / name,
            series,
            count,
            size=recipe.image_size,
            grid=recipe.grid,
            n_objects=n_objects,
            workers=workers,
            report=report,
        )

    return Banks(
        bank("dense", DENSE_SERIES, recipe.dense_scenes, recipe.dense_objects),
        bank("plain", PLAIN_SERIES, recipe.plain_scenes, recipe.plain_objects),
        bank("valid", VALIDATION_SERIES, recipe.validation_scenes, recipe.plain_objects),
    )


def make(recipe: Recipe, out: Path, run: Path, *, seed: int = 0, workers: int = 0, report: Report = print) -> Figures:
    """Makes the checkpoint of a recipe in `out`, going on with what is in `run`; returns `demo.check`'s figures."""
    run.mkdir(parents=True, exist_ok=True)
    processor = make_processor(recipe, run)
    banks = make_banks(recipe, run, workers, report)
    torch.manual_seed(seed)
    model = GPT4RoIForConditionalGeneration(model_config(recipe, processor.tokenizer))
    model.generation_config = generation_config(processor)
    model.vision_tower.set_attn_implementation("eager")  # on a CPU its backward pass is the quickest
    scale_words(model, recipe.token_scale)
    phase = partial(run_phase, folder=run, recipe=recipe, seed=seed, report=report)
    steps: dict[str, int] = {}

    def glimpse() -> None:
        model.language_model.set_attn_implementation("sdpa")
        few = map(banks.validation.scene, range(min(GLIMPSE, len(banks.validation))))
        report(table(measure_on(model_answerer(model.eval(), processor), few, seed)))

    seeing = vision.Seeing(model)

    def vision_step(rng: np.random.Generator) -> dict[str, Tensor]:
        bank = banks.dense if rng.random() < recipe.dense_share else banks.plain
        return vision.vision_step(model, seeing, bank, recipe, rng)

    steps["vision"] = phase(
        "vision", trained=seeing, step=vision_step, minutes=recipe.vision_minutes, rate=recipe.vision_rate
    )
    readable = vision.reading_accuracy(model, seeing, banks.validation)
    report("read off region vectors: " + "  ".join(f"{name} {share:.3f}" for name, share in readable.items()))
    vision.rescale_tokens(model, banks.validation, recipe.token_scale)

    talking = Talking(model, seeing.readers)
    regions_only, whole = RowBuilder(processor, image_tokens=False), RowBuilder(processor)
    talk = partial(talk_step, talking, bank=banks.plain, recipe=recipe, token_weights=decision_weights(processor))

    def language_step(rng: np.random.Generator) -> dict[str, Tensor]:
        return talk(builder=regions_only, rng=rng, joint=False)

    def joint_step(rng: np.random.Generator) -> dict[str, Tensor]:
        return talk(builder=whole, rng=rng, joint=True, long_share=recipe.long_share)

    def finish_step(rng: np.random.Generator) -> dict[str, Tensor]:
        return talk(builder=whole, rng=rng, joint=False, long_share=recipe.long_share)

    for name, trained, step, minutes, rate in (
        ("language", model.language_model, language_step, recipe.language_minutes, recipe.language_rate),
        ("joint", talking, joint_step, recipe.joint_minutes, recipe.joint_rate),
        ("finish", model.language_model, finish_step, recipe.finish_minutes, recipe.finish_rate),
    ):
        model.language_model.set_attn_implementation(SHARED_PREFIX)
        steps[name] = phase(name, trained=trained, step=step, minutes=minutes, rate=rate)
        glimpse()
        export(model, processor, out)
    figures = measure(model_answerer(model, processor), REPORTED_SCENES, REPORTED_SEED)
    check = {"scenes": REPORTED_SCENES, "seed": REPORTED_SEED}
    write_card(recipe, seed, torch.get_num_threads(), steps, figures, check, out)
    return figures


def export(model: GPT4RoIForConditionalGeneration, processor: GPT4RoIProcessor, out: Path) -> None:
    """Writes model and processor to a folder, in float16: finer than bfloat16 at the same size."""
    model.language_model.set_attn_implementation("sdpa")
    stored = copy.deepcopy(model)
    stored.half()
    stored.save_pretrained(out)
    (out / "model.safetensors").chmod(READABLE)  # safetensors keeps it to its owner, which would not survive a package
    processor.save_pretrained(out)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m gpt4roi_nb.demo.make", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("demo_run/checkpoint"), help="where the checkpoint goes (default: %(default)s)"
    )
    parser.add_argument("--run", type=Path, default=Path("demo_run"), help="scenes and progress (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default: 0)")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch (default: 2)")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw the scenes (default: 2)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    def report(text: str) -> None:
        print(text, flush=True)

    figures = make(Recipe(), options.out, options.run, seed=options.seed, workers=options.workers, report=report)
    report(table(figures))


if __name__ == "__main__":
    main()
