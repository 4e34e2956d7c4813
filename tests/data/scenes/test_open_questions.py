"""What a newcomer asks: answers are true of the scene, judged strictly, in wordings of which some are held out."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest
from wording_tables import wording_tables

from gpt4roi_nb.data.scenes import (
    wordings,
)
from gpt4roi_nb.data.scenes.open_questions import ALL_KINDS, OPEN_KINDS, about_out_of_domain, ask, followup
from gpt4roi_nb.data.scenes.questions import Question, is_right
from gpt4roi_nb.data.scenes.scene import CATEGORIES, COLOURS, Scene, SceneObject, scenes
from gpt4roi_nb.data.scenes.spelling import casual, slip
from gpt4roi_nb.data.scenes.unknown import DO_NOT_KNOW, NOT_MY_SCENE, ONLY_THE_TABLE


@pytest.fixture(scope="module")
def some() -> list[Scene]:
    return list(scenes(23, 40, size=96))


def asked(some: list[Scene], kind: str, each: int = 5, seed: int = 0) -> list[tuple[Scene, Question]]:
    rng = np.random.default_rng(seed)
    drawn = [(scene, ask(scene, kind, rng, held_out=k % 2 == 1)) for scene in some for k in range(each)]
    return [(scene, question) for scene, question in drawn if question is not None]


def centre(thing: SceneObject) -> tuple[float, float]:
    x1, y1, x2, y2 = thing.box
    return (x1 + x2) / 2, (y1 + y2) / 2


def names_in(text: str) -> list[str]:
    """Colour and category of each object that an answer names."""
    pattern = rf"({'|'.join(COLOURS)}) ({'|'.join(CATEGORIES)})"
    return sorted(" ".join(pair) for pair in re.findall(pattern, text))


def phrase(text: str) -> str:
    """A question without capitals, its closing mark and American spelling."""
    return text.lower().replace("color", "colour").rstrip("?.!")


@pytest.mark.parametrize("kind", OPEN_KINDS)
def test_every_kind_can_be_asked_and_its_own_answer_is_right_and_others_are_not(some: list[Scene], kind: str) -> None:
    questions = asked(some, kind)
    assert len(questions) > 100
    for scene, question in questions:
        assert question.kind == kind
        assert is_right(question, question.answer), question
        for wrong in ("", "a red star, a red star and a red star", "yes and no", "13 dogs on a table"):
            assert not is_right(question, wrong), (question, wrong)
        numbers = {int(number) for number in re.findall(r"<region(\d)>", question.text)}
        assert numbers == set(range(1, len(question.regions(scene)) + 1))


@pytest.mark.parametrize("kind", ["describe", "which"])
def test_a_list_names_every_object_from_left_to_right(some: list[Scene], kind: str) -> None:
    for scene, question in asked(some, kind, 1):
        if question.answer in ("yes", "no"):
            continue
        ordered = sorted(scene.objects, key=lambda thing: thing.box[0] + thing.box[2])
        said = re.findall(r"\ban? ([a-z]+ [a-z]+)", question.answer.removesuffix(" on a table"))
        assert said == [f"{thing.colour} {thing.category}" for thing in ordered]
        assert question.answer.endswith(" on a table") is (kind == "describe")


DESCRIBED = "blue star red cube red mug red mug red star white mug"


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("a cube, 2 stars and 3 mugs on a table", True),
        ("Two stars, three mugs, and a cube.", True),
        ("6 objects: 1 cube, 2 stars and 3 mugs", True),
        ("five objects: a cube, two stars and three mugs", False),
        ("a cube, 2 stars and 2 mugs on a table", False),
        ("a cube and 2 stars on a table", False),
        ("a cube, 2 stars, 3 mugs and a ball on a table", False),
        ("a red cube, 2 stars and 3 mugs on a table", False),
        ("a red cube, a red star, a blue star, a red mug, a red mug and a white mug on a table", True),
        ("I see a white mug, two things", False),
        ("A red cube, a red star, a blue star, a red mug, a white mug, a red mug.", True),
        ("a blue cube, a red star, a red star, a red mug, a red mug and a white mug on a table", False),
        ("a red cube, a red star, a blue star, a red mug and a white mug on a table", False),
        ("a red cube, a red star, a blue star, a red mug, a red mug, a white mug and a dog", False),
        ("a cube, 2 stars and 3 mugs on a wooden table", False),
        ("a cube, 2 stars and 3 mugs and a dog", False),
        ("cubes, stars and mugs", False),
    ],
)
def test_a_description_is_judged_by_every_word(answer: str, right: bool) -> None:
    assert is_right(Question("describe", "", "", (), DESCRIBED), answer) is right


def test_the_extreme_object_is_the_one_by_its_measure(some: list[Scene]) -> None:
    seen = set()
    for scene, question in asked(some, "extreme"):
        words = phrase(question.text)
        for signs, key in (
            (("largest", "biggest", "most space"), lambda o: -(o.box[2] - o.box[0]) * (o.box[3] - o.box[1])),
            (("smallest", "least space"), lambda o: (o.box[2] - o.box[0]) * (o.box[3] - o.box[1])),
            (("left",), lambda o: centre(o)[0]),
            (("right",), lambda o: -centre(o)[0]),
            (("furthest", "farthest", "behind"), lambda o: -o.position[1]),
            (("nearest", "closest", "front"), lambda o: o.position[1]),
        ):
            if any(sign in words for sign in signs):
                first = min(scene.objects, key=key)
                break
        assert question.target == first.phrase and names_in(question.answer) == [f"{first.colour} {first.category}"]
        seen.add(signs)
    assert len(seen) == 6


def test_what_is_present_is_present(some: list[Scene]) -> None:
    verdicts = Counter()
    for scene, question in asked(some, "present"):
        named = re.search(r"\b(an? \w+ ?\w*?)(?=$| here| on | to | in )", re.sub(r"[?.]$", "", question.text))
        values = [
            word
            for word in question.text.rstrip("?.").split()
            if any(word in o.phrase.split() for s in some for o in s.objects)
        ]
        there = any(set(values) <= set(thing.phrase.split()) for thing in scene.objects)
        assert named and values and question.target == ("yes" if there else "no"), question
        verdicts[question.target] += 1
    assert min(verdicts.values()) > 60


def test_varieties_are_all_named(some: list[Scene]) -> None:
    for scene, question in asked(some, "variety"):
        words = phrase(question.text)
        name = (
            "colour" if "colour" in words else "material" if "material" in words or "made of" in words else "category"
        )
        assert set(question.target.split()) == {getattr(thing, name) for thing in scene.objects}
        assert len(set(question.target.split())) == len(question.target.split())


def apart(a: SceneObject, b: SceneObject, side: int) -> tuple[float, float]:
    """By what `a` is further right, as a share of the side, and further back than `b`."""
    return (centre(a)[0] - centre(b)[0]) / side, a.position[1] - b.position[1]


def test_a_relation_says_every_clear_axis_and_no_other(some: list[Scene]) -> None:
    for scene, question in asked(some, "relation"):
        first, second = dict.fromkeys(re.findall(r"<region(\d)>", question.text))
        right, back = apart(
            *(scene.objects[question.objects[int(k) - 1]] for k in (first, second)), scene.image.shape[1]
        )
        words = set(re.findall("left|right|front|behind", question.answer))
        expected = {("right" if right > 0 else "left")} if abs(right) > 0.06 else set()
        expected |= {("behind" if back > 0 else "front")} if abs(back) > 0.9 else set()
        assert words == expected and f"region{second}" in question.answer and f"region{first}" not in question.answer


def test_what_stands_around_is_there_and_nothing_else_is(some: list[Scene]) -> None:
    seen = Counter()
    for scene, question in asked(some, "around"):
        (index,) = question.objects
        here, words = scene.objects[index], phrase(question.text)
        gaps = {k: apart(thing, here, scene.image.shape[1]) for k, thing in enumerate(scene.objects) if k != index}
        if "left" in words:
            side, there = "left", [k for k, (right, _) in gaps.items() if right < -0.05]
        elif "right" in words:
            side, there = "right", [k for k, (right, _) in gaps.items() if right > 0.05]
        elif "behind" in words or "further" in words:
            side, there = "behind", [k for k, (_, back) in gaps.items() if back > 0.7]
        elif "front" in words or "closer" in words:
            side, there = "front", [k for k, (_, back) in gaps.items() if back < -0.7]
        else:
            side, there = "near", [min(gaps, key=lambda k: math.dist(scene.objects[k].position, here.position))]
        expected = sorted(f"{scene.objects[k].colour} {scene.objects[k].category}" for k in there)
        assert names_in(question.answer) == expected and (question.answer == "nothing") == (not expected)
        seen[side] += 1
    assert len(seen) == 5


def test_what_stands_between_is_near_the_line(some: list[Scene]) -> None:
    something = 0
    for scene, question in asked(some, "between"):
        a, b = (np.array(scene.objects[k].position) for k in question.objects)
        there = []
        for k, thing in enumerate(scene.objects):
            if k not in question.objects:
                share = np.dot(thing.position - a, b - a) / np.dot(b - a, b - a)
                nearest = a + share * (b - a)
                if 0.1 < share < 0.9 and np.linalg.norm(nearest - thing.position) < 1.2:
                    there.append(f"{thing.colour} {thing.category}")
        assert names_in(question.answer) == sorted(there)
        something += bool(there)
    assert 40 < something < 160


def test_what_is_shared_and_what_differs(some: list[Scene]) -> None:
    differ = 0
    for scene, question in asked(some, "shared"):
        first, second = (scene.objects[k] for k in question.objects)
        attributes = {"size": "size", "colour": "colour", "material": "material", "shape": "category"}
        same = {
            noun: getattr(first, name)
            for noun, name in attributes.items()
            if getattr(first, name) == getattr(second, name)
        }
        if question.target.startswith("differ"):
            differ += 1
            assert set(question.target.split()[1:]) == set(attributes) - set(same)
        else:
            assert question.target == (" ".join(same.values()) or "nothing")
    assert 50 < differ < 150


def test_a_box_that_is_no_object_is_said_to_be_none(some: list[Scene]) -> None:
    seen = Counter()
    for scene, question in asked(some, "nothing", 10):
        (box,) = question.boxes
        x1, y1, x2, y2 = box
        assert 0 <= x1 < x2 <= scene.image.shape[1] and 0 <= y1 < y2 <= scene.image.shape[0] and not question.objects
        inside = [mask[y1:y2, x1:x2].sum() / mask.sum() for mask in scene.masks]
        shown = [k for k, share in enumerate(inside) if share]
        kind, *rest = question.target.split()
        if kind == "part":
            (index,) = shown
            assert 0.1 < inside[index] < 0.9 and " ".join(rest) == scene.objects[index].phrase
        elif kind == "two":
            assert min(inside[k] for k in shown) == 1 and len(shown) == 2
            assert names_in(question.answer) == sorted(
                f"{scene.objects[k].colour} {scene.objects[k].category}" for k in shown
            )
        else:
            assert not shown
            edge = scene.image.shape[0] * 40 / 336
            assert kind == "table" if y1 >= edge else kind == "wall" and (y2 > edge + 1) == ("table" in rest)
        seen[question.target if kind in ("table", "wall") else kind] += 1
    assert set(seen) == {"table", "wall", "wall table", "part", "two"} and min(seen.values()) > 5


@pytest.mark.parametrize(
    ("kind", "target", "answer", "right"),
    [
        ("extreme", "small red metal cone", "the red cone", True),
        ("extreme", "small red metal cone", "a small red metal cone", True),
        ("extreme", "small red metal cone", "a large red metal cone", False),
        ("extreme", "small red metal cone", "a cone", False),
        ("extreme", "small red metal cone", "not a red cone", False),
        ("present", "yes", "yes, a red one", True),
        ("present", "yes", "yes or no", False),
        ("variety", "red blue", "blue and red", True),
        ("variety", "red blue", "blue, red and green", False),
        ("relation", "left behind region2", "behind region 2, to the left", True),
        ("relation", "left behind region2", "to the left of region2", False),
        ("relation", "left region2", "to the left of region1", False),
        ("relation", "left region2", "to the left of region2 and behind it", False),
        ("around", "nothing", "nothing", True),
        ("around", "nothing", "nothing but a red star", False),
        ("around", "blue mug red star", "a red star and a blue mug", True),
        ("around", "blue mug red star", "a blue star and a red mug", False),
        ("around", "red star", "a red star and a red star", False),
        ("shared", "small red", "both are red and small", True),
        ("shared", "small red", "both are small", False),
        ("shared", "nothing", "both are red", False),
        ("shared", "differ colour shape", "in shape and color", True),
        ("shared", "differ colour shape", "in shape", False),
        ("shared", "differ", "they do not differ", True),
        ("shared", "differ", "in size", False),
        ("nothing", "table", "the table; nothing stands there", True),
        ("nothing", "table", "an empty table", True),
        ("nothing", "table", "the wall; nothing stands there", False),
        ("nothing", "table", "a red star on the table", False),
        ("nothing", "wall table", "the wall and the table; nothing stands there", True),
        ("nothing", "part small red metal star", "part of a star", True),
        ("nothing", "part small red metal star", "part of a blue star", False),
        ("nothing", "part small red metal star", "a star", False),
        ("nothing", "two blue mug red star", "two things: a red star and a blue mug", True),
        ("nothing", "two blue mug red star", "a red star and a blue mug", False),
        ("unknown", "unknown", DO_NOT_KNOW.upper(), True),
        ("unknown", "unknown", ONLY_THE_TABLE + ".", True),
        ("unknown", "unknown", "I do not know; a red star", False),
        ("stranger", "stranger", NOT_MY_SCENE, True),
        ("stranger", "stranger", DO_NOT_KNOW, False),
    ],
)
def test_scoring(kind: str, target: str, answer: str, right: bool) -> None:
    assert is_right(Question(kind, "", "", (), target), answer) is right


def test_three_tenths_of_the_wordings_are_held_out_and_training_has_none_of_them() -> None:
    every = wording_tables()
    seen = {phrase(text) for table in every.values() for text in table.seen}
    seen |= {
        phrase(text)
        for name, table in vars(wordings).items()
        if name.isupper() and isinstance(table, tuple)
        for text in table
    }
    unseen = [phrase(text) for name, table in every.items() if "CHECK" not in name for text in table.unseen]
    assert not seen & {phrase(text) for table in every.values() for text in table.unseen}
    assert len(set(unseen)) == len(unseen)
    held_out, trained = (sum(map(len, one)) for one in zip(*((t.unseen, t.seen) for t in every.values()), strict=True))
    assert 0.29 < held_out / (held_out + trained) < 0.31
    for name, table in every.items():
        assert 0.2 <= len(table.unseen) / (len(table.seen) + len(table.unseen)) <= 0.42, name
    plain = {name for name, table in vars(wordings).items() if name.isupper() and isinstance(table, tuple)}
    assert plain - set(every) == {"OPENERS", "THINGS"}
    assert (
        sum(len(t.seen) + len(t.unseen) for name, t in every.items() if name.split()[0] in ("region", "image", "chat"))
        > 100
    )


def test_held_out_questions_have_wordings_that_training_has_not(some: list[Scene]) -> None:
    unseen = "|".join(
        re.sub(r"\\\{\w+\\\}", r"(<region\\d>|[\\w ]+)", re.escape(phrase(text)))
        for table in wording_tables().values()
        for text in table.unseen
    )
    rng = np.random.default_rng(4)
    for kind in ALL_KINDS:
        questions = [ask(scene, kind, rng, held_out=True) for scene in some[:10]]
        texts = [phrase(question.text) for question in questions if question is not None]
        assert texts
        assert all(re.fullmatch(unseen, text) for text in texts), texts


def test_no_wording_belongs_to_two_kinds() -> None:
    counted = Counter(
        phrase(text)
        for name, table in wording_tables().items()
        if "CHECK" not in name and "it " not in name
        for text in table.seen
    )
    twice = {text for text, count in counted.items() if count > 1}
    # who asks for a certain thing asks `present` and, of `which`, the same
    assert all("{value}" in text for text in twice)


def test_followups_name_what_was_named_before(some: list[Scene]) -> None:
    rng = np.random.default_rng(5)
    said = set()
    for scene in some:
        for kind in (*OPEN_KINDS, "colour"):
            question = followup(scene, kind, rng, {1: 2})
            if question is None:
                assert kind in ("nothing", "relation", "around", "between")
                continue
            assert question.objects[0] == 2 and is_right(question, question.answer)
            assert ("<region2>" in question.text) == (len(question.objects) == 2)
            said |= set(re.findall(r"\bit\b|region 1|<region1>", question.text))
    assert said == {"it", "region 1", "<region1>"}


def test_a_question_about_another_image_has_boxes_inside_it(some: list[Scene]) -> None:
    rng = np.random.default_rng(6)
    boxes = 0
    for scene in some:
        question = about_out_of_domain(scene, (80, 30), rng)
        assert question.kind == "stranger" and is_right(question, NOT_MY_SCENE) and not question.objects
        for x1, y1, x2, y2 in question.boxes:
            assert 0 <= x1 < x2 <= 80 and 0 <= y1 < y2 <= 30
        boxes += len(question.boxes)
    assert boxes > 10


def test_a_slip_changes_one_letter_of_a_longer_word_and_no_reference() -> None:
    rng = np.random.default_rng(7)
    text = "What is the colour of <region1> and region 2?"
    for _ in range(200):
        changed = slip(rng, text)
        assert "<region1>" in changed and "region 2" in changed and changed[0] == "W"
        assert abs(len(changed) - len(text)) <= 1
    assert slip(rng, "is it <region1>?") == "is it <region1>?"
    assert "what's" in {casual(rng, "What is it?").lower()[:6] for _ in range(40)}


def test_an_unknown_kind_is_an_error_in_words(some: list[Scene]) -> None:
    with pytest.raises(ValueError, match="kind must be one of"):
        ask(some[0], "weight", np.random.default_rng(0))
