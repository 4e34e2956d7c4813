"""`demo.check` counts what it says it counts."""

import numpy as np
import pytest

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.scenes.open_questions import ALL_KINDS, OF_IMAGE
from gpt4roi_nb.data.scenes.question_kinds import VALUES
from gpt4roi_nb.data.scenes.scene import scenes
from gpt4roi_nb.data.scenes.unknown import DO_NOT_KNOW, NOT_MY_SCENE
from gpt4roi_nb.demo import FIRST_RESERVED_SERIES
from gpt4roi_nb.demo.check import figures as figures_module
from gpt4roi_nb.demo.check import measure, table
from gpt4roi_nb.demo.check.__main__ import main
from gpt4roi_nb.demo.check.bars import BARS, BENCHMARKS, MOST_LOST, REACHED, figure_name, missed
from gpt4roi_nb.demo.check.benchmarks import measure_benchmarks
from gpt4roi_nb.demo.check.figures import CALLED_NOTHING, REFUSED, TAKEN_FOR_OUT_OF_DOMAIN
from gpt4roi_nb.demo.check.out_of_domain import DRAWN_IMAGES, LIBRARY_IMAGES, measure_out_of_domain
from gpt4roi_nb.demo.check.queries import draw_questions


def has_the_right_boxes(query):
    return query.objects == query.question.objects


def test_an_answerer_that_looks_at_the_box_is_right_and_its_control_is_not():
    def looks(asked):
        return [query.question.answer if has_the_right_boxes(query) else "a teapot" for _, query in asked]

    figures = measure(looks, 3, seed=5)

    assert set(figures["accuracy"]) == {*ALL_KINDS, "compound", "qa", "qar", "qaqr-joint"}
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
        moved = [(scene, query) for scene, query in asked if not has_the_right_boxes(query) and query.question.objects]
        seen.extend((query.question.objects, query.objects, len(scene.objects)) for scene, query in moved)
        return [""] * len(asked)

    measure(keep, 4, seed=6)

    assert seen
    for own, other, count in seen:
        assert len(own) == len(other) == len(set(other))
        assert all(a != b and 0 <= b < count for a, b in zip(own, other, strict=True))


def test_kinds_without_a_region_have_no_control():
    figures = measure(lambda asked: [""] * len(asked), 2, seed=5)

    assert not {"count", "which", "unknown", *OF_IMAGE} & set(figures["shuffled"])
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
        return [query.question.answer if len(query.question.text) % 3 else "a teapot" for _, query in asked]

    together = measure(knows_some, 5, seed=8)
    monkeypatch.setattr(figures_module, "TOGETHER", 2)

    assert measure(knows_some, 5, seed=8) == together
    assert 0 < together["accuracy"]["category"] < 1


@pytest.mark.parametrize("seed", [-1, FIRST_RESERVED_SERIES])
def test_the_seeds_of_training_are_refused(seed):
    with pytest.raises(ValueError, match="training may have used"):
        measure(lambda asked: [], 1, seed)


def test_jittered_boxes_are_off_by_a_tenth_of_a_side_at_most():
    off = []

    def keep(asked):
        for scene, query in asked:
            if query.boxes is not None and query.objects:
                exact = np.array([scene.objects[k].box for k in query.objects], float)
                sides = np.tile(exact[:, 2:] - exact[:, :2], 2)
                off.append(np.abs(query.boxes - exact) / sides)
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
    assert [line.split()[0] for line in lines[1 : 1 + len(figures["accuracy"])]] == list(figures["accuracy"])
    assert "third" in lines[1 + len(figures["accuracy"])] and ">= 0.98" in table(figures)


def test_bad_arguments_are_an_error_in_words(tmp_path, capsys):
    for arguments, words in (
        (["--checkpoint", str(tmp_path / "nowhere"), "--scenes", "1"], "no checkpoint at"),
        (["--scenes", "0"], "--scenes: must be at least 1, but is 0"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert words in capsys.readouterr().err


def test_mistakes_are_counted_apart():
    def refuses_colours(asked):
        known = {"colour": DO_NOT_KNOW, "size": "the table; nothing stands there", "material": NOT_MY_SCENE}
        return [known.get(query.question.kind, query.question.answer) for _, query in asked]

    figures = measure(refuses_colours, 3, seed=5)

    mistakes = figures["mistakes"]
    assert 0.1 < mistakes[CALLED_NOTHING] < 0.3
    assert 0.02 < mistakes[REFUSED] < 0.15 and 0.02 < mistakes[TAKEN_FOR_OUT_OF_DOMAIN] < 0.15
    assert figures["unseen"]["colour"] == 0 and figures["unseen"]["category"] == 1
    assert figures["wordings"]["seen"] == figures["wordings"]["unseen"] < 1


def test_held_out_wordings_are_asked_apart():
    texts = {False: set(), True: set()}
    for held_out, found in texts.items():
        for index, scene in enumerate(scenes(5, 4, size=64)):
            questions = draw_questions(scene, np.random.default_rng(index), held_out=held_out)
            found |= {question.text.lower().rstrip("?.!") for question in questions}

    assert min(map(len, texts.values())) > 60 and not texts[False] & texts[True]


def test_images_of_libraries_are_shown_with_questions_about_them():
    sizes = set()

    def keep(asked):
        for scene, query in asked:
            height, width = scene.image.shape[:2]
            sizes.add((width, height))
            if query.boxes is not None:
                assert (query.boxes >= 0).all() and (query.boxes <= [width, height] * 2).all()
        return [NOT_MY_SCENE if k % 2 else "a red star" for k in range(len(asked))]

    found = measure_out_of_domain(keep, seed=5)

    assert found["files"] >= 25 and len(sizes) > 10
    assert found[LIBRARY_IMAGES] == found[DRAWN_IMAGES] == 0.5


def complete(figures):
    """The figures with those that no scene gives, all of them perfect."""
    names = [figure_name(name, metric) for name, metrics in BENCHMARKS.items() for metric in metrics]
    return {**figures, "strangers": {LIBRARY_IMAGES: 1.0}, "benchmarks": dict.fromkeys(names, 1.0)}


def test_what_misses_its_bar_is_said():
    def looks(asked):
        return [query.question.answer if has_the_right_boxes(query) else "a teapot" for _, query in asked]

    figures = complete(measure(looks, 3, seed=5))
    assert missed(figures, reached={}) == []
    assert "<= 0.005" in table(figures) and "visual7w: telling" in table(figures)

    for (column, name), bar in BARS.items():
        worse = {**figures, column: {**figures[column], name: bar.value + (0.001 if bar.at_most else -0.001)}}
        said = [line for line in missed(worse, reached={}) if "must" in line]
        assert len(said) == 1 and said[0].startswith(f"{name}: "), name
        assert bool([line for line in missed(worse) if "must" in line]) == (name not in REACHED), name
    forgets = {**figures, "turns": {**figures["turns"], "third": 0.9}}
    assert missed(forgets, reached={}) == ["third question 0.900, first 1.000"]
    parrots = {**figures, "wordings": {"seen": 1.0, "unseen": 0.94}}
    assert missed(parrots, reached={}) == ["unseen wordings 0.940, seen ones 1.000"]


def test_every_figure_with_a_bar_is_measured():
    figures = complete(measure(lambda asked: [""] * len(asked), 3, seed=5))
    assert all(name in figures[column] for column, name in BARS)


def test_the_table_is_one_of_bars_that_can_be_reached():
    assert all(0 < bar.value < 1 for bar in BARS.values()) and len(BARS) > 30
    bars = {bar.name: bar.value for bar in BARS.values() if not bar.at_most}
    assert all(least < bars[name] for name, least in REACHED.items() if name not in MOST_LOST)
    assert all(least > MOST_LOST[name] for name, least in REACHED.items() if name in MOST_LOST)


@pytest.mark.slow
def test_the_benchmarks_of_the_table_are_measured_as_shares():
    with GPT4RoI.from_pretrained() as gpt4roi:
        found = measure_benchmarks(gpt4roi, seed=9, images=12)

    assert list(found) == [name for column, name in BARS if column == "benchmarks"]
    assert all(0 <= figure <= 1 for figure in found.values())
