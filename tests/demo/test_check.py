"""`demo.check` counts what it says it counts."""

import numpy as np
import pytest

from gpt4roi_nb.data.scenes.question_kinds import VALUES
from gpt4roi_nb.data.scenes.questions import KINDS
from gpt4roi_nb.demo import FIRST_RESERVED_SERIES, check
from gpt4roi_nb.demo.check import main, measure, table


def has_the_right_boxes(query):
    return query.objects == query.question.objects


def test_an_answerer_that_looks_at_the_box_is_right_and_its_control_is_not():
    def looks(asked):
        return [query.question.answer if has_the_right_boxes(query) else "nothing" for _, query in asked]

    figures = measure(looks, 3, seed=5)

    assert set(figures["accuracy"]) == {*KINDS, "compound", "qa", "qar", "qaqr-joint"}
    assert set(figures["accuracy"].values()) == {1.0}
    assert set(figures["shuffled"].values()) == {0.0}
    assert set(figures["jittered"].values()) == {1.0}
    assert figures["turns"]["first"] == figures["turns"]["third"] == 1.0 and figures["turns"]["of them"] > 0


def test_an_answerer_that_ignores_the_box_is_as_right_in_the_control():
    figures = measure(lambda asked: [query.question.answer for _, query in asked], 2, seed=5)

    assert set(figures["shuffled"].values()) == {1.0}


def test_a_wrong_answer_counts_as_wrong_for_every_kind():
    figures = measure(lambda asked: ["a teapot"] * len(asked), 2, seed=5)

    assert set(figures["accuracy"].values()) == {0.0}


def test_the_control_gives_every_region_the_box_of_another_object():
    seen = []

    def keep(asked):
        moved = [(scene, query) for scene, query in asked if not has_the_right_boxes(query)]
        seen.extend((query.question.objects, query.objects, len(scene.objects)) for scene, query in moved)
        return [""] * len(asked)

    measure(keep, 4, seed=6)

    assert seen
    for own, other, count in seen:
        assert len(own) == len(other) == len(set(other))
        assert all(a != b and 0 <= b < count for a, b in zip(own, other, strict=True))


def test_kinds_without_a_region_have_no_control():
    figures = measure(lambda asked: [""] * len(asked), 2, seed=5)

    assert not {"count", "which"} & set(figures["shuffled"])
    assert set(figures["n"]) == set(figures["accuracy"])


def test_the_same_seed_asks_the_same_questions():
    texts = []

    def keep(asked):
        texts.append([query.question.text for _, query in asked])
        return [""] * len(asked)

    measure(keep, 2, seed=7)
    measure(keep, 2, seed=7)

    half = len(texts) // 2
    assert half and texts[:half] == texts[half:]


def test_how_many_scenes_are_asked_about_together_changes_nothing(monkeypatch):
    def knows_some(asked):
        return [query.question.answer if len(query.question.text) % 3 else "nothing" for _, query in asked]

    together = measure(knows_some, 5, seed=8)
    monkeypatch.setattr(check, "TOGETHER", 2)

    assert measure(knows_some, 5, seed=8) == together
    assert 0 < together["accuracy"]["category"] < 1


@pytest.mark.parametrize("seed", [-1, FIRST_RESERVED_SERIES])
def test_the_seeds_of_training_are_refused(seed):
    with pytest.raises(ValueError, match="trained on"):
        measure(lambda asked: [], 1, seed)


def test_jittered_boxes_are_off_by_a_tenth_of_a_side_at_most():
    off = []

    def keep(asked):
        for scene, query in asked:
            if query.jittered is not None:
                exact = np.array([scene.objects[k].box for k in query.objects], float)
                sides = np.tile(exact[:, 2:] - exact[:, :2], 2)
                off.append(np.abs(query.jittered - exact) / sides)
        return [""] * len(asked)

    measure(keep, 3, seed=6)

    off = np.concatenate(off)
    assert 0.09 < off.max() <= 0.1 + 1e-5


def test_the_chance_of_the_control_is_what_perfect_eyes_would_have():
    def sees(asked):
        return [
            answer_about(scene.objects[query.objects[0]], query.question)
            if query.question.kind in VALUES
            else query.question.answer
            for scene, query in asked
        ]

    def answer_about(thing, question):
        value = getattr(thing, question.kind)
        verdict = question.target.split()[0]
        return f"{verdict}, {value}" if verdict in ("yes", "no") else value

    figures = measure(sees, 6, seed=5)

    assert figures["chance"] == {kind: figures["shuffled"][kind] for kind in VALUES}
    assert figures["accuracy"]["category"] == 1.0


def test_an_answer_is_told_by_its_letter():
    def always(asked):
        return ["(B), I think" for _ in asked]

    accuracy = measure(always, 12, seed=5)["accuracy"]

    assert 0 < accuracy["qa"] < 0.7 and 0 < accuracy["qar"] < 0.7
    assert accuracy["qaqr-joint"] <= min(accuracy["qa"], accuracy["qar"])


def test_the_table_has_a_line_for_every_kind():
    figures = measure(lambda asked: [""] * len(asked), 1, seed=5)

    lines = table(figures).splitlines()
    assert len(lines) == 2 + len(figures["accuracy"]) and "third" in lines[-1]


def test_bad_arguments_are_an_error_in_words(tmp_path, capsys):
    for arguments, words in (
        (["--checkpoint", str(tmp_path / "nowhere"), "--scenes", "1"], "no checkpoint at"),
        (["--scenes", "0"], "--scenes must be at least 1, but is 0"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert words in capsys.readouterr().err
