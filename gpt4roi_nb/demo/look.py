"""What the demo checkpoint looks at, on held-out scenes: `python -m gpt4roi_nb.demo.look --scenes 60 --seed 1`.

There are two studies. In the first, a conversation names two regions and asks about the second; each region in turn is
ablated, and the right answer is scored again. The second compares maps with random maps by deletion and insertion.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from gpt4roi_nb import commands
from gpt4roi_nb.capture import ABLATIONS, MAPS, Faithfulness, faithfulness
from gpt4roi_nb.data.scenes.questions import ONE_REGION, Question, ask, is_right
from gpt4roi_nb.data.scenes.scene import Scene, make_scene, scene_seed
from gpt4roi_nb.demo import check_seed
from gpt4roi_nb.prompt import DEFAULT_QUESTION
from gpt4roi_nb.session.conversation import Answer
from gpt4roi_nb.session.gpt4roi import GPT4RoI

MAX_NEW_TOKENS = 48
# The kinds of question on which maps are measured, and over which tokens.
SETTINGS = (("phrase", "both"), ("phrase", "image"), ("count", "image"))
STEPS, RANDOM_MAPS = 8, 3
TRIES = 6  # scenes drawn per answer of a study, since only right answers are measured


def drawn_scenes(seed: int) -> Iterator[tuple[Scene, np.random.Generator]]:
    """Yield held-out scenes without end, each with a generator for its questions; `demo.check` uses the same scenes."""
    index = 0
    while True:
        yield make_scene(scene_seed(seed, index)), np.random.default_rng((seed, index))
        index += 1


def ask_about_the_second(gpt4roi: GPT4RoI, scene: Scene, rng: np.random.Generator, kind: str) -> Answer | None:
    """Ask about <region2> after a question about another object as <region1>. Returns None if the answer is wrong."""
    question = ask(scene, kind, rng)
    if question is None:
        return None
    (asked,) = question.objects
    other = int(rng.choice([index for index in range(len(scene.objects)) if index != asked]))
    session = gpt4roi.session(scene.image)
    session.ask(DEFAULT_QUESTION, [scene.objects[other].box], max_new_tokens=MAX_NEW_TOKENS)
    text = question.text.replace("<region1>", "<region2>")
    answer = session.ask(text, [scene.objects[asked].box], max_new_tokens=MAX_NEW_TOKENS)
    # If the target names a region, it is region1.
    return answer if is_right(question, answer.text.replace("region2", "region1")) else None


def ask_alone(gpt4roi: GPT4RoI, scene: Scene, question: Question) -> Answer | None:
    """Ask a question in a conversation of its own. Returns None if the answer is wrong."""
    boxes = [scene.objects[index].box for index in question.objects]
    answer = gpt4roi.session(scene.image).ask(question.text, boxes, max_new_tokens=MAX_NEW_TOKENS)
    return answer if is_right(question, answer.text) else None


def ablation_study(gpt4roi: GPT4RoI, count: int, seed: int) -> dict[str, Any]:
    """Measure how ablating a region changes the log-probability of right answers.

    Returns:
        {"n": right answers, "asked": of how many, "change": {how: {"asked": (mean, standard error), "other": …}}}.
        Changes are those of the whole answer's natural log-probability.
    """
    changes: dict[str, dict[str, list[float]]] = {how: {"asked": [], "other": []} for how in ABLATIONS}
    right = 0
    kinds = sorted(ONE_REGION)
    drawn = zip(range(count), drawn_scenes(seed), strict=False)
    for index, (scene, rng) in tqdm(drawn, total=count, unit="scene", leave=False, disable=None):
        answer = ask_about_the_second(gpt4roi, scene, rng, kinds[index % len(kinds)])
        if answer is None:
            continue
        right += 1
        for how in ABLATIONS:
            if how == "swap":  # with the box of a third object, so that only the one region changes
                third = next((o.box for o in scene.objects if o.box not in answer_boxes(answer)), None)
                if third is None:
                    continue
                boxes: dict[str, Any] = {"box": third}
            else:
                boxes = {}
            for which, region in (("asked", 2), ("other", 1)):
                changed = answer.ablate(region, how, generate=False, **boxes)
                changes[how][which].append(float(changed.change.sum()))
    return {
        "n": right,
        "asked": count,
        "change": {how: {which: mean_and_error(each) for which, each in of.items()} for how, of in changes.items()},
    }


def answer_boxes(answer: Answer) -> list[tuple[float, ...]]:
    """Return the pixel boxes of the regions in an answer's prompt."""
    return [] if answer.replay is None else [tuple(box) for box in answer.replay.boxes]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error."""
    array = np.asarray(values)
    if len(array) < 2:
        return (float(array.mean()) if len(array) else float("nan"), float("nan"))
    return float(array.mean()), float(array.std(ddof=1) / len(array) ** 0.5)


def map_study(gpt4roi: GPT4RoI, count: int, seed: int, kind: str, over: str) -> Faithfulness | None:
    """Measure all `MAPS` on `count` right answers, or on those that `TRIES * count` scenes give; None if none."""
    answers: list[Answer] = []
    for (scene, rng), _ in zip(drawn_scenes(seed), range(TRIES * count), strict=False):
        question = ask(scene, kind, rng)
        answer = None if question is None else ask_alone(gpt4roi, scene, question)
        if answer is not None:
            answers.append(answer)
        if len(answers) == count:
            break
    if not answers:
        return None
    return faithfulness(list(MAPS), answers, over=over, steps=STEPS, random_maps=RANDOM_MAPS, seed=seed, progress=True)


def study(gpt4roi: GPT4RoI, scenes: int, answers: int, seed: int) -> dict[str, Any]:
    """Run both studies.

    Args:
        gpt4roi: the model.
        scenes: number of scenes of the ablation study.
        answers: number of right answers per setting of the map study.
        seed: decides scenes and questions.

    Returns:
        {"ablation": see `ablation_study`, "maps": [{"kind", "over", "n", "maps", "table"}, …]}.

    Raises:
        ValueError: the seed belongs to the scenes of training.
    """
    check_seed(seed)
    found: dict[str, Any] = {"ablation": ablation_study(gpt4roi, scenes, seed), "maps": []}
    for kind, over in SETTINGS:
        measured = map_study(gpt4roi, answers, seed, kind, over)
        if measured is not None:
            maps = {
                name: {
                    "deletion_area": measured.deletion_area[name],
                    "insertion_area": measured.insertion_area[name],
                    **({} if name == "random" else {"gain": measured.against_random(name)}),
                }
                for name in measured.deletion_area
            }
            number = len(measured.deletion_areas["random"])
            found["maps"].append({"kind": kind, "over": over, "n": number, "maps": maps, "table": measured.table()})
    return found


def report(found: dict[str, Any]) -> str:
    """Return the figures as lines of text."""
    ablation = found["ablation"]
    lines = [
        f"Two regions, a question about the second: {ablation['n']} right answers of {ablation['asked']}.",
        "Change of the right answer's log-probability (mean ± standard error) when a region is ablated:",
        f"{'how':16}{'the asked one':>18}{'the other one':>18}",
    ]
    for how, of in ablation["change"].items():
        lines.append(
            f"{how:16}" + "".join(f"{'{:+.2f} ± {:.2f}'.format(*of[which]):>18}" for which in ("asked", "other"))
        )
    over = {"both": "the image tokens and the region token", "image": "the image tokens alone"}
    for one in found["maps"]:
        lines += [
            "",
            f"Maps over {over[one['over']]}, on {one['n']} right answers of the kind {one['kind']!r}:",
            one["table"],
        ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the studies as the command line says, and print their figures."""
    parser = commands.demo_look()
    options = parser.parse_args(arguments)
    try:
        found = study(GPT4RoI.from_pretrained(options.checkpoint), options.scenes, options.answers, options.seed)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    print(json.dumps(found) if options.json else report(found))


if __name__ == "__main__":
    main()
