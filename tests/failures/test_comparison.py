"""Several models are fields of one dataset, with views of what they got wrong together and alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from predictions import make_images, make_predictions

from gpt4roi_nb.data.scenes.formats.write import write_world
from gpt4roi_nb.evaluate import Result, compare, export_questions, import_answers
from gpt4roi_nb.failures import DatasetGone, add_comparison, field_of, to_fiftyone
from gpt4roi_nb.widgets import FailureBrowser

pytestmark = pytest.mark.slow  # the first import of FiftyOne takes its time
NAMES = ("ann", "bob", "cid")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    images = make_images(tmp_path_factory.mktemp("images"), 12)
    return [make_predictions(images, seed=k, checkpoint=f"{name} {k}0{k}1b2c3d") for k, name in enumerate(NAMES)]


def verdicts(result: Result) -> dict[str, bool]:
    return dict(zip(result.predictions["id"], result.predictions["correct"], strict=True))


def items(view: Any, field: str) -> set[str]:
    return set(view.values(f"{field}.detections.item", unwind=True))


def test_two_models_share_failures_or_have_their_own(fiftyone, results) -> None:
    first, second = results[:2]
    for one in (first, second):
        dataset = to_fiftyone(one, progress=False)
    views = add_comparison(first, second)
    assert list(views) == ["ann and bob wrong", "ann right, bob wrong", "bob right, ann wrong"]
    ann, bob = verdicts(first), verdicts(second)
    for view, wanted in zip(views.values(), ((False, False), (True, False), (False, True)), strict=True):
        expected = {item for item in ann if (ann[item], bob[item]) == wanted}
        assert expected and items(view, field_of(first)) == items(view, field_of(second)) == expected
        assert len(view) == len({item.split("/")[1] for item in expected})
    told = compare(first, second)
    counts = [len(items(view, field_of(first))) for view in views.values()]
    assert counts == [told.both_wrong, told.only_first, told.only_second]
    assert {*views} < {*dataset.list_saved_views()}
    loaded = dataset.load_saved_view("ann right, bob wrong")
    assert items(loaded, field_of(second)) == items(views["ann right, bob wrong"], field_of(second))
    assert set(add_comparison(first, second)) == {*views}  # a second call changes nothing


def test_of_three_models_one_stands_alone(fiftyone, results) -> None:
    for one in results:
        to_fiftyone(one, progress=False)
    views = add_comparison(*results)
    said = [verdicts(one) for one in results]
    wanted = {"ann, bob and cid wrong": (False, False, False)}
    for k, name in enumerate(NAMES):
        wanted[f"only {name} wrong"] = tuple(place != k for place in range(3))
        wanted[f"only {name} right"] = tuple(place == k for place in range(3))
    expected = {
        title: found
        for title, each in wanted.items()
        if (found := {item for item in said[0] if tuple(one[item] for one in said) == each})
    }
    assert {title: items(view, field_of(results[2])) for title, view in views.items()} == expected
    assert len(expected) >= 4


def test_a_view_without_anything_is_taken_away(fiftyone, results) -> None:
    first = results[0]
    dataset = to_fiftyone(first, progress=False)
    to_fiftyone(results[1], field="other", progress=False)
    assert "ann right, bob wrong" in add_comparison(first, results[1], fields=(field_of(first), "other"))
    all_right = results[1].predictions.assign(correct=True)
    again = Result("toys", {}, {}, results[1].card, all_right.astype({"correct": "boolean"}))
    to_fiftyone(again, field="other", overwrite=True, progress=False)
    assert list(add_comparison(first, again, fields=(field_of(first), "other"))) == ["bob right, ann wrong"]
    dataset.reload()
    assert "ann right, bob wrong" not in dataset.list_saved_views()


def test_only_what_all_have_answered_counts(fiftyone, results) -> None:
    first, second = results[:2]
    fewer = Result("toys", {}, {}, second.card, second.predictions.iloc[::2].reset_index(drop=True))
    for one in (first, fewer):
        to_fiftyone(one, progress=False)
    found = {item for view in add_comparison(first, fewer).values() for item in items(view, field_of(first))}
    assert found and found <= set(fewer.predictions["id"])


def test_what_cannot_be_compared_is_refused_in_words(fiftyone, results) -> None:
    first, second = results[:2]
    with pytest.raises(ValueError, match="two or more results of one benchmark, but got 1"):
        add_comparison(first)
    with pytest.raises(ValueError, match="a field of its own"):
        add_comparison(first, first)
    with pytest.raises(ValueError, match="a field of its own"):
        add_comparison(first, second, fields=("one",))
    with pytest.raises(DatasetGone):
        add_comparison(first, second)
    to_fiftyone(first, progress=False)
    with pytest.raises(ValueError, match=r"has no field 'predictions_bob_1011b2'; import the result first"):
        add_comparison(first, second)


def test_answers_from_elsewhere_are_browsed_like_any(fiftyone, tmp_path: Path) -> None:
    world = write_world(tmp_path / "world", 2, seed=3, size=96, progress=False)
    header, *lines = map(json.loads, export_questions("coco", world, out=tmp_path / "asked").read_text().splitlines())
    found = []
    for name, answer, way in (("Osprey-7b", "mug", "mask"), ("DAM-3B", lines[0]["id"], "draw")):
        said = [header | {"model": name, "regions": way}, *({"id": line["id"], "answer": answer} for line in lines)]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in said))
        found.append(import_answers(tmp_path / name, world))
        dataset = to_fiftyone(found[-1], progress=False)
    osprey, dam = map(field_of, found)
    assert osprey.startswith("predictions_osprey_7b_mask_") and dam.startswith("predictions_dam_3b_draw_")
    assert items(dataset, osprey) == items(dataset, dam) == {line["id"] for line in lines}
    assert dataset.count("ground_truth.detections.mask") == 0  # COCO's masks are for models, and not part of a result
    views = add_comparison(*found)
    assert "Osprey-7b (mask) and DAM-3B (draw) wrong" in views
    browser = FailureBrowser(found[0])
    assert set(browser.table["id"]) == {line["id"] for line in lines}
    browser.close()
