"""The examination's figures: how many answers are right, by kind of question, and how wrong ones are wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import islice

import numpy as np
from tqdm import tqdm

from gpt4roi_nb.data.scenes.open_questions import ALL_KINDS
from gpt4roi_nb.data.scenes.open_scoring import says_nothing_there, says_out_of_domain, says_unknown
from gpt4roi_nb.data.scenes.question_kinds import VALUES, value_of
from gpt4roi_nb.data.scenes.questions import ONE_REGION, Question
from gpt4roi_nb.data.scenes.scene import Scene, scenes
from gpt4roi_nb.data.scenes.unknown import UNKNOWN
from gpt4roi_nb.demo import check_seed
from gpt4roi_nb.demo.check.queries import COMPOUND, QUERIES, Answerer, Query, converse, draw, right
from gpt4roi_nb.demo.choices import QA, QAR

JOINT = "qaqr-joint"
TOGETHER = 6  # scenes whose questions are asked together: more would save little and take more memory
CALLED_NOTHING, REFUSED, TAKEN_FOR_OUT_OF_DOMAIN = "object called nothing", "answerable refused", "scene not recognised"
Figures = dict[str, dict[str, float]]
Verdicts = dict[str, dict[str, list[bool]]]


def measure(answer: Answerer, count: int, seed: int) -> Figures:
    """Measure how many answers about `count` fresh scenes are right, by kind of question.

    Args:
        answer: answers questions about scenes, such as `model_answerer(gpt4roi)`.
        count: number of scenes.
        seed: decides scenes and questions.

    Returns:
        "accuracy": share of right answers; "qa" and "qar" are multiple choice in VCR's form, `JOINT` is both at once.
        "n": number of questions.
        "shuffled": the control in which every region gets the box of another object of the scene, while the target
            stays. It has no entry for kinds that name no region, nor for multiple choice.
        "chance": of the same questions, the share whose target is also true of those other objects: what an answerer
            that sees perfectly would get there. Only for the attributes.
        "jittered": as "accuracy", with boxes whose edges are off by up to a tenth of the box's side.
        "unseen": as "accuracy", in wordings that are held out of training.
        "misspelt": as "accuracy", with a slip of one letter, on part of the scenes.
        "wordings": "seen" and "unseen", the means over the kinds that have both.
        "mistakes": how often a question about an object is answered as if there were none or no whole one, how often a
            question that has an answer is declined, and how often a scene is taken for an image of another world.
        "turns": the first and the third question of conversations, both of one kind; "of them" is their number.

    Raises:
        ValueError: the seed belongs to the scenes of training.
    """
    check_seed(seed)
    drawn = tqdm(scenes(seed, count), total=count, unit="scene", leave=False, disable=None)
    return measure_on(answer, drawn, seed)


def measure_on(answer: Answerer, drawn: Iterable[Scene], seed: int) -> Figures:
    """As `measure`, on these scenes; `seed` decides the questions."""
    found: Verdicts = defaultdict(lambda: defaultdict(list))
    numbered = enumerate(drawn)
    while group := [draw(scene, seed, index) for index, scene in islice(numbered, TOGETHER)]:
        asked = [(one.scene, query) for one in group for queries in one.queries.values() for query in queries]
        answers = iter(answer(asked))
        said = [{name: [next(answers) for _ in queries] for name, queries in one.queries.items()} for one in group]
        for one, texts in zip(group, said, strict=True):
            for name in QUERIES:
                for query, text in zip(one.queries[name], texts[name], strict=True):
                    found[name][query.question.kind].append(right(query.question, text))
                    if name in ("accuracy", "unseen"):
                        _note_mistakes(found["mistakes"], query.question, text)
            for query in one.queries["shuffled"]:
                kind = query.question.kind
                if kind in VALUES:
                    own, other = (one.scene.objects[k] for k in (*query.question.objects, *query.objects))
                    found["chance"][kind].append(value_of(own, kind) == value_of(other, kind))
        # Multiple choice separately: its prompts are long, and others would be padded to them.
        pairs = [(one.scene, pair) for one in group for pair in one.pairs]
        letters = iter(answer([(scene, Query(part, part.objects)) for scene, pair in pairs for part in pair]))
        for _, pair in pairs:
            verdicts = [right(part, next(letters)) for part in pair]
            for kind, verdict in zip((QA, QAR, JOINT), (*verdicts, all(verdicts)), strict=True):
                found["accuracy"][kind].append(verdict)
        conversations = [(one.scene, conversation) for one in group for conversation in one.conversations]
        first = [text for texts in said for text in texts["first"]]
        third = converse(answer, conversations, first)
        for (_, conversation), opening, last in zip(conversations, first, third, strict=True):
            found["turns"]["first"].append(right(conversation[0], opening))
            found["turns"]["third"].append(right(conversation[-1], last))
    kinds = [kind for kind in (*ALL_KINDS, COMPOUND, QA, QAR, JOINT) if kind in found["accuracy"]]
    figures = {
        name: {kind: float(np.mean(found[name][kind])) for kind in kinds if kind in found[name]}
        for name in (*QUERIES, "chance")
    }
    figures["n"] = {kind: len(found["accuracy"][kind]) for kind in kinds}
    figures["mistakes"] = {name: float(np.mean(verdicts)) for name, verdicts in found["mistakes"].items()}
    both = [kind for kind in kinds if kind in figures["unseen"]]
    figures["wordings"] = {
        name: float(np.mean([figures[column][kind] for kind in both]))
        for name, column in (("seen", "accuracy"), ("unseen", "unseen"))
        if both
    }
    turns = found["turns"]
    figures["turns"] = {name: float(np.mean(turns[name])) for name in turns} | {"of them": len(turns["first"])}
    return figures


def _note_mistakes(found: dict[str, list[bool]], question: Question, text: str) -> None:
    if question.kind in (*ONE_REGION, "anything"):
        found[CALLED_NOTHING].append(says_nothing_there(text))
    if question.kind != UNKNOWN:
        found[REFUSED].append(says_unknown(text))
    found[TAKEN_FOR_OUT_OF_DOMAIN].append(says_out_of_domain(text))
