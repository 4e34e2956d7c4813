"""A region model answers about the boxes of a FiftyOne dataset that this package did not make."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_families import tiny_family

import gpt4roi_nb
from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.scenes import make_scene
from gpt4roi_nb.failures import add_to_zoo, zoo_model
from gpt4roi_nb.failures.zoo import DEMO
from gpt4roi_nb.failures.zoo_model import SOURCE
from gpt4roi_nb.models import PromptedModel

pytestmark = pytest.mark.slow  # the first import of FiftyOne takes its time
QUESTION = "What colour is <region1>?"
OTHER = "gpt4roi_nb/region-model"
BOX = [0.1, 0.2, 0.5, 0.5]


@pytest.fixture(scope="module")
def gpt4roi() -> GPT4RoI:
    return GPT4RoI.from_pretrained(device="cpu")


def saved(seed: int, path: Path) -> None:
    Image.fromarray(make_scene(seed).image).save(path)


@pytest.fixture
def theirs(fiftyone, tmp_path: Path) -> Any:
    """Somebody's dataset: two images of different sizes with boxes, and one without."""
    samples = []
    for seed in (5, 6):
        scene = make_scene(seed)
        whole = Image.fromarray(scene.image)
        image = whole.crop((0, 0, whole.width, whole.height - 10 * (seed - 5)))
        width, height = image.size
        image.save(tmp_path / f"{seed}.png")
        found = []
        for thing in scene.objects:
            left, top, right, bottom = thing.box
            if bottom <= height:
                box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
                found.append(fiftyone.Detection(label=thing.colour, bounding_box=box))
        samples.append(fiftyone.Sample(str(tmp_path / f"{seed}.png")))
        samples[-1]["ground_truth"] = fiftyone.Detections(detections=found)
    saved(7, tmp_path / "empty.png")
    samples.append(fiftyone.Sample(str(tmp_path / "empty.png")))
    dataset = fiftyone.Dataset("theirs")
    dataset.add_samples(samples, progress=False)
    return dataset


def apply(dataset: Any, model: Any, field: str = "answers", **options: Any) -> None:
    given = {"prompt_field": "ground_truth", "num_workers": 0, "skip_failures": False, "progress": False, **options}
    dataset.apply_model(model, field, **given)


@pytest.fixture
def zoo(fiftyone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import fiftyone.zoo

    monkeypatch.setattr(fiftyone.config, "model_zoo_dir", str(tmp_path / "zoo"))
    added = add_to_zoo()
    assert added == tmp_path / "zoo" / SOURCE and add_to_zoo() == added
    return fiftyone.zoo


def test_boxes_go_in_and_answers_come_out(theirs, zoo, gpt4roi) -> None:
    assert {DEMO, OTHER} <= set(zoo.list_zoo_models())
    model = zoo.load_zoo_model(DEMO, question=QUESTION, device="cpu", max_new_tokens=8)
    assert zoo.is_zoo_model_downloaded(DEMO)
    assert sys.modules["gpt4roi_nb"] is gpt4roi_nb  # FiftyOne imports a source under the name of its folder
    apply(theirs, model, batch_size=2)
    count = theirs.count("ground_truth.detections")
    assert theirs.count("answers.detections") == count > 5
    first, second, empty = theirs
    assert empty.answers.detections == []
    for sample in (first, second):
        session = gpt4roi.session(sample.filepath)
        width, height = session.image.size
        for asked, said in zip(sample.ground_truth.detections, sample.answers.detections, strict=True):
            x, y, w, h = asked.bounding_box
            box = (x * width, y * height, (x + w) * width, (y + h) * height)
            session.reset()
            expected = session.ask(QUESTION, [box], max_new_tokens=8)
            assert said.label == said.answer == expected.text
            assert said.bounding_box == asked.bounding_box and said.prompt == str(asked.id)
            assert said.logprob == pytest.approx(sum(expected.logprobs) / len(expected.logprobs), abs=1e-4)
            assert said.question == QUESTION and 0 < said.confidence <= 1
    theirs.evaluate_detections("answers", gt_field="ground_truth", eval_key="scored", classwise=False)
    for asked, said in zip(*theirs.values(["ground_truth.detections", "answers.detections"], unwind=True), strict=True):
        assert said.scored_id == said.prompt == str(asked.id)  # boxes match
        assert said.scored == ("tp" if said.label == asked.label else "fp")
    assert theirs.info == {}  # nothing of ours is left in it


def test_any_model_of_load_model_is_taken_by_its_path(theirs, zoo, tmp_path: Path) -> None:
    for part in tiny_family("vipllava"):
        part.save_pretrained(tmp_path / "tiny")
    model = zoo.load_zoo_model(OTHER, path=str(tmp_path / "tiny"), device="cpu", max_new_tokens=3)
    theirs.limit(1).apply_model(model, "answers", prompt_field="ground_truth")  # as the docs write it
    assert theirs.count("answers.detections.answer") == len(theirs.first().ground_truth.detections)
    with pytest.raises(ValueError, match="any other model needs path="):
        zoo.load_zoo_model(OTHER)
    with pytest.raises(ValueError, match="takes no path"):
        zoo.load_zoo_model(DEMO, path="elsewhere")


@pytest.mark.parametrize(("family", "way"), [("qwen3_vl", "draw"), ("florence2", None)])
def test_another_familys_answers_are_those_of_its_session(theirs, family: str, way: str | None) -> None:
    from gpt4roi_nb.failures.applied_model import pixel_box  # imports FiftyOne

    model = PromptedModel(*tiny_family(family), way, "tiny")
    apply(theirs.limit(1), zoo_model(model, max_new_tokens=3))
    sample = theirs.first()
    boxes = [pixel_box(one.bounding_box, *Image.open(sample.filepath).size) for one in sample.ground_truth.detections]
    expected = model.session(sample.filepath).describe(boxes, max_new_tokens=3)
    said = sample.answers.detections
    assert [one.answer for one in said] == [one.text for one in expected]
    assert [one.told if "told" in one else "" for one in said] == [one.told for one in expected]


def stub(describe: Any) -> Any:
    """A model whose sessions answer with `describe(image, boxes)`."""
    session = lambda image: SimpleNamespace(describe=lambda boxes, **options: describe(image, boxes))  # noqa: E731
    return zoo_model(SimpleNamespace(session=session))


def answer(text: str = "a cup", **values: Any) -> Any:
    return SimpleNamespace(**{"text": text, "logprobs": [-0.5, -1.5], "told": "", "stopped": False, **values})


def one_sample(fiftyone: Any, tmp_path: Path, **fields: Any) -> Any:
    saved(5, tmp_path / "one.png")
    dataset = fiftyone.Dataset()
    dataset.add_samples([fiftyone.Sample(str(tmp_path / "one.png"), **fields)], progress=False)
    return dataset


def test_the_label_is_cut_and_the_whole_answer_kept(fiftyone, tmp_path: Path) -> None:
    asked = fiftyone.Detection(label="x", bounding_box=BOX)
    dataset = one_sample(fiftyone, tmp_path, boxes=asked)  # one detection alone will do
    apply(dataset, stub(lambda image, boxes: [answer("long " * 20, told="What is it?")]), prompt_field="boxes")
    (said,) = dataset.first().answers.detections
    assert said.answer == "long " * 20 and len(said.label) <= 60 and said.label.endswith("…")
    assert said.told == "What is it?" and said.logprob == -1 and "question" not in said
    apply(dataset, stub(lambda image, boxes: [answer("", logprobs=[])]), "silent", prompt_field="boxes")
    (said,) = dataset.first().silent.detections
    assert (said.label, said.confidence) == ("(nothing)", None)


def test_a_box_without_area_gets_no_answer_and_one_outside_is_cut(fiftyone, tmp_path: Path) -> None:
    boxes = [[0.5, 0.5, 0.0, 0.2], [-0.5, 0.25, 1.0, 2.0], [1.5, 0.0, 0.2, 0.2]]
    found = fiftyone.Detections(detections=[fiftyone.Detection(label="x", bounding_box=box) for box in boxes])
    seen = []
    model = stub(lambda image, boxes: seen.append((image.size, boxes)) or [answer()])
    dataset = one_sample(fiftyone, tmp_path, boxes=found)
    with pytest.warns(UserWarning, match=r"'boxes' of .*one\.png has a box without area") as told:
        apply(dataset, model, prompt_field="boxes")
    assert len(told) == 2
    (((width, height), asked),) = seen
    assert asked == [(0.0, height / 4, width / 2, float(height))]
    assert [one.bounding_box for one in dataset.first().answers.detections] == [boxes[1]]


def test_what_it_cannot_use_is_refused_in_words(fiftyone, tmp_path: Path) -> None:
    dataset = one_sample(fiftyone, tmp_path, kind=fiftyone.Classification(label="x"))
    model = stub(lambda image, boxes: [])
    with pytest.raises(ValueError, match=r"'kind' must hold Detections, .* but holds Classification"):
        apply(dataset, model, prompt_field="kind")
    with pytest.raises(ValueError, match=r"say which field of the dataset holds the boxes: dataset\.apply_model"):
        dataset.apply_model(model, "answers", num_workers=0, skip_failures=False, progress=False)
    with pytest.raises(ValueError, match="passed 'colour', which this model does not know"):
        apply(dataset, model, prompt_field="kind", colour="kind")
    with pytest.raises(ValueError, match="max_new_tokens"):
        zoo_model(model, max_new_tokens=0)


@pytest.mark.parametrize("written", [[], [answer(stopped=True)]])
def test_an_interrupt_ends_it(fiftyone, tmp_path: Path, written: list[Any]) -> None:
    dataset = one_sample(fiftyone, tmp_path, boxes=fiftyone.Detection(label="x", bounding_box=BOX))
    with pytest.raises(KeyboardInterrupt):
        apply(dataset, stub(lambda image, boxes: written), prompt_field="boxes", skip_failures=True)
    assert "answers" not in dataset.get_field_schema() or dataset.first().answers is None


def test_workers_read_images_and_predict_takes_arrays(fiftyone, tmp_path: Path) -> None:
    model = stub(lambda image, boxes: [answer()] * len(boxes))
    read = pickle.loads(pickle.dumps(model.build_get_item()))
    saved(5, tmp_path / "one.png")
    image = read({"filepath": str(tmp_path / "one.png")})
    sample = fiftyone.Sample("one.png", boxes=fiftyone.Detection(label="x", bounding_box=BOX))
    model.needs_fields = {"prompt_field": "boxes"}
    said = model.predict(np.asarray(image), sample=sample)
    assert [one.label for one in said.detections] == ["a cup"]


def test_the_manifest_is_what_fiftyone_reads(root: Path) -> None:
    content = json.loads((root / "gpt4roi_nb/failures/zoo/manifest.json").read_text())
    assert content["name"] == SOURCE
    assert [one["base_name"] for one in content["models"]] == [DEMO, OTHER]
