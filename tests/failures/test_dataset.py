"""Predictions become a FiftyOne dataset in a real MongoDB: every value, every view, nothing twice, nothing lost."""

from __future__ import annotations

import importlib.machinery
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mongo import Mongo
from predictions import SIZE, make_images, make_predictions
from tiny import tiny_gpt4roi

from gpt4roi_nb.evaluate import Result
from gpt4roi_nb.failures import (
    DatasetGone,
    NoDatabase,
    add_attention,
    add_features,
    field_of,
    label_ids,
    open_dataset,
    read_tags,
    tag,
    to_fiftyone,
)
from gpt4roi_nb.failures import dataset as dataset_module
from gpt4roi_nb.failures.dataset import failures_view
from gpt4roi_nb.failures.features import SEED, principal_components
from gpt4roi_nb.failures.heat_maps import heat_map_field
from gpt4roi_nb.failures.labels import decode_mask
from gpt4roi_nb.failures.rows import rows_of
from gpt4roi_nb.failures.views import view_name

pytestmark = pytest.mark.slow  # the first import of FiftyOne takes its time


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_images(tmp_path_factory.mktemp("images"), 12)


@pytest.fixture()
def result(images: list[Path]) -> Result:
    return make_predictions(images)


def imported(result: Result, **options: Any) -> Any:
    return to_fiftyone(result, progress=False, **options)


def detections(dataset: Any, field: str) -> dict[str, Any]:
    return {
        detection.item: detection
        for found in dataset.values(field)
        for detection in (found.detections if found else ())
    }


# --------------------------------------------------------------------------------------------------- the import


def test_every_value_of_the_table_is_there(fiftyone, result) -> None:
    dataset = imported(result)
    assert dataset.persistent and dataset.name == "toys" and len(dataset) == 12
    truth, said = detections(dataset, "ground_truth"), detections(dataset, "predictions_tiny_0a1b2c")
    rows = {row["id"]: row for row in rows_of(result)}
    assert set(truth) == set(said) == set(rows) and len(rows) == 48
    for item, row in rows.items():
        x1, y1, x2, y2 = row["boxes"][0]
        box = [x1 / SIZE[0], y1 / SIZE[1], (x2 - x1) / SIZE[0], (y2 - y1) / SIZE[1]]
        for detection in (truth[item], said[item]):
            assert detection.bounding_box == pytest.approx(box)
            assert [detection.question, detection.target, detection.size_bin, detection.kind, detection.region] == [
                row["question"], row["target"], row["size_bin"], row["kind"], 1
            ]  # fmt: skip
        assert truth[item].label == row["target"]
        assert said[item].label == (row["answer"] or "(nothing)")
        assert said[item].correct is row["correct"] and said[item].error_kind == row["error_kind"]
        assert said[item].logprob == row["logprob"] and said[item].margin == row["margin"]
        assert said[item].confidence == pytest.approx(np.exp(row["logprob"]))


def test_what_is_written_in_bulk_is_what_fiftyone_itself_would_write(fiftyone, result) -> None:
    dataset = imported(result)
    field = field_of(result)
    written = detections(dataset, field)["toys/0/0"]
    values = {name: written[name] for name in ("item", "question", "target", "answer", "correct", "logprob", "margin")}
    values |= {name: written[name] for name in ("region", "size_bin", "kind", "error_kind", "label", "bounding_box")}
    own = fiftyone.Sample(filepath="/nowhere.png")
    own[field] = fiftyone.Detections(
        detections=[
            fiftyone.Detection(confidence=written.confidence, **{k: v for k, v in values.items() if v is not None})
        ]
    )
    dataset.add_sample(own)
    collection = fiftyone.core.odm.get_db_conn()[dataset._sample_collection_name]
    ours, theirs = (
        collection.find_one({"filepath": path})[field] for path in (result.predictions["image"][0], own.filepath)
    )
    assert ours["_cls"] == theirs["_cls"]
    ours, theirs = ours["detections"][0], theirs["detections"][0]
    for one in (ours, theirs):
        one.pop("_id")
    assert ours == theirs


def test_a_mask_is_shown_where_it_lies(fiftyone, images) -> None:
    from pycocotools import mask as tools

    result = make_predictions(images[:1], 1)
    whole = np.zeros((SIZE[1], SIZE[0]), dtype=np.uint8)
    x1, y1, x2, y2 = (int(value) for value in result.predictions["boxes"][0][0])
    whole[y1 + 1 : y2, x1 : x2 - 3] = 1
    result.predictions["mask"] = [tools.encode(np.asfortranarray(whole))["counts"].decode()]
    (found,) = detections(imported(result), "ground_truth").values()
    np.testing.assert_array_equal(found.mask, whole[y1:y2, x1:x2].astype(bool))


def test_masks_are_decoded_as_coco_does() -> None:
    from pycocotools import mask as tools

    random = np.random.default_rng(0)
    for _ in range(20):
        height, width = random.integers(1, 60, 2)
        mask = random.random((height, width)) < random.random()
        counts = tools.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        np.testing.assert_array_equal(decode_mask(counts, width, height), mask)


@pytest.mark.parametrize(
    ("counts", "why"),
    [("01", "add up to 100"), ("T3P", "end within a number"), ("~T3", "not compressed run lengths")],
)
def test_run_lengths_that_are_no_mask_of_the_size_are_not_shown_as_one(counts, why) -> None:
    with pytest.raises(ValueError, match=why):
        decode_mask(counts, 10, 10)


def test_each_saved_view_holds_what_its_name_says(fiftyone, images) -> None:
    result = make_predictions(images, classes=True)
    dataset, field = imported(result), field_of(result)
    rows = rows_of(result)
    expected = {
        "failures": [row for row in rows if row["correct"] is False],
        "wrong region": [row for row in rows if row["error_kind"] == "wrong region"],
        "most confident failures": [row for row in rows if row["correct"] is False],  # fewer than would be cut
        "the two mappings disagree": [row for row in rows if row["mapped_sbert"] != row["mapped_lexical"]],
        "small boxes": [row for row in rows if row["size_bin"] == "small"],
        **{f"slice {kind}": [row for row in rows if row["kind"] == kind] for kind in {row["kind"] for row in rows}},
    }
    assert set(dataset.list_saved_views()) == {view_name("tiny", title) for title in expected}
    for title, wanted in expected.items():
        assert wanted, f"the generated predictions leave {title!r} empty"
        view = dataset.load_saved_view(view_name("tiny", title))
        assert set(detections(view, field)) == {row["id"] for row in wanted}, title
    surest = dataset.load_saved_view(view_name("tiny", "most confident failures"))
    highest = [max(d.logprob for d in sample[field].detections) for sample in surest]
    assert highest == sorted(highest, reverse=True)


def test_views_have_the_checkpoints_name_and_none_is_empty(fiftyone, images) -> None:
    """Two checkpoints with the same name have different fields."""
    right = make_predictions(images, 1)
    right.predictions["answer"], right.predictions["correct"] = right.predictions["target"], True
    other = make_predictions(images, 1, seed=1, checkpoint="tiny ffee0123")
    named = make_predictions(images, 1, seed=2, checkpoint="runs/rounded 77")
    imported(right), imported(other)
    views = imported(named).list_saved_views()
    assert {view.partition(": ")[0] for view in views} == {"tiny", "tiny_ffee01", "rounded"}
    assert {view for view in views if view.endswith(": failures")} == {"tiny_ffee01: failures", "rounded: failures"}
    dataset = open_dataset("toys")
    assert failures_view(dataset, field_of(right)) is None
    assert failures_view(dataset, field_of(named)).count("ground_truth") > 0
    imported(make_predictions(images, 1, seed=3, checkpoint="runs/rounded 77"), overwrite=True)
    assert failures_view(open_dataset("toys"), field_of(other)).name == "tiny_ffee01: failures"


def test_another_checkpoint_is_a_field_beside_the_first(fiftyone, result, images) -> None:
    first = imported(result)
    assert tag(first, field_of(result), ["toys/0/0", "toys/3/1"], "seen") == 2
    other = make_predictions(images, seed=1, checkpoint="run/checkpoint-500 ffee0123")
    dataset = imported(other)
    assert dataset.name == "toys" and len(dataset) == 12
    assert dataset.count("ground_truth.detections") == 48
    for one in (result, other):
        said = detections(dataset, field_of(one))
        assert {item: said[item].label for item in said} == {
            row["id"]: row["answer"] or "(nothing)" for row in rows_of(one)
        }
    assert field_of(other) == "predictions_checkpoint_500_ffee01"
    assert sorted(read_tags(dataset, field_of(result))["seen"]) == ["toys/0/0", "toys/3/1"]
    ids = dataset.values(f"{field_of(result)}.detections.id", unwind=True)
    again = imported(result)
    assert again.values(f"{field_of(result)}.detections.id", unwind=True) == ids  # nothing was written again


def test_a_larger_run_of_the_same_images_adds_what_is_missing(fiftyone, images) -> None:
    whole = make_predictions(images)
    part = Result("toys", {}, {}, whole.card, whole.predictions.iloc[::3].reset_index(drop=True))
    imported(part)
    tag(open_dataset("toys"), field_of(part), ["toys/0/0"], "kept")
    dataset = imported(whole, overwrite=True)
    assert dataset.count(f"{field_of(whole)}.detections") == dataset.count("ground_truth.detections") == 48


def test_another_result_of_one_checkpoint_is_not_mixed_in(fiftyone, result, images) -> None:
    imported(result)
    changed = make_predictions(images, seed=5)
    with pytest.raises(ValueError, match="overwrite=True"):
        imported(changed)
    dataset = imported(changed, overwrite=True)
    assert detections(dataset, field_of(changed))["toys/1/1"].logprob == changed.predictions["logprob"][5]
    imported(result, field="predictions_first")
    assert len(detections(dataset, "predictions_first")) == 48


def test_what_replaces_a_result_leaves_nothing_of_it_behind(fiftyone, result, monkeypatch) -> None:
    dataset, field = imported(result), field_of(result)
    vectors = {item: np.eye(4)[index % 4] for index, item in enumerate(result.predictions["id"])}
    add_features(result, vectors=vectors, method="pca")
    heat = fiftyone.Heatmap(map=np.zeros((2, 2)))
    dataset.add_sample_field(heat_map_field(field), fiftyone.EmbeddedDocumentField, embedded_doc_type=fiftyone.Heatmap)
    dataset.set_values(heat_map_field(field), {dataset.first().filepath: heat}, key_field="filepath")
    table = result.predictions.assign(target="a moved goalpost")
    changed = Result("toys", {}, {}, result.card, table)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during, pytest.raises(KeyboardInterrupt):
        during.setattr(dataset_module, "_note", killed)  # right after the old was deleted
        imported(changed, overwrite=True)
    dataset = imported(changed, overwrite=True)
    assert dataset.list_brain_runs() == [] and heat_map_field(field) not in dataset.get_field_schema()
    truth, said = detections(dataset, "ground_truth"), detections(dataset, field)
    assert len(truth) == dataset.count("ground_truth.detections") == 48
    assert {one.target for one in (*truth.values(), *said.values())} == {"a moved goalpost"}


def test_what_other_predictions_are_shown_beside_stays_when_one_result_is_replaced(fiftyone, result, images) -> None:
    imported(result)
    other = make_predictions(images, seed=1, checkpoint="other ffee0123")
    add_features(result, vectors={item: np.arange(4.0) for item in result.predictions["id"]}, method="pca")
    imported(other)
    changed = Result("toys", {}, {}, other.card, other.predictions.assign(target="a moved goalpost"))
    dataset = imported(changed, overwrite=True)
    assert len(dataset.list_brain_runs()) == 2
    targets = dict(zip(result.predictions["id"], result.predictions["target"], strict=True))
    assert {item: one.target for item, one in detections(dataset, "ground_truth").items()} == targets
    assert {one.target for one in detections(dataset, field_of(other)).values()} == {"a moved goalpost"}


def test_samples_follow_images_that_were_moved(fiftyone, result, images, tmp_path) -> None:
    dataset, field = imported(result), field_of(result)
    tag(dataset, field, ["toys/0/0"], "kept")
    moved = [shutil.copy(image, tmp_path) for image in images]
    where = dict(zip(map(str, images), moved, strict=True))
    table = result.predictions.assign(image=result.predictions["image"].map(where))
    dataset = imported(Result("toys", {}, {}, result.card, table))
    assert sorted(dataset.values("filepath")) == sorted(moved)
    assert dataset.count(f"{field}.detections") == dataset.count("ground_truth.detections") == 48
    assert read_tags(dataset, field) == {"kept": ["toys/0/0"]}


def test_a_dataset_that_was_made_and_not_marked_is_taken(fiftyone, result) -> None:
    fiftyone.Dataset("toys")
    dataset = imported(result)
    assert dataset.persistent and len(dataset) == 12


def test_bad_input_is_refused_in_words(fiftyone, result, images) -> None:
    fiftyone.Dataset("mine").add_sample(fiftyone.Sample(filepath=str(images[0])))
    with pytest.raises(ValueError, match="was not made by this package"):
        imported(result, name="mine")
    moved = result.predictions.assign(image="/nowhere/0.png")
    with pytest.raises(FileNotFoundError, match=r"/nowhere/0\.png"):
        imported(Result("toys", {}, {}, result.card, moved))
    with pytest.raises(ValueError, match="no column answer"):
        imported(Result("toys", {}, {}, result.card, result.predictions.drop(columns="answer")))
    doubled = pd.concat([result.predictions, result.predictions.iloc[:1]])
    with pytest.raises(ValueError, match="unique"):
        imported(Result("toys", {}, {}, result.card, doubled))


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("width", 0, "has an image of 0 × "),
        ("height", None, "has an image of .* × None pixels"),
        ("boxes", [[5.0, 5.0, 5.0, 9.0]], r"has the box \[5\.0, 5\.0, 5\.0, 9\.0\]; expected x1 < x2"),
        ("boxes", [[5.0, 9.0, 9.0, 5.0]], "expected x1 < x2 and y1 < y2"),
        ("boxes", [[9000.0, 5.0, 9001.0, 9.0]], "within its image of"),
        ("boxes", [[float("nan"), 5.0, 9.0, 9.0]], "expected x1 < x2"),
    ],
)
def test_a_size_of_nothing_is_refused_before_anything_is_written(fiftyone, result, column, value, words) -> None:
    table = result.predictions.copy()
    table[column] = table[column].astype(object)
    table.at[3, column] = value
    with pytest.raises(ValueError, match=f"row .toys/0/3. .*{words}"):
        imported(Result("toys", {}, {}, result.card, table))
    assert "toys" not in fiftyone.list_datasets()


@pytest.mark.parametrize(
    "field", ["ground_truth", "frames", "groups", "pk", "_cls", "a.b", "a b", "1st", "", "a$", 5, "<b>"]
)
def test_a_field_that_cannot_be_one_is_refused(fiftyone, result, field) -> None:
    with pytest.raises(ValueError, match="predictions cannot go into a field"):
        imported(result, field=field)
    assert "toys" not in fiftyone.list_datasets()


@pytest.mark.parametrize("name", ["", " ", 5])
def test_a_dataset_without_a_name_is_refused(fiftyone, result, name) -> None:
    with pytest.raises(ValueError, match="the dataset needs a name"):
        imported(result, name=name)
    assert "toys" not in fiftyone.list_datasets()


@pytest.mark.parametrize("field", ["filepath", "id", "tags", "metadata", "created_at", "weather"])
def test_a_field_that_holds_something_else_stays_as_it_is(fiftyone, result, field) -> None:
    dataset = imported(result)
    dataset.add_sample_field("weather", fiftyone.StringField)
    before = dataset.first().to_dict()
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds something else, and is left unchanged"):
            imported(result, field=field, overwrite=overwrite)
    dataset.reload()
    assert dataset.first().to_dict() == before


# ------------------------------------------------------------------------------------------ databases that go away


def test_an_import_goes_on_after_the_database_was_killed(fiftyone, mongo: Mongo, images, monkeypatch) -> None:
    result = make_predictions(images)
    monkeypatch.setattr(dataset_module, "IMAGES_PER_BATCH", 3)
    written = []
    plain = dataset_module.added_labels

    def kill_at_the_eighth(*arguments: Any) -> Any:
        written.append(arguments)
        if len(written) == 8:
            mongo.kill()
        return plain(*arguments)

    monkeypatch.setattr(dataset_module, "added_labels", kill_at_the_eighth)
    try:
        with pytest.raises(NoDatabase, match=r"went away after 6 of 12 images.*without duplicates"):
            imported(result)
        with pytest.raises(NoDatabase, match=r"does not answer.*Three ways out"):
            imported(result)
    finally:
        mongo.start()
    monkeypatch.setattr(dataset_module, "added_labels", plain)
    dataset = imported(result)
    # Counted one by one: after a crash MongoDB's own count is an estimate.
    assert len(dataset.values("filepath")) == len(set(dataset.values("filepath"))) == 12
    assert len(set(dataset.values("filepath"))) == 12
    for field in ("ground_truth", field_of(result)):
        items = dataset.values(f"{field}.detections.item", unwind=True)
        assert len(items) == len(set(items)) == 48


def test_a_deleted_dataset_is_missed_in_words(fiftyone, result) -> None:
    imported(result)
    fiftyone.delete_dataset("toys")
    with pytest.raises(DatasetGone, match="no dataset 'toys' any more"):
        open_dataset("toys")


TWO = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from predictions import make_images, make_predictions
from gpt4roi_nb.failures.app import App
from gpt4roi_nb.failures import to_fiftyone
dataset = to_fiftyone(make_predictions(make_images(Path({folder!r}), 5), benchmark="others"), progress=False)
app = App(dataset, dataset.limit(2))
print("PORT", app.port, app.session.dataset.name, len(app.session.view))
sys.stdin.readline()
app.close()
"""


def test_two_kernels_of_one_user_do_not_interfere(fiftyone, result, tmp_path) -> None:
    from gpt4roi_nb.failures.app import App

    script = TWO.format(tests=str(Path(__file__).parents[1]), folder=str(tmp_path / "images"))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        dataset = imported(result)
        app = App(dataset, dataset.limit(7))
        try:
            lines = iter(other.stdout.readline, "")
            _, port, name, count = next(line for line in lines if line.startswith("PORT")).split()
            assert (name, count) == ("others", "2")
            assert app.session.dataset.name == "toys" and len(app.session.view) == 7
            assert int(port) != app.port
            assert sorted(fiftyone.list_datasets()) == ["others", "toys"]
            assert len(open_dataset("toys")) == 12 and len(open_dataset("others")) == 5
        finally:
            app.close()
            other.communicate("end\n", timeout=600)  # it imports, serves and ends beside another worker


# ------------------------------------------------------------------------------------------- features, maps, tags


def test_features_find_what_looks_alike(fiftyone, result) -> None:
    dataset, field = imported(result), field_of(result)
    random = np.random.default_rng(0)
    centres = {kind: random.normal(size=100) * 5 for kind in set(result.predictions["kind"])}
    vectors = {
        item: centres[kind] + random.normal(size=100)
        for item, kind in zip(result.predictions["id"], result.predictions["kind"], strict=True)
    }
    add_features(result, vectors=vectors, method="pca")
    known = label_ids(dataset, field)
    patches = dataset.to_patches(field)
    near = patches.sort_by_similarity(known["toys/0/0"], k=6, brain_key=f"similar_{field}")
    kinds = near.values(f"{field}.kind")
    assert kinds == [kinds[0]] * 6
    places = dataset.load_brain_results(f"map_{field}")
    assert places.points.shape == (48, 2)
    assert set(places.label_ids) == set(known.values())
    add_features(result, vectors=vectors, method="pca")  # again: replaces, and does not fail
    assert sorted(dataset.list_brain_runs()) == [f"map_{field}", f"similar_{field}"]


def test_umap_places_the_map_where_it_is_installed(fiftyone, result, monkeypatch) -> None:
    made = []

    class UMAP:
        def __init__(self, **options: Any) -> None:
            made.append(options)

        def fit_transform(self, vectors: np.ndarray) -> np.ndarray:
            return vectors[:, :2] * 3 + 7

    stub = types.ModuleType("umap")
    stub.UMAP = UMAP
    stub.__spec__ = importlib.machinery.ModuleSpec("umap", None)
    monkeypatch.setitem(sys.modules, "umap", stub)
    dataset, field = imported(result), field_of(result)
    items = list(result.predictions["id"])
    vectors = dict(zip(items, np.random.default_rng(0).normal(size=(48, 10)), strict=True))
    add_features(result, vectors=vectors)
    places = dataset.load_brain_results(f"map_{field}")
    expected = principal_components(np.stack(list(vectors.values())).astype(np.float32), 2) * 3 + 7
    known = label_ids(dataset, field)
    found = dict(zip(places.label_ids, places.points, strict=True))
    np.testing.assert_allclose([found[known[item]] for item in items], expected, atol=1e-4)
    assert [options["random_state"] for options in made] == [SEED]


def test_features_and_attention_come_from_the_model(fiftyone, images) -> None:
    result = make_predictions(images[:2], 3)
    dataset = imported(result)
    model = tiny_gpt4roi()
    vectors = add_features(result, model, progress=False)
    session = model.session(result.predictions["image"][4])
    expected = session.roi_features(result.predictions["boxes"][4]).content[0].numpy()
    np.testing.assert_allclose(vectors[result.predictions["id"][4]], expected, atol=1e-4)

    assert add_attention(result, model, ["toys/1/2"]) == 1
    dataset.reload()
    place = f"attention_{field_of(result)}"
    (sample,) = dataset.exists(place)
    assert sample.filepath == result.predictions["image"][5] and sample[place].item == "toys/1/2"
    grid = model.model.config.grid_size
    assert sample[place].map.shape == (grid, grid)
    assert 0 < sample[place].mass_image < 1
    assert sample[place].map.sum() == pytest.approx(sample[place].mass_image, abs=1e-4)
    with pytest.raises(ValueError, match="no prediction 'toys/9/9'"):
        add_attention(result, model, ["toys/9/9"])


def test_a_heat_map_tells_what_the_region_that_it_is_about_is_worth(fiftyone, images) -> None:
    table = make_predictions(images[:3], 1).predictions
    two = [[4.0, 6.0, 60.0, 70.0], [80.0, 10.0, 140.0, 90.0]]
    table["question"] = ["Is <region1> like <region2>?", "Is <region1> like <region2>?", "What is in the image?"]
    table["boxes"] = [two, two, []]
    table["region"] = [1, 2, 0]
    result = Result("toys", {}, {}, make_predictions(images[:3], 1).card, table)
    dataset, model = imported(result), tiny_gpt4roi()
    assert add_attention(result, model, table["id"]) == 3
    dataset.reload()
    maps = [sample[f"attention_{field_of(result)}"] for sample in dataset]
    assert [found.region for found in maps] == [1, 2, None] and maps[2].fell_without_region is None
    for number in (1, 2):
        answer = model.session(table["image"][number - 1]).ask(table["question"][0], two)
        fall = -float(answer.ablate(number, "remove", generate=False).change.mean())
        assert maps[number - 1].fell_without_region == pytest.approx(fall, abs=1e-5)
    other = make_predictions(images[:3], 1, checkpoint="other ffee0123")
    imported(other)
    add_attention(other, model, ["toys/0/0"])  # another checkpoint's map lies beside the first one's
    dataset.reload()
    assert [len(dataset.exists(f"attention_{field_of(one)}")) for one in (result, other)] == [3, 1]


def test_features_need_a_model_or_vectors_and_a_method_that_is_there(fiftyone, result) -> None:
    with pytest.raises(ValueError, match="need a model"):
        add_features(result)
    with pytest.raises(ValueError, match="'pca' or 'umap'"):
        add_features(result, vectors={}, method="tsne")


def test_tags_are_written_and_counted(fiftyone, result) -> None:
    dataset, field = imported(result), field_of(result)
    assert tag(dataset, field, ["toys/0/0", "toys/0/1"], " left and right ") == 2
    assert tag(dataset, field, ["toys/0/1", "toys/5/2"], "left and right") == 1
    assert tag(dataset, field, ["toys/0/1"], "left") == 1  # not taken for a part of the other
    found = read_tags(dataset, field)
    assert {name: sorted(items) for name, items in found.items()} == {
        "left and right": ["toys/0/0", "toys/0/1", "toys/5/2"],
        "left": ["toys/0/1"],
    }
    with pytest.raises(ValueError, match="needs a name"):
        tag(dataset, field, ["toys/0/0"], " ")
    with pytest.raises(ValueError, match="no prediction 'toys/99/0'"):
        tag(dataset, field, ["toys/99/0"], "x")
