"""The official tools give the same metrics on whole files, to the last digit."""

import io
import json
from contextlib import redirect_stdout
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from panoptic_answers import BED_A, CAR_A, Wrong, chosen, evaluated, metrics, written
from panoptic_scenes import ROOM, write_ade20k, write_cityscapes
from PIL import Image

from gpt4roi_nb.evaluate.benchmarks.panoptic_files import read_panoptic, regions_of
from gpt4roi_nb.evaluate.metrics.ground_truth import PanopticData
from gpt4roi_nb.evaluate.metrics.outputs import panoptic


@pytest.fixture
def city(tmp_path: Path) -> PanopticData:
    return read_panoptic(write_cityscapes(tmp_path / "cityscapes"), "cityscapes")


@pytest.fixture
def rooms(tmp_path: Path) -> PanopticData:
    return read_panoptic(write_ade20k(tmp_path / "ade20k"), "ade20k")


@pytest.mark.parametrize(("name", "wrong"), [("city", {}), ("city", CAR_A), ("rooms", BED_A)])
def test_the_official_panoptic_command_agrees_on_whole_files(
    name: str, wrong: Wrong, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from cityscapesscripts.evaluation.evalPanopticSemanticLabeling import evaluatePanoptic

    data = request.getfixturevalue(name)
    written(data, wrong, tmp_path / "predicted")
    with redirect_stdout(io.StringIO()):
        official = evaluatePanoptic(
            str(data.json),
            str(data.json.with_suffix("")),
            str(tmp_path / "predicted" / "panoptic.json"),
            str(tmp_path / "predicted" / "panoptic"),
            str(tmp_path / "results.json"),
        )
    figures = metrics(evaluated(data, wrong))
    assert [figures["PQ"], figures["SQ"], figures["RQ"]] == [100 * official["All"][key] for key in ("pq", "sq", "rq")]
    assert figures["PQ things"] == 100 * official["Things"]["pq"]
    assert figures["PQ stuff"] == 100 * official["Stuff"]["pq"]


@pytest.mark.parametrize("wrong", [{}, CAR_A])
def test_cityscapes_own_files_give_the_same_matches_and_ap(
    city: PanopticData, wrong: Wrong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as tool

    monkeypatch.setattr(
        np, "in1d", np.isin, raising=False
    )  # gone from NumPy 2.4, which is why matches are computed here
    written(city, wrong, tmp_path / "predicted")
    args = copy(tool.args)
    args.quiet, args.predictionPath = True, str(tmp_path / "predicted")
    args.gtInstancesFile = str(tmp_path / "instances.json")
    tool.setInstanceLabels(args)
    truth = [str(image.instances) for image in city.images]
    predicted = [str(tmp_path / "predicted" / f"{image.id}.txt") for image in city.images]
    with redirect_stdout(io.StringIO()):
        matches = tool.matchGtWithPreds(predicted, truth, tool.getGtInstances(truth, args), args)
        official = tool.computeAverages(tool.evaluateMatches(matches, args), args)
    evaluator = evaluated(city, wrong)
    ours = list(evaluator._ap.matches.values())
    assert len(ours) == len(matches)
    for mine, theirs in zip(ours, matches.values(), strict=True):
        assert without_names(mine) == without_names(theirs)
    figures = metrics(evaluator)
    assert [figures["AP"], figures["AP50"]] == [100 * official["allAp"], 100 * official["allAp50%"]]


def without_names(matches: dict[str, Any]) -> dict[str, Any]:
    """Of Cityscapes' matches, the classes that instances have, without file names."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items() if key != "imgName"}
        return [plain(one) for one in value] if isinstance(value, list) else value

    return plain(matches)


def test_the_official_pixel_command_agrees(city: PanopticData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as tool

    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    written(city, CAR_A, tmp_path / "predicted")
    args = copy(tool.args)
    args.quiet, args.JSONOutput, args.evalInstLevelScore = True, False, False
    truth = [str(image.semantic) for image in city.images]
    predicted = [str(tmp_path / "predicted" / f"{image.id}_labels.png") for image in city.images]
    with redirect_stdout(io.StringIO()):
        official = tool.evaluateImgLists(predicted, truth, args)
    assert metrics(evaluated(city, CAR_A))["mIoU"] == pytest.approx(100 * official["averageScoreClasses"], abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [{}, BED_A, {("ADE_val_00000001", 1): 1}])
def test_torchmetrics_gives_the_same_panoptic_quality(tmp_path: Path, wrong: Wrong) -> None:
    from torchmetrics.detection import PanopticQuality

    room = np.where(ROOM == 0, 3000, ROOM)  # without void, which torchmetrics does not know
    data = read_panoptic(write_ade20k(tmp_path, [room]), "ade20k")
    things = {entry.id for entry in data.classes if entry.is_thing}
    metric = PanopticQuality(things, {entry.id for entry in data.classes} - things)
    ((_, masks, probabilities),) = chosen(data, wrong)
    ids, segments = panoptic(masks, probabilities, data.things)
    numbers = np.zeros(len(segments) + 1, np.int64)
    for one in segments:
        numbers[one.id] = data.classes[one.category].id
    predicted, true = np.stack([numbers[ids], ids], -1), np.stack([room // 1000, room], -1)
    value = metric(torch.from_numpy(predicted)[None], torch.from_numpy(true.astype(np.int64))[None])
    assert metrics(evaluated(data, wrong))["PQ"] == pytest.approx(100 * float(value), abs=1e-4)  # it has float32
    assert (value == 1) == (not wrong)


@pytest.mark.slow
@pytest.mark.samples
def test_the_genuine_cityscapes_image_is_read_and_scored(samples: Path, tmp_path: Path) -> None:
    """The image of cityscapesscripts' own tests: perfect answers give 100, and the official command agrees."""
    source = samples / "cityscapes" / "dummy_panoptic"
    content = json.loads((source / "cityscapes_panoptic_dummy_trainId.json").read_text())
    png = source / "cityscapes_panoptic_dummy_trainId" / content["annotations"][0]["file_name"]
    with Image.open(png) as opened:
        ids = np.asarray(opened).astype(np.int32)[..., :3] @ np.array([1, 256, 65536], np.int32)
    stem = content["annotations"][0]["image_id"]
    assert {one["id"] for one in content["annotations"][0]["segments_info"]} == set(np.unique(ids)) - {0}
    root = tmp_path / "cityscapes"
    truth, panoptic_folder = root / "gtFine/val/dummy", root / "gtFine/cityscapes_panoptic_val"
    photos = root / "leftImg8bit/val/dummy"
    for folder in (truth, panoptic_folder, photos):
        folder.mkdir(parents=True)
    Image.fromarray(ids.astype(np.uint16)).save(truth / f"{stem}_gtFine_instanceIds.png")
    Image.fromarray(np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)).save(
        truth / f"{stem}_gtFine_labelIds.png"
    )
    (panoptic_folder / png.name).write_bytes(png.read_bytes())
    Image.new("RGB", ids.shape[::-1]).save(photos / f"{stem}_leftImg8bit.png")
    segments = [
        {**one, "category_id": one["id"] if one["id"] < 1000 else one["id"] // 1000}
        for one in content["annotations"][0]["segments_info"]
    ]
    table = json.loads((samples / "cityscapes" / "panoptic_cityscapes_categories.json").read_text())
    annotation = {**content["annotations"][0], "segments_info": segments}
    (root / "gtFine/cityscapes_panoptic_val.json").write_text(
        json.dumps({"annotations": [annotation], "categories": table})
    )
    data = read_panoptic(root, "cityscapes")
    assert len(data.classes) == 19
    evaluator = evaluated(data)
    assert metrics(evaluator)["PQ"] == metrics(evaluator)["mIoU"] == 100
    # every second region taken for the first class
    regions = regions_of(data.images[0], data.classes)
    wrong = {(stem, number): 0 for number in regions.ids[::2].tolist()}
    from cityscapesscripts.evaluation.evalPanopticSemanticLabeling import evaluatePanoptic

    written(data, wrong, tmp_path / "predicted")
    with redirect_stdout(io.StringIO()):
        official = evaluatePanoptic(
            str(data.json),
            str(data.json.with_suffix("")),
            str(tmp_path / "predicted" / "panoptic.json"),
            str(tmp_path / "predicted" / "panoptic"),
            str(tmp_path / "results.json"),
        )
    assert metrics(evaluated(data, wrong))["PQ"] == 100 * official["All"]["pq"] < 100
