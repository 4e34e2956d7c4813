"""Questions about the generated world: each answer is true of the scene, and scoring accepts it and nothing else."""

import re
from collections import Counter

import numpy as np
import pytest

from gpt4roi_nb.data.scenes import wordings
from gpt4roi_nb.data.scenes.questions import (
    KINDS,
    NO_REGION,
    ONE_REGION,
    TWO_REGIONS,
    Question,
    ask,
    compound,
    followup,
    is_right,
    vocabulary_texts,
)
from gpt4roi_nb.data.scenes.scene import COLOURS, Scene, SceneObject, scenes


@pytest.fixture(scope="module")
def some() -> list[Scene]:
    return list(scenes(17, 40, size=64))


def asked(some: list[Scene], kind: str, each: int = 6, seed: int = 0) -> list[tuple[Scene, Question]]:
    rng = np.random.default_rng(seed)
    drawn = [(scene, ask(scene, kind, rng)) for scene in some for _ in range(each)]
    return [(scene, question) for scene, question in drawn if question is not None]


def regions(scene: Scene, question: Question) -> dict[str, SceneObject]:
    return {f"region{k + 1}": scene.objects[index] for k, index in enumerate(question.objects)}


def named(text: str) -> list[str]:
    """Region names in the order in which a text mentions them."""
    return [f"region{number}" for number in re.findall(r"region ?(\d+)", text)]


def test_every_kind_of_question_can_be_asked_and_its_own_answer_is_right(some: list[Scene]) -> None:
    for kind in KINDS:
        questions = asked(some, kind)
        assert len(questions) > 100
        assert all(question.kind == kind and is_right(question, question.answer) for _, question in questions)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ONE_REGION)
def test_one_region_is_described_truly(some: list[Scene], kind: str) -> None:
    for scene, question in asked(some, kind):
        (thing,) = regions(scene, question).values()
        assert set(named(question.text)) == {"region1"}
        value = getattr(thing, kind)
        if question.target.split()[0] in ("yes", "no"):
            proposed = re.search(rf"\b({value}|{ {'wooden': 'wood'}.get(value, value) })\b", question.text)
            assert question.target == f"{'yes' if proposed else 'no'} {value}"
        else:
            assert question.target == value


def test_what_is_region1_is_answered_with_the_whole_phrase(some: list[Scene]) -> None:
    plain = [(s, q) for s, q in asked(some, "phrase", 30) if q.text == "What is <region1>?"]
    assert plain
    for scene, question in plain:
        assert question.answer == f"a {scene.objects[question.objects[0]].phrase}"


def test_same_is_answered_truly_and_names_the_values(some: list[Scene]) -> None:
    yes = 0
    for scene, question in asked(some, "same"):
        things = regions(scene, question)
        verdict, *values = question.target.split()
        first, second = (things[name] for name in list(dict.fromkeys(named(question.text)))[:2])
        nouns = {"shape": "category", "kind of": "category", "made of": "material", "stuff": "material"}
        nouns |= {"material": "material", "colour": "colour", "color": "colour", "size": "size"}
        attribute = next(value for word, value in nouns.items() if word in question.text)
        expected = [getattr(first, attribute), getattr(second, attribute)]
        assert values == (expected[:1] if expected[0] == expected[1] else expected)
        about_difference = "differ" in question.text
        assert verdict == ("yes" if (expected[0] == expected[1]) != about_difference else "no")
        yes += verdict == "yes"
    assert 0.3 < yes / len(asked(some, "same")) < 0.7


def ordered_truth(scene: Scene, question: Question) -> str:
    """The answer recomputed from the scene and the words of the question."""
    things = regions(scene, question)
    text = question.text.lower()
    first, second = list(dict.fromkeys(named(text)))
    if "side of" in text:  # "on which side of B is A?"
        first, second = second, first
    a, b = things[first], things[second]
    if question.kind == "larger":
        holds = a.size == ("small" if "small" in text else "large")
    elif question.kind == "left_right":
        left = a.box[0] + a.box[2] < b.box[0] + b.box[2]
        if ("left" in text and "right" in text) or "side of" in text:
            return "left" if left else "right"
        holds = left == ("left" in text)
    else:
        front = a.position[1] < b.position[1]
        if "front" in text and "behind" in text:
            return "front" if front else "behind"
        holds = front == any(word in text for word in ("front", "closer", "nearer"))
    if "which" in text or "what" in text:
        return first if holds else second
    return "yes" if holds else "no"


@pytest.mark.parametrize("kind", ["larger", "left_right", "front_behind"])
def test_ordered_pairs_are_answered_truly_with_either_region_first(some: list[Scene], kind: str) -> None:
    order = Counter()
    for scene, question in asked(some, kind, 12):
        assert question.target == ordered_truth(scene, question), question
        order[named(question.text)[0]] += 1
    assert min(order["region1"], order["region2"]) > 50


def test_close_calls_are_not_asked(some: list[Scene]) -> None:
    for scene, question in asked(some, "left_right"):
        a, b = (scene.objects[index].box for index in question.objects)
        assert abs(a[0] + a[2] - b[0] - b[2]) / 2 >= 0.05 * scene.image.shape[1]
    for scene, question in asked(some, "front_behind"):
        a, b = (scene.objects[index] for index in question.objects)
        assert abs(a.position[1] - b.position[1]) > 0.8
    rng = np.random.default_rng(0)
    scene = some[0]
    for i, a in enumerate(scene.objects):
        for j, b in enumerate(scene.objects):
            if i != j and a.size == b.size:
                assert ask(scene, "larger", rng, objects=(i, j)) is None


def test_counts_are_counted(some: list[Scene]) -> None:
    for scene, question in asked(some, "count"):
        words = {word.removesuffix("s") for word in re.findall(r"[a-z]+", question.text.lower())}
        attributes = ("category", "colour", "material", "size")
        values = {value for thing in scene.objects for value in (getattr(thing, name) for name in attributes)}
        counted = words & (values | set(COLOURS) | {"metal", "rubber", "wooden", "small", "large"})
        counted |= words & {"cube", "ball", "cylinder", "cone", "ring", "star", "mug"}
        matching = [t for t in scene.objects if all(value in t.phrase.split() for value in counted)]
        assert question.target == str(len(matching)), question


def test_lists_name_every_object_and_presence_is_true(some: list[Scene]) -> None:
    verdicts = Counter()
    for scene, question in asked(some, "which"):
        things = sorted(f"{thing.colour} {thing.category}" for thing in scene.objects)
        if question.target in ("yes", "no"):
            there = any(f" {thing}" in question.text for thing in things)
            assert question.target == ("yes" if there else "no")
            verdicts[question.target] += 1
        else:
            listed = re.split(r", | and ", question.answer)
            assert sorted(item.removeprefix("an ").removeprefix("a ") for item in listed) == things
    assert min(verdicts.values()) > 30


def test_compound_questions_describe_the_first_and_compare_with_the_second(some: list[Scene]) -> None:
    rng = np.random.default_rng(1)
    for scene in some * 4:
        question = compound(scene, rng)
        first, second = (scene.objects[index] for index in question.objects)
        assert is_right(question, question.answer)
        assert set(named(question.text)) == {"region1", "region2"}
        words = question.target.split()
        assert " ".join(words[:4]) == first.phrase
        if len(words) == 8:
            assert " ".join(words[4:]) == second.phrase
        else:
            assert words[5] in second.phrase.split()
            assert (words[4] == "yes") == (words[5] in first.phrase.split())
        assert not is_right(question, question.answer.replace(first.colour, "grey"))


def test_followups_number_on_and_name_new_regions_by_their_token(some: list[Scene]) -> None:
    rng = np.random.default_rng(2)
    spellings = set()
    for scene in some:
        for kind in KINDS:
            known = {1: 0, 2: 2} if len(scene.objects) > 3 and rng.random() < 0.5 else {1: 1}
            question = followup(scene, kind, rng, known, previous=kind)
            if question is None:
                assert kind in TWO_REGIONS
                continue
            assert question.objects[: len(known)] == tuple(known.values())
            new = len(known) + 1
            if len(question.objects) == new:
                assert f"<region{new}>" in question.text
            else:
                assert len(question.objects) == len(known)
                assert f"region{new}" not in question.text
            assert is_right(question, question.answer)
            spellings |= set(re.findall(r"region 1|(?<!<)region1|<region1>", question.text))
            if kind in ONE_REGION:
                number = int(re.findall(r"region ?(\d)", question.text)[0])
                assert question.target.split()[-1] in scene.objects[question.objects[number - 1]].phrase.split()
            if kind in ("left_right", "front_behind", "larger"):
                assert question.target == ordered_truth(scene, question), question
            if kind in NO_REGION:
                assert not named(question.text)
    assert spellings == {"region 1", "region1", "<region1>"}


def test_it_is_said_only_where_one_region_is_known(some: list[Scene]) -> None:
    rng = np.random.default_rng(3)
    for scene in [scene for scene in some if len(scene.objects) >= 3] * 4:
        question = followup(scene, "same", rng, {1: 0, 2: 1})
        assert question is not None
        assert len(set(named(question.text))) == 2


@pytest.mark.parametrize(
    ("kind", "target", "answer", "right"),
    [
        ("colour", "red", "Red.", True),
        ("colour", "red", "It is a red cone", True),
        ("colour", "red", "red or blue", False),
        ("colour", "red", "", False),
        ("colour", "red", "reddish", False),
        ("category", "ball", "a ball", True),
        ("category", "ball", "two balls", True),
        ("category", "ball", "a football", False),
        ("material", "wooden", "wood", True),
        ("material", "no wooden", "yes, it is wooden", False),
        ("phrase", "small red metal cone", "A small, red metal cone.", True),
        ("phrase", "small red metal cone", "a red metal cone", False),
        ("phrase", "small red metal cone", "a small red metal cone and a ball", False),
        ("same", "yes red", "yes, both are red", True),
        ("same", "yes red", "yes, both are blue", False),
        ("same", "no red blue", "no, region1 is red and region2 is blue", True),
        ("same", "no red blue", "no, region1 is blue and region2 is red", False),
        ("larger", "region2", "region 2", True),
        ("larger", "region2", "region1", False),
        ("left_right", "left", "to the left", True),
        ("left_right", "left", "left or right", False),
        ("front_behind", "front", "in front", True),
        ("count", "3", "3", True),
        ("count", "3", "13", False),
        ("which", "blue ball red cone", "a red cone and a blue ball", True),
        ("which", "blue ball red cone", "a blue cone and a red ball", False),
        ("which", "blue ball red cone", "a red cone", False),
    ],
)
def test_scoring(kind: str, target: str, answer: str, right: bool) -> None:
    assert is_right(Question(kind, "", "", (), target), answer) is right


def test_every_kind_has_at_least_fifteen_wordings(some: list[Scene]) -> None:
    for kind in KINDS:
        texts = {q.text.lower().replace("color", "colour").rstrip("?.") for _, q in asked(some, kind, 20)}
        masked = {re.sub(r"<region\d>", "<r>", text) for text in texts}
        assert len(masked) >= 15


def test_no_plain_wording_belongs_to_two_kinds() -> None:
    tables = {name: table for name, table in vars(wordings).items() if name.isupper() and isinstance(table, tuple)}
    counted = Counter(wording for name, table in tables.items() if "CHECK" not in name for wording in set(table))
    assert max(counted.values()) == 1


def test_a_wrong_kind_or_wrong_objects_are_refused_with_words(some: list[Scene]) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="kind must be one of"):
        ask(some[0], "weight", rng)
    with pytest.raises(ValueError, match="about 2 different objects"):
        ask(some[0], "same", rng, objects=(1, 1))
    with pytest.raises(ValueError, match="without gaps"):
        followup(some[0], "same", rng, {2: 0})
    lonely = next(scenes(1, 1, size=64, n_objects=1))
    with pytest.raises(ValueError, match="two objects"):
        compound(lonely, rng)
    assert ask(lonely, "same", rng) is None


def test_the_same_generator_state_asks_the_same_question(some: list[Scene]) -> None:
    assert asked(some, "same", seed=5) == asked(some, "same", seed=5)


def test_vocabulary_covers_every_word_of_questions_and_answers(some: list[Scene]) -> None:
    def words(text: str) -> set[str]:
        return set(re.findall(r"[A-Za-z']+|\d|[^\sA-Za-z\d]", text))

    known = set().union(*(words(text) for text in vocabulary_texts()))
    rng = np.random.default_rng(9)
    for scene in some:
        for kind in KINDS:
            for question in (ask(scene, kind, rng), followup(scene, kind, rng, {1: 0}, previous=kind)):
                if question is not None:
                    assert words(question.text) <= known, words(question.text) - known
                    assert words(question.answer) <= known, words(question.answer) - known
        question = compound(scene, rng)
        assert words(question.text) | words(question.answer) <= known
    assert len(known) < 400
