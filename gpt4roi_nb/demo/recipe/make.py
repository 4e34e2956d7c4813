"""Makes the demo checkpoint: `python -m gpt4roi_nb.demo.recipe.make --out FOLDER`.

Stage 0 has two independent halves. In one, tower, projector and region encoder learn to see, with throw-away heads. In
the other, the language model learns to talk about scenes that are described in symbols, without images, in the lessons
of `curriculum`. Throw-away heads read from its layers what an answer is based on, here and in the stages.

Least squares then maps what the first half writes to the code that the second half reads. The two published stages
follow, with the tower's hidden states kept: first the region encoder alone, then region encoder, projector and language
model. Both choose their parts as `gpt4roi_nb.train` does, but each row holds many conversations about one image, which
is several times as fast. An interrupted run continues from its run folder.
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

from gpt4roi_nb.demo.check import Figures, measure, measure_on, model_answerer, table
from gpt4roi_nb.demo.recipe import vision
from gpt4roi_nb.demo.recipe.alignment import align
from gpt4roi_nb.demo.recipe.bank import SceneBank, load_or_draw
from gpt4roi_nb.demo.recipe.card import write_card
from gpt4roi_nb.demo.recipe.curriculum import (
    ALL_FAMILIES,
    FINISH_FAMILIES,
    LESSONS,
    POLISH_FAMILIES,
    TALK_FAMILIES,
    Lesson,
    Mix,
)
from gpt4roi_nb.demo.recipe.hidden import HiddenStates
from gpt4roi_nb.demo.recipe.language import (
    LanguagePhase,
    ProbeHeads,
    decision_weights,
    scale_words,
    stage_step,
    symbol_step,
)
from gpt4roi_nb.demo.recipe.loop import run_phase
from gpt4roi_nb.demo.recipe.recipe import DENSE_SERIES, PLAIN_SERIES, VALIDATION_SERIES, Recipe, model_config
from gpt4roi_nb.demo.recipe.rows import RowBuilder
from gpt4roi_nb.demo.recipe.shared_prefix import SHARED_PREFIX
from gpt4roi_nb.demo.recipe.symbols import Code
from gpt4roi_nb.demo.recipe.vocabulary import generation_config, make_processor
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.session.gpt4roi import GPT4RoI
from gpt4roi_nb.train.parts import STAGES, choose_parts

VISION, LANGUAGE = "vision", "language"
HALVES = (VISION, LANGUAGE)  # of stage 0
REPORTED_SEED = 321  # of the check whose figures stand beside the weights
REPORTED_SCENES = 300
ALIGNED = 1600  # images from which the code is brought into line
GLIMPSE = 60  # validation scenes that are asked about after each stage
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


def make(
    recipe: Recipe,
    out: Path,
    run: Path,
    *,
    seed: int = 0,
    workers: int = 0,
    half: str | None = None,
    report: Report = print,
) -> Figures | None:
    """Make the checkpoint of a recipe in `out`, continuing from what `run` holds; return `demo.check`'s figures.

    half: one of `HALVES`, to stop after that half of stage 0 and return None.
    """
    if half not in (None, *HALVES):
        raise ValueError(f"half must be None or one of {', '.join(HALVES)}; got {half!r}")
    run.mkdir(parents=True, exist_ok=True)
    processor = make_processor(recipe, run)
    banks = make_banks(recipe, run, workers, report)
    torch.manual_seed(seed)
    model = GPT4RoIForConditionalGeneration(model_config(recipe, processor.tokenizer))
    model.generation_config = generation_config(processor)
    model.vision_tower.set_attn_implementation("eager")  # on a CPU its backward pass is the quickest
    scale_words(model, recipe.token_scale)
    phase = partial(run_phase, folder=run, recipe=recipe, seed=seed, report=report)
    took: dict[str, dict[str, float]] = {}

    def glimpse() -> None:
        model.language_model.set_attn_implementation("sdpa")
        few = map(banks.validation.scene, range(min(GLIMPSE, len(banks.validation))))
        report(table(measure_on(model_answerer(LoadedModel(model, processor)), few, seed)))

    code, weights = Code(recipe.width), decision_weights(processor)
    vision_phase = vision.VisionPhase(model)

    def vision_step(rng: np.random.Generator) -> dict[str, Tensor]:
        bank = banks.dense if rng.random() < recipe.dense_share else banks.plain
        return vision.vision_step(model, vision_phase, bank, code, recipe, rng)

    if half != LANGUAGE:
        took["vision"] = phase("vision", trained=vision_phase, step=vision_step, phase=recipe.vision)
        readable = vision.reading_accuracy(model, vision_phase, banks.validation)
        report("read off region vectors: " + "  ".join(f"{name} {share:.3f}" for name, share in readable.items()))
    if half == VISION:
        return None

    language_phase = LanguagePhase(model, ProbeHeads(recipe.width))
    regions_only, whole = RowBuilder(processor, image_tokens=False), RowBuilder(processor)

    def lesson_step(lesson: Lesson, rng: np.random.Generator) -> dict[str, Tensor]:
        builder = whole if lesson.image_tokens else regions_only
        return symbol_step(language_phase, builder, lesson.families, banks.dense, code, recipe, weights, rng)

    model.language_model.set_attn_implementation(SHARED_PREFIX)
    choose_parts(model, ["language_model"])
    for name, lesson in LESSONS.items():
        took[name] = phase(name, trained=language_phase, step=partial(lesson_step, lesson), phase=getattr(recipe, name))
    if half == LANGUAGE:
        return None

    model.eval()
    states = HiddenStates(model, banks.plain)
    explained = align(model, states, code, recipe.box_jitter, ALIGNED)
    report("code that is written: " + "  ".join(f"{name} {share:.3f}" for name, share in explained.items()))

    def stage_phase_step(families: Mix, rng: np.random.Generator) -> dict[str, Tensor]:
        return stage_step(language_phase, whole, families, states, recipe, weights, rng)

    for name, number, families, length in (
        ("stage1", 1, ALL_FAMILIES, recipe.stage1),
        ("stage2", 2, ALL_FAMILIES, recipe.stage2),
        ("finish", 2, FINISH_FAMILIES, recipe.finish),
        ("polish", 2, POLISH_FAMILIES, recipe.polish),
        ("talk", 2, TALK_FAMILIES, recipe.talk),
    ):
        choose_parts(model, STAGES[number])
        model.language_model.set_attn_implementation(SHARED_PREFIX)
        took[name] = phase(name, trained=language_phase, step=partial(stage_phase_step, families), phase=length)
        glimpse()
        export(model, processor, out)
    kept = GPT4RoI.from_pretrained(out, device="cpu")  # as it is stored, in float16
    figures = measure(model_answerer(kept), REPORTED_SCENES, REPORTED_SEED)
    check = {"scenes": REPORTED_SCENES, "seed": REPORTED_SEED}
    write_card(recipe, seed, took, figures, check, out)
    return figures


def export(model: GPT4RoIForConditionalGeneration, processor: GPT4RoIProcessor, out: Path) -> None:
    """Writes model and processor to a folder, in float16: finer than bfloat16 at the same size."""
    model.language_model.set_attn_implementation("sdpa")
    stored = copy.deepcopy(model)
    stored.half()
    stored.save_pretrained(out)
    (out / "model.safetensors").chmod(READABLE)  # safetensors lets only the owner read it, which would break a package
    processor.save_pretrained(out)


def parser_of(command: str, says: str | None, out: Path) -> argparse.ArgumentParser:
    """Make a parser with the options that all the recipe's commands share. out: the checkpoint's default folder."""
    parser = argparse.ArgumentParser(prog=f"python -m gpt4roi_nb.demo.recipe.{command}", description=says)
    parser.add_argument("--out", type=Path, default=out, help="where the checkpoint goes (default: %(default)s)")
    parser.add_argument("--run", type=Path, default=Path("demo_run"), help="scenes and progress (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default: 0)")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch (default: 2)")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw the scenes (default: 2)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("make", __doc__, Path("demo_run/checkpoint"))
    parser.add_argument(
        "--half",
        choices=HALVES,
        help="make this half of stage 0 and stop; once the scenes are drawn, both halves can run at once with one "
        "thread each, which is faster than one after the other with two threads",
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    def report(text: str) -> None:
        print(text, flush=True)

    figures = make(
        Recipe(),
        options.out,
        options.run,
        seed=options.seed,
        workers=options.workers,
        half=options.half,
        report=report,
    )
    if figures is not None:
        report(table(figures))


if __name__ == "__main__":
    main()
