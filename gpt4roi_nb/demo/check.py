"""How good the demo checkpoint is, on freshly drawn scenes: `python -m gpt4roi_nb.demo.check --scenes 300 --seed 1`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from gpt4roi_nb.boxes import normalise
from gpt4roi_nb.data.questions import KINDS, ONE_REGION, Question, ask, compound, is_right
from gpt4roi_nb.data.scenes import Scene, scenes
from gpt4roi_nb.demo.answers import Asked, answer_all
from gpt4roi_nb.demo.recipe import FIRST_RESERVED_SERIES
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIProcessor

COMPOUND = "compound"
ONE_REGION_QUESTIONS = 2  # of each one-region kind about each scene; one of every other kind
Figures = dict[str, dict[str, float]]

# A scene and questions about it, each with the objects whose boxes it is asked with → the answers.
Answerer = Callable[[Scene, Sequence[tuple[Question, tuple[int, ...]]]], list[str]]


def draw_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Questions of every kind that the scene allows."""
    drawn: list[Question | None] = []
    for kind in KINDS:
        drawn += [ask(scene, kind, rng) for _ in range(ONE_REGION_QUESTIONS if kind in ONE_REGION else 1)]
    drawn.append(compound(scene, rng))
    return [question for question in drawn if question is not None]


def measure(answer: Answerer, count: int, seed: int) -> Figures:
    """`{"accuracy": {kind: share}, "shuffled": {kind: share}, "n": {kind: questions}}` on `count` fresh scenes.

    `shuffled` is the control: every region of a question gets the box of another object of the scene, while the target
    stays. It has no entry for kinds that name no region.

    Raises:
        ValueError: for a seed that belongs to the scenes of training.
    """
    if not 0 <= seed < FIRST_RESERVED_SERIES:
        raise ValueError(
            f"seed must lie between 0 and {FIRST_RESERVED_SERIES - 1}, but is {seed}: the scenes of higher seeds "
            "may have been trained on"
        )
    return measure_on(answer, tqdm(scenes(seed, count), total=count, unit="scene", leave=False, disable=None), seed)


def measure_on(answer: Answerer, drawn: Iterable[Scene], seed: int) -> Figures:
    """As `measure`, on these scenes; `seed` decides about the questions."""
    right, shuffled_right, asked = Counter[str](), Counter[str](), Counter[str]()
    for index, scene in enumerate(drawn):
        rng = np.random.default_rng((seed, index))
        questions = draw_questions(scene, rng)
        shift = int(rng.integers(1, len(scene.objects)))
        with_boxes = [question for question in questions if question.objects]
        turned = [tuple((k + shift) % len(scene.objects) for k in question.objects) for question in with_boxes]
        answers = answer(
            scene,
            [*((question, question.objects) for question in questions), *zip(with_boxes, turned, strict=True)],
        )
        for question, said in zip(questions, answers, strict=False):
            asked[question.kind] += 1
            right[question.kind] += is_right(question, said)
        for question, said in zip(with_boxes, answers[len(questions) :], strict=True):
            shuffled_right[question.kind] += is_right(question, said)
    kinds = [kind for kind in (*KINDS, COMPOUND) if asked[kind]]
    with_region = [kind for kind in kinds if kind in shuffled_right]
    return {
        "accuracy": {kind: right[kind] / asked[kind] for kind in kinds},
        "shuffled": {kind: shuffled_right[kind] / asked[kind] for kind in with_region},
        "n": {kind: asked[kind] for kind in kinds},
    }


def model_answerer(model: GPT4RoIForConditionalGeneration, processor: GPT4RoIProcessor) -> Answerer:
    """Answers with a model: the picture and boxes go the way that a session's go."""

    @torch.inference_mode()
    def answer(scene: Scene, questions: Sequence[tuple[Question, tuple[int, ...]]]) -> list[str]:
        height, width = scene.image.shape[:2]
        encoding = model.encode_image(processor.image_processor(scene.image)["pixel_values"])
        boxes = torch.from_numpy(normalise([thing.box for thing in scene.objects], width, height))
        asked = [Asked([("user", question.text)], boxes[list(objects)]) for question, objects in questions]
        return answer_all(model, processor, encoding, asked)

    return answer


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m gpt4roi_nb.demo.check", description=__doc__)
    parser.add_argument("--scenes", type=int, default=300, metavar="N", help="how many scenes (default: 300)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="which scenes (default: 1)")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint folder (default: the embedded one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)

    from gpt4roi_nb import GPT4RoI

    if options.scenes < 1:
        parser.error(f"--scenes must be at least 1, but is {options.scenes}")
    try:
        gpt4roi = GPT4RoI.from_pretrained(options.checkpoint)
        figures = measure(model_answerer(gpt4roi.model, gpt4roi.processor), options.scenes, options.seed)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    print(json.dumps(figures) if options.json else table(figures))


def table(figures: Figures) -> str:
    """The figures as lines of text."""
    lines = [f"{'kind':14}{'accuracy':>9}{'shuffled':>10}{'n':>7}"]
    for kind, share in figures["accuracy"].items():
        control = figures["shuffled"].get(kind)
        lines.append(f"{kind:14}{share:9.3f}{'' if control is None else f'{control:.3f}':>10}{figures['n'][kind]:7.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
