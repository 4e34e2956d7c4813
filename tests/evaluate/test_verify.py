"""`verify` distinguishes a checkpoint that behaves as published from others, by answers of a chosen accuracy."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import annotation_files
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from predictions import card
from tiny_families import tiny_family

from gpt4roi_nb.evaluate import Result, __main__, verify
from gpt4roi_nb.evaluate.__main__ import CANNOT_TELL, DIFFERS, main
from gpt4roi_nb.evaluate.benchmarks.item import Item, Prediction
from gpt4roi_nb.evaluate.metrics.similarity import similarity
from gpt4roi_nb.evaluate.predict import BatchedPredictor
from gpt4roi_nb.evaluate.prompted import PromptedPredictor
from gpt4roi_nb.evaluate.verify import (
    ABOVE,
    AS_PUBLISHED,
    BELOW,
    CHECKS,
    LEAST_IMAGES,
    UNTOLD,
    Verification,
    check_data,
    judge,
    published,
)
from gpt4roi_nb.models import PromptedModel

MODEL = "GPT4RoI-7B"
VCR, LVIS = CHECKS[MODEL]
ANNOTATIONS, IMAGES, OBJECTS = 500, 125, 4
TRUE, NEAR, FAR = "drinking_mug", "cup", "zebra"  # a true name, one that means nearly the same, one that does not


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VCR's and LVIS's files with as much as is asked about, and tiny images."""
    folder = tmp_path_factory.mktemp("real")
    names = [f"{number:012}.jpg" for number in range(IMAGES)]
    for place in ("coco/val2017", "coco/train2017", "lvis"):
        (folder / place).mkdir(parents=True)
    for name in names:
        Image.new("RGB", (16, 16)).save(folder / "coco/val2017" / name)
    boxes = [{"bbox": [1, 1, 4 + k, 9]} for k in range(OBJECTS)]
    size = {"height": 16, "width": 16}
    entries = [
        {**size, "id": k, "file_name": name, "categories": [TRUE] * OBJECTS, "annotations": boxes}
        for k, name in enumerate(names)
    ]
    (folder / "lvis/lvis_val_1k_category.json").write_text(json.dumps(entries))
    lines = [
        annotation_files.vcr_line(annot_id=f"val-{k}", img_fn=f"{k % IMAGES}.jpg", metadata_fn=f"{k % IMAGES}.json")
        for k in range(ANNOTATIONS)
    ]
    annotation_files.vcr(folder / "vcr", lines=lines)
    (folder / "vcr/train.jsonl").rename(folder / "vcr/val.jsonl")
    for k in range(IMAGES):
        for ending in ("jpg", "json"):
            shutil.copy(folder / f"vcr/vcr1images/lsmdc_1/1_A@0.{ending}", folder / f"vcr/vcr1images/{k}.{ending}")
    return folder


class Answers:
    """In place of a model: as many right answers as it is told, spread evenly over the images.

    vcr: shares of annotations with both parts right, the answer alone, the reason alone. exact, near: shares of LVIS's
    objects that get the true name, or one that is near it.
    """

    def __init__(self, vcr: tuple[float, float, float], exact: float, near: float) -> None:
        self.vcr, self.exact, self.near = vcr, exact, near
        self.asked = 0

    def __call__(self, predictor, batches, images):
        for batch in batches:
            self.asked += len(batch)
            yield [Prediction(item.id, self.answer(item), -0.1, None, 0.0, 16, 16, images[item.image].stamp)
                   for item in batch]  # fmt: skip

    def answer(self, item: Item) -> str:
        numbers = [int(part) for part in item.id.replace("-", "/").split("/") if part.isdigit()]
        if item.id.startswith("vcr"):
            level = np.random.default_rng(7).permutation(ANNOTATIONS)[numbers[0]] / ANNOTATIONS
            both, first, second = np.cumsum(self.vcr)
            right = level < both or (level < first if item.kind == "qa" else first <= level < second)
            return item.target if right else "(D)"
        place = numbers[0] * OBJECTS + numbers[1]
        level = np.random.default_rng(8).permutation(IMAGES * OBJECTS)[place] / (IMAGES * OBJECTS)
        return item.target if level < self.exact else NEAR if level < self.exact + self.near else FAR


def as_published() -> Answers:
    """The levels of the published figures."""
    alike = similarity([NEAR, FAR], [TRUE.replace("_", " ")] * 2).tolist()
    vcr, lvis = published(MODEL, VCR).metrics, published(MODEL, LVIS).metrics
    both, exact = vcr["Q→AR"] / 100, lvis["S-IoU"] / 100
    near = (lvis["SS"] / 100 - exact - (1 - exact) * alike[1]) / (alike[0] - alike[1])
    return Answers((both, vcr["Q→A"] / 100 - both, vcr["QA→R"] / 100 - both), exact, near)


@pytest.fixture
def command(root, gpt4roi, tmp_path, monkeypatch):
    """Runs `verify` with answers in place of a model's; returns the exit code."""

    def run(answers: Answers, *more: str) -> int:
        monkeypatch.setattr(BatchedPredictor, "answer", lambda *given: answers(*given))
        monkeypatch.setattr(__main__, "load_model", lambda path, **_: gpt4roi)
        return main(["verify", MODEL, "--root", str(root), "--out", str(tmp_path), *more])

    return run


pytestmark = pytest.mark.xdist_group("sentences")


@pytest.mark.slow
def test_answers_of_the_published_level_pass_and_are_not_asked_for_again(command, tmp_path, capsys):
    answers = as_published()
    assert command(answers, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["behaves_as_published"] is True and "behaves as published for GPT4RoI-7B" in said["sentence"]
    found = {one["metric"]: one for one in said["findings"]}
    expected = {**published(MODEL, VCR).metrics, **published(MODEL, LVIS).metrics}
    assert {name: one["published"] for name, one in found.items()} == expected
    for name, one in found.items():
        assert one["verdict"] == AS_PUBLISHED and one["measured"] == pytest.approx(expected[name], abs=0.4)
        assert one["interval"][0] < one["measured"] < one["interval"][1]
    assert said["cards"]["vcr"]["questions"] == 2 * ANNOTATIONS and said["cards"]["lvis"]["questions"] == 500
    assert said["cards"]["vcr"]["scorer"] == "generate" and said["cards"]["lvis"]["split"] == LVIS.split
    asked = answers.asked
    assert (tmp_path / f"verify-{MODEL}/vcr/result.json").is_file()
    assert command(answers, "--markdown") == 0
    assert answers.asked == asked
    table = capsys.readouterr().out
    assert "| lvis | lvis_val_1k_category | SS | 51." in table and "| 51.3 | ±7 | as published |" in table


@pytest.mark.parametrize(
    ("answers", "below"),
    [
        (Answers((0.0625, 0.1875, 0.1875), 0, 0), {"Q→A", "QA→R", "Q→AR", "SS", "S-IoU"}),  # chance
        (Answers((0.66, 0.1, 0.1), 0.3, 0.7), {"Q→A", "QA→R", "Q→AR"}),  # 76, 76, 66
    ],
)
def test_answers_at_chance_or_clearly_below_do_not(command, capsys, answers, below):
    assert command(answers) == DIFFERS
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines() if line.split()[:1] in (["vcr"], ["lvis"])]
    assert {row[2] for row in rows if row[-1] == BELOW} == below
    assert "does not behave as published for GPT4RoI-7B: vcr Q→A is" in said.splitlines()[-1]


POINTED = "ViP-LLaVA-7B"
(V7W,) = CHECKS[POINTED]


@pytest.fixture(scope="module")
def pointing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Visual-7W's file with four questions per image, and tiny images."""
    folder = tmp_path_factory.mktemp("pointing")
    (folder / "visual7w/images").mkdir(parents=True)
    images, boxes = [], [{"box_id": k, "x": 1, "y": 1, "width": 3 + k, "height": 9} for k in range(4)]
    for number in range(IMAGES):
        Image.new("RGB", (16, 16)).save(folder / "visual7w/images" / f"{number}.png")
        asked = {"question": "Which thing?", "answer": 0, "multiple_choices": [1, 2, 3]}
        pairs = [{"qa_id": 4 * number + k, **asked} for k in range(4)]
        images.append({"image_id": number, "filename": f"{number}.png", "split": V7W.split, "qa_pairs": pairs})
    content = json.dumps({"images": images, "boxes": boxes})
    (folder / "visual7w/dataset_v7w_pointing.json").write_text(content)
    return folder


@pytest.mark.parametrize(("share", "code"), [(0.861, 0), (0.72, DIFFERS), (0.98, DIFFERS)])
def test_another_models_figure_is_reproduced_or_not(pointing, tmp_path, monkeypatch, capsys, share, code):
    asked: list[Item] = []

    def answers(predictor, batches, images):
        for batch in batches:
            asked.extend(batch)
            yield [Prediction(item.id, item.target if level(item) < share else "Z", -0.1, None, 0.0, 16, 16,
                              images[item.image].stamp) for item in batch]  # fmt: skip

    def level(item: Item) -> float:
        return np.random.default_rng(9).permutation(4 * IMAGES)[int(item.id.rpartition("/")[2])] / (4 * IMAGES)

    loaded: list[tuple[str, str]] = []

    def load(path, *, regions, **_):
        loaded.append((path, regions))
        return PromptedModel(*tiny_family("vipllava"), regions, path)

    monkeypatch.setattr(PromptedPredictor, "answer", answers)
    monkeypatch.setattr(__main__, "load_model", load)
    assert main(["verify", POINTED, "--root", str(pointing), "--out", str(tmp_path), "--json"]) == code
    assert loaded == [("llava-hf/vip-llava-7b-hf", "draw")]
    said = json.loads(capsys.readouterr().out)
    assert said["behaves_as_published"] is (code == 0) and said["findings"][0]["published"] == 86.09
    card = said["cards"]["visual7w"]
    assert (
        card["way"] == "draw" and "Answer with the option's letter from the given choices directly." in card["prompt"]
    )
    lines = asked[0].question.splitlines()
    assert lines[0] == "Which thing?" and [line[:3] for line in lines[1:5]] == ["A. ", "B. ", "C. ", "D. "]
    assert asked[0].options == ("A", "B", "C", "D") and lines[1] == "A. <region1>"


def test_a_published_way_is_part_of_the_figure(pointing):
    with pytest.raises(ValueError, match="published with regions='draw', but PromptedModel"):
        verify.verify(POINTED, PromptedModel(*tiny_family("vipllava"), "crop", "tiny"), pointing)


def test_few_items_cannot_tell(command, capsys):
    assert command(as_published(), "--items", "40") == CANNOT_TELL
    sentence = capsys.readouterr().out.splitlines()[-1]
    assert "cannot be told" in sentence and f"fewer than {LEAST_IMAGES}" in sentence and "more items" in sentence


def result(metrics: dict[str, float], half: float, images: int = 400, *, complete: bool = True) -> Result:
    intervals = {name: (value - half, value + half) for name, value in metrics.items()}
    told = replace(card("weights 0a1b", "vcr", images, 2 * images), complete=complete)
    return Result("vcr", metrics, intervals, told, pd.DataFrame())


def test_a_verdict_takes_the_whole_interval():
    exact = published(MODEL, VCR).metrics

    def verdicts(shift: float, half: float, **more) -> set[str]:
        shifted = {name: value + shift for name, value in exact.items()}
        return {one.verdict for one in judge(MODEL, VCR, result(shifted, half, **more))}

    assert verdicts(0, 3) == {AS_PUBLISHED}
    assert verdicts(-2, 3) == {AS_PUBLISHED}
    assert verdicts(-6, 3) == {UNTOLD}  # across the bound
    assert verdicts(0, 9) == {UNTOLD}  # too wide
    assert verdicts(-12, 3) == {BELOW}
    assert verdicts(12, 3) == {ABOVE}
    assert verdicts(0, 0, images=LEAST_IMAGES - 1) == {UNTOLD}  # an interval over a few images may be of no width
    (first, *_) = judge(MODEL, VCR, replace(result(exact, 3), intervals={}, metrics={}))
    assert first.verdict == UNTOLD and "has no interval" in first.reason


def test_an_early_end_is_no_verdict_unless_the_figures_differ_already():
    exact = published(MODEL, VCR).metrics
    part = result(exact, 3, complete=False)
    found = Verification(MODEL, list(judge(MODEL, VCR, part)), {"vcr": part}, [])
    assert found.behaves_as_published is None and "ended early; the same call continues" in found.sentence
    nothing = replace(part, metrics={}, intervals={})
    said = Verification(MODEL, list(judge(MODEL, VCR, nothing)), {"vcr": nothing}, []).as_json()
    assert said["findings"][0]["measured"] is None and said["behaves_as_published"] is None
    low = result({name: value - 20 for name, value in exact.items()}, 3)
    assert Verification(MODEL, list(judge(MODEL, VCR, low)), {"vcr": low}, []).behaves_as_published is False


def test_every_check_has_its_published_figures():
    for model, checks in CHECKS.items():
        for check in checks:
            assert check.tolerances.keys() <= published(model, check).metrics.keys()
            for metric, tolerance in check.tolerances.items():
                assert 0 < tolerance < published(model, check).metrics[metric]
    with pytest.raises(ValueError, match=r"no figures of GPT4RoI-7B on vcr \(test\)"):
        published(MODEL, replace(VCR, split="test"))
    with pytest.raises(ValueError, match="no checks for 'LLaVA'; choose from GPT4RoI-7B, Kosmos-2, ViP-LLaVA-7B"):
        check_data("LLaVA", Path())


def test_missing_data_is_named_before_a_model_is_loaded(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(__main__, "load_model", None)
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    assert main(["verify", MODEL, "--root", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert all(name in told for name in ("val.jsonl", "vcr1images", "lvis_val_1k_category.json", "train2017"))
    assert main(["verify", MODEL, "--root", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.count("there is no folder") == 1
    assert main(["verify", MODEL, "--root", str(root), "--check"]) == 0
    assert f"complete for verify {MODEL}" in capsys.readouterr().out
    for wrong in (["verify", "LLaVA", "--root", "x"], ["verify", MODEL]):
        with pytest.raises(SystemExit) as left:
            main(wrong)
        assert left.value.code == 2


def test_another_model_is_an_entry_of_the_table(monkeypatch):
    checks = (verify.Check("refcocog", "val", "generate", 1, {"METEOR": 2}),)
    monkeypatch.setitem(CHECKS, "Osprey-7B", checks)
    assert published("Osprey-7B", checks[0]).metrics["METEOR"] == 16.6
    assert __main__.parse(["verify", "Osprey-7B", "--root", "data"]).model == "Osprey-7B"
