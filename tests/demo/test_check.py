"""`demo.check` counts what it says it counts."""

import pytest

from gpt4roi_nb.data.questions import KINDS
from gpt4roi_nb.demo.check import main, measure, table
from gpt4roi_nb.demo.recipe import FIRST_RESERVED_SERIES


def with_right_boxes(question, objects):
    return objects == question.objects


def test_an_answerer_that_looks_at_the_box_is_right_and_its_control_is_not():
    def looks(scene, questions):
        return [q.answer if with_right_boxes(q, objects) else "nothing" for q, objects in questions]

    figures = measure(looks, 3, seed=5)

    assert set(figures["accuracy"]) == {*KINDS, "compound"}
    assert set(figures["accuracy"].values()) == {1.0}
    assert set(figures["shuffled"].values()) == {0.0}


def test_an_answerer_that_ignores_the_box_is_as_right_in_the_control():
    figures = measure(lambda scene, questions: [q.answer for q, _ in questions], 2, seed=5)

    assert set(figures["shuffled"].values()) == {1.0}


def test_a_wrong_answer_counts_as_wrong_for_every_kind():
    figures = measure(lambda scene, questions: ["a teapot"] * len(questions), 2, seed=5)

    assert set(figures["accuracy"].values()) == {0.0}


def test_the_control_gives_every_region_the_box_of_another_object():
    seen = []

    def keep(scene, questions):
        seen.extend((q.objects, objects, len(scene.objects)) for q, objects in questions if objects != q.objects)
        return [""] * len(questions)

    measure(keep, 4, seed=6)

    assert seen
    for own, other, count in seen:
        assert len(own) == len(other) == len(set(other))
        assert all(a != b and 0 <= b < count for a, b in zip(own, other, strict=True))


def test_kinds_without_a_region_have_no_control():
    figures = measure(lambda scene, questions: [""] * len(questions), 2, seed=5)

    assert not {"count", "which"} & set(figures["shuffled"])
    assert set(figures["n"]) == set(figures["accuracy"])


def test_the_same_seed_asks_the_same_questions():
    asked = []

    def keep(scene, questions):
        asked.append([q.text for q, _ in questions])
        return [""] * len(questions)

    measure(keep, 2, seed=7)
    measure(keep, 2, seed=7)

    assert asked[:2] == asked[2:]


@pytest.mark.parametrize("seed", [-1, FIRST_RESERVED_SERIES])
def test_the_seeds_of_training_are_refused(seed):
    with pytest.raises(ValueError, match="trained on"):
        measure(lambda scene, questions: [], 1, seed)


def test_the_table_has_a_line_for_every_kind():
    figures = measure(lambda scene, questions: [""] * len(questions), 1, seed=5)

    assert len(table(figures).splitlines()) == 1 + len(figures["accuracy"])


def test_bad_arguments_are_an_error_in_words(tmp_path, capsys):
    for arguments, words in (
        (["--checkpoint", str(tmp_path / "nowhere"), "--scenes", "1"], "no checkpoint at"),
        (["--scenes", "0"], "--scenes must be at least 1, but is 0"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert words in capsys.readouterr().err
