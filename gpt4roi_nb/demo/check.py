"""How good the demo checkpoint is, on freshly drawn scenes.

`python -m gpt4roi_nb.demo.check --scenes 300 --seed 123` asks for the figures of its card.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from gpt4roi_nb import commands
from gpt4roi_nb.boxes import normalise
from gpt4roi_nb.data.scenes.question_kinds import VALUES, value_of
from gpt4roi_nb.data.scenes.questions import (
    KINDS,
    ONE_REGION,
    TWO_REGIONS,
    Question,
    ask,
    compound,
    followup,
    is_right,
)
from gpt4roi_nb.data.scenes.scene import Scene, scenes
from gpt4roi_nb.demo import check_seed
from gpt4roi_nb.demo.choices import QA, QAR, draw_pairs, is_letter
from gpt4roi_nb.inference.decode import decode, detokenizers
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.inference.shared_opening import SharedOpening
from gpt4roi_nb.prompt import Prompt, Turns

COMPOUND = "compound"
JOINT = "qaqr-joint"
ONE_REGION_QUESTIONS = 2  # of each one-region kind about each scene; one of every other kind
CONVERSATIONS = 2  # about each scene
TOGETHER = 6  # scenes whose questions are asked together: more of them save little, and take more memory
MAX_NEW_TOKENS = 48  # longer than any answer of the generated world; a list of seven things has about 35
JITTER = 0.1  # by which each edge of a box is moved at most, as a share of the box's side
Figures = dict[str, dict[str, float]]


class Query(NamedTuple):
    """A question as it is put.

    objects: the objects whose boxes it is asked with, region 1 first. earlier: the turns before it. jittered: (regions,
    4) boxes as drawn by a hand that is a little off, instead of the exact ones; pixels xyxy of the scene's picture.
    """

    question: Question
    objects: tuple[int, ...]
    earlier: Turns = ()
    jittered: np.ndarray | None = None


Asked = tuple[Scene, Query]
Answerer = Callable[[Sequence[Asked]], list[str]]  # the answers, in order; questions about one scene come in a row


def draw_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Questions of every kind that the scene allows."""
    drawn: list[Question | None] = []
    for kind in KINDS:
        drawn += [ask(scene, kind, rng) for _ in range(ONE_REGION_QUESTIONS if kind in ONE_REGION else 1)]
    drawn.append(compound(scene, rng))
    return [question for question in drawn if question is not None]


def right(question: Question, answer: str) -> bool:
    """Whether an answer is right: a letter of a multiple-choice question, else as `questions.is_right` says."""
    return is_letter(question, answer) if question.kind in (QA, QAR) else is_right(question, answer)


def measure(answer: Answerer, count: int, seed: int) -> Figures:
    """How many of the answers about `count` fresh scenes are right, by kind of question.

    Returns:
        "accuracy": share of right answers; "qa" and "qar" are multiple choice in VCR's form, `JOINT` is both at once.
        "n": how many were asked.
        "shuffled": the control in which every region gets the box of another object of the scene, while the target
            stays. No entry for kinds that name no region, nor for multiple choice.
        "chance": of the same questions, the share whose target is true of those other objects as well: what an answerer
            that sees perfectly has there. For the attributes.
        "jittered": as "accuracy", with boxes whose edges are off by up to a tenth of the box's side.
        "turns": the first and the third question of conversations, both of one kind; "of them" is their number.

    Raises:
        ValueError: for a seed that belongs to the scenes of training.
    """
    check_seed(seed)
    return measure_on(answer, tqdm(scenes(seed, count), total=count, unit="scene", leave=False, disable=None), seed)


def measure_on(answer: Answerer, drawn: Iterable[Scene], seed: int) -> Figures:
    """As `measure`, on these scenes; `seed` decides about the questions."""
    found: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    numbered = enumerate(drawn)
    while group := [_draw(scene, np.random.default_rng((seed, index))) for index, scene in islice(numbered, TOGETHER)]:
        asked = [(one.scene, query) for one in group for queries in one.queries.values() for query in queries]
        answers = iter(answer(asked))
        said = [{name: [next(answers) for _ in queries] for name, queries in one.queries.items()} for one in group]
        for one, texts in zip(group, said, strict=True):
            for name in ("accuracy", "shuffled", "jittered"):
                for query, text in zip(one.queries[name], texts[name], strict=True):
                    found[name][query.question.kind].append(right(query.question, text))
            for query in one.queries["shuffled"]:
                kind = query.question.kind
                if kind in VALUES:
                    own, other = (one.scene.objects[k] for k in (*query.question.objects, *query.objects))
                    found["chance"][kind].append(value_of(own, kind) == value_of(other, kind))
        # Multiple choice by itself: its prompts are long, and others would be padded to them.
        pairs = [(one.scene, pair) for one in group for pair in one.pairs]
        letters = iter(answer([(scene, Query(part, part.objects)) for scene, pair in pairs for part in pair]))
        for _, pair in pairs:
            verdicts = [right(part, next(letters)) for part in pair]
            for kind, verdict in zip((QA, QAR, JOINT), (*verdicts, all(verdicts)), strict=True):
                found["accuracy"][kind].append(verdict)
        talks = [(one.scene, talk) for one in group for talk in one.conversations]
        first = [text for texts in said for text in texts["first"]]
        for (_, talk), opening, last in zip(talks, first, _converse(answer, talks, first), strict=True):
            found["turns"]["first"].append(right(talk[0], opening))
            found["turns"]["third"].append(right(talk[-1], last))
    kinds = [kind for kind in (*KINDS, COMPOUND, QA, QAR, JOINT) if kind in found["accuracy"]]
    figures = {
        name: {kind: float(np.mean(found[name][kind])) for kind in kinds if kind in found[name]}
        for name in ("accuracy", "shuffled", "chance", "jittered")
    }
    figures["n"] = {kind: len(found["accuracy"][kind]) for kind in kinds}
    turns = found["turns"]
    figures["turns"] = {name: float(np.mean(turns[name])) for name in turns} | {"of them": len(turns["first"])}
    return figures


class _Drawn(NamedTuple):
    """What a scene is asked.

    queries: by what they are for: "accuracy", "shuffled", "jittered", and "first", the first of each conversation.
    pairs: in VCR's form, an answer and its reason. conversations: three questions each.
    """

    scene: Scene
    queries: dict[str, list[Query]]
    pairs: list[tuple[Question, Question]]
    conversations: list[list[Question]]


def _draw(scene: Scene, rng: np.random.Generator) -> _Drawn:
    questions = draw_questions(scene, rng)
    shift = int(rng.integers(1, len(scene.objects)))
    with_boxes = [question for question in questions if question.objects]
    queries = {
        "accuracy": [Query(question, question.objects) for question in questions],
        "shuffled": [
            Query(question, tuple((k + shift) % len(scene.objects) for k in question.objects))
            for question in with_boxes
        ],
        "jittered": [
            Query(question, question.objects, jittered=_jittered(scene, question.objects, rng))
            for question in with_boxes
        ],
    }
    pairs = draw_pairs(scene, 1, rng)
    conversations = [talk for _ in range(CONVERSATIONS) if (talk := _draw_conversation(scene, rng))]
    queries["first"] = [Query(talk[0], talk[0].objects) for talk in conversations]
    return _Drawn(scene, queries, pairs, conversations)


def _jittered(scene: Scene, objects: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    height, width = scene.image.shape[:2]
    boxes = np.array([scene.objects[k].box for k in objects], np.float32)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return (boxes + sides * rng.uniform(-JITTER, JITTER, boxes.shape)).clip(0, [width, height] * 2)


def _draw_conversation(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Three questions, the last of the first one's kind; empty where the scene allows no third."""
    kind = str(rng.choice((*ONE_REGION, *TWO_REGIONS)))
    question = ask(scene, kind, rng)
    talk: list[Question] = []
    for following in (str(rng.choice(ONE_REGION)), kind, None):
        if question is None:
            return []
        talk.append(question)
        if following is not None:
            known = dict(enumerate(question.objects, start=1))
            question = followup(scene, following, rng, known, previous=question.kind)
    return talk


def _converse(
    answer: Answerer, conversations: Sequence[tuple[Scene, Sequence[Question]]], first: Sequence[str]
) -> list[str]:
    """The last answer of each conversation, with the model's own answers before it."""
    said = list(first)
    earlier: list[list[tuple[str, str]]] = [[] for _ in conversations]
    for turn in range(1, max((len(talk) for _, talk in conversations), default=1)):
        asked = []
        for (scene, talk), before, text in zip(conversations, earlier, said, strict=True):
            before += [("user", talk[turn - 1].text), ("assistant", text or "?")]
            asked.append((scene, Query(talk[turn], talk[turn].objects, tuple(before))))
        said = answer(asked)
    return said


def model_answerer(loaded: LoadedModel) -> Answerer:
    """Answers with a model, greedily: what a session on the scene would say to each question, asked alone.

    Images, what all prompts about them begin with, and prompts that come again are read once for the same scenes.
    """
    latest: list[tuple[dict[int, int], list[Scene], SharedOpening]] = []  # none, or one: what was asked about last

    def opening_of(scenes: Sequence[Scene]) -> tuple[dict[int, int], SharedOpening]:
        """The row of each scene by its id in Python, and the opening of all of them."""
        if not latest or not all(id(scene) in latest[0][0] for scene in scenes):
            shown = list({id(scene): scene for scene in scenes}.values())
            pixel_values = [loaded.processor.image_processor(scene.image)["pixel_values"] for scene in shown]
            rows = {id(scene): row for row, scene in enumerate(shown)}
            latest[:] = [(rows, shown, SharedOpening(loaded, torch.cat(pixel_values)))]  # `shown` keeps the ids taken
        rows, _, opening = latest[0]
        return rows, opening

    def answer(asked: Sequence[Asked]) -> list[str]:
        if not asked:
            return []
        with loaded.hold_weights():
            place, opening = opening_of([scene for scene, _ in asked])
            read: dict[Turns, Prompt] = {}
            prompts, boxes = [], []
            for scene, query in asked:
                turns = (*query.earlier, ("user", query.question.text))
                if turns not in read:
                    read[turns] = loaded.processor.prompt(turns)
                prompts.append(read[turns])
                height, width = scene.image.shape[:2]
                exact = [scene.objects[k].box for k in query.objects]
                given = torch.from_numpy(normalise(exact if query.jittered is None else query.jittered, width, height))
                boxes.append(given[[number - 1 for number in prompts[-1].regions]])
            batch = opening.read(prompts, [place[id(scene)] for scene, _ in asked], boxes)
            rows = detokenizers(loaded, len(asked))
            for _ in decode(
                loaded,
                rows,
                batch.inputs_embeds,
                batch.cache,
                max_new_tokens=MAX_NEW_TOKENS,
                attention_mask=batch.attention_mask,
            ):
                pass
        return [row.text for row in rows]

    return answer


def main(arguments: Sequence[str] | None = None) -> None:
    parser = commands.demo_check()
    options = parser.parse_args(arguments)

    from gpt4roi_nb import GPT4RoI

    if options.scenes < 1:
        parser.error(f"--scenes must be at least 1, but is {options.scenes}")
    try:
        gpt4roi = GPT4RoI.from_pretrained(options.checkpoint)
        figures = measure(model_answerer(gpt4roi), options.scenes, options.seed)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    print(json.dumps(figures) if options.json else table(figures))


def table(figures: Figures) -> str:
    """The figures as lines of text."""
    columns = ("accuracy", "jittered", "shuffled", "chance")
    lines = [f"{'kind':14}" + "".join(f"{name:>10}" for name in columns) + f"{'n':>7}"]
    for kind, count in figures["n"].items():
        cells = [f"{figures[name][kind]:.3f}" if kind in figures[name] else "" for name in columns]
        lines.append(f"{kind:14}" + "".join(f"{cell:>10}" for cell in cells) + f"{count:7.0f}")
    turns = figures["turns"]
    if turns["of them"]:
        lines.append(
            f"first question of a conversation {turns['first']:.3f}, third {turns['third']:.3f} "
            f"({turns['of them']:.0f} conversations)"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
