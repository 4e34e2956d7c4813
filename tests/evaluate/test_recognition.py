"""PQ, AP and mIoU: perfect answers, figures worked out by hand, and the official tools on the same files."""

import io
import json
from contextlib import redirect_stdout
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from panoptic_scenes import ROOM, STREET, YARD, YARD_ROOM, write_ade20k, write_cityscapes
from PIL import Image

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.data.world.masks import rgb_ids
from gpt4roi_nb.evaluate.mapping import one_hot, region_probabilities
from gpt4roi_nb.evaluate.outputs import instances, panoptic, semantic
from gpt4roi_nb.evaluate.panoptic_files import PanopticData, instance_truth, read_panoptic, regions_of
from gpt4roi_nb.evaluate.segmentation import SegmentationJudge, confusion
from gpt4roi_nb.evaluate.statistics import intervals

Wrong = dict[tuple[str, int], int | None]  # (image id, segment id) to the class index that it is taken for
CAR_A = {("city_000000_000000", 26000): 2}
BED_A = {("ADE_val_00000001", 7000): 3}


@pytest.fixture
def city(tmp_path: Path) -> PanopticData:
    return read_panoptic(write_cityscapes(tmp_path / "cityscapes"), "cityscapes")


@pytest.fixture
def rooms(tmp_path: Path) -> PanopticData:
    return read_panoptic(write_ade20k(tmp_path / "ade20k"), "ade20k")


def chosen(data: PanopticData, wrong: Wrong) -> Any:
    for image in data.images:
        regions = regions_of(image, data.classes)
        classes = [
            wrong.get((image.id, number), true)
            for number, true in zip(regions.ids.tolist(), regions.classes.tolist(), strict=True)
        ]
        columns = np.arange(len(data.classes))
        scores = [columns == (-1 if index is None else index) for index in classes]
        yield image, regions.masks, one_hot(np.array(scores, float))


def judged(data: PanopticData, wrong: Wrong | None = None) -> SegmentationJudge:
    judge = SegmentationJudge(data)
    for image, masks, probabilities in chosen(data, wrong or {}):
        judge.add(image, masks, probabilities)
    return judge


def metrics(judge: SegmentationJudge) -> dict[str, float]:
    return {name: figure.value for name, figure in judge.figures().items()}


@pytest.mark.parametrize("name", ["city", "rooms"])
def test_perfect_answers_give_100_everywhere(name: str, request: pytest.FixtureRequest) -> None:
    judge = judged(request.getfixturevalue(name))
    figures = metrics(judge)
    assert set(figures) == {"PQ", "SQ", "RQ", "PQ things", "PQ stuff", "AP", "AP50", "mIoU"}
    assert set(figures.values()) == {100.0}
    assert {value for row in judge.per_class().values() for value in row.values()} == {100.0}


def test_a_car_taken_for_a_person_gives_the_figures_worked_out_by_hand(city: PanopticData) -> None:
    judge = judged(city, CAR_A)
    figures = metrics(judge)
    # person: one right, one too many; car: one right, one missed; the group of cars counts for neither: 1 / 1.5 each
    assert figures["PQ"] == pytest.approx(100 * (1 + 1 + 2 / 3 + 2 / 3) / 4)
    assert figures["SQ"] == pytest.approx(100)
    assert figures["PQ things"] == pytest.approx(100 * 2 / 3)
    assert figures["PQ stuff"] == pytest.approx(100)
    # person: 500 pixels of 500 + 600; car: 600 + 400 of 600 + 600 + 400
    assert figures["mIoU"] == pytest.approx(100 * (1 + 1 + 500 / 1100 + 1000 / 1600) / 4)
    # person: precision 1/2 at recall 1, and the point (1, 0): 0.5 × 0.5 + 0.5 × 1. Car: precision 1 at recall 1/2.
    assert figures["AP"] == figures["AP50"] == pytest.approx(100 * (0.75 + 0.5) / 2)
    assert judge.per_class()["person"] == pytest.approx({"PQ": 200 / 3, "IoU": 500 / 11})


def test_a_bed_taken_for_a_window_gives_the_figures_worked_out_by_hand(rooms: PanopticData) -> None:
    figures = metrics(judged(rooms, BED_A))
    assert figures["PQ"] == pytest.approx(100 * (1 + 1 + 2 / 3 + 2 / 3) / 4)
    assert figures["mIoU"] == pytest.approx(100 * (1 + 1 + 200 / 400 + 400 / 600) / 4)
    # bed: precision 1 up to recall 1/2, which is 51 of 101 points; window: the false one comes first, precision 1/2
    assert figures["AP"] == pytest.approx(100 * (51 / 101 + 1 / 2) / 2)


def test_a_region_without_a_class_is_missed_and_nothing_else(city: PanopticData) -> None:
    figures = metrics(judged(city, {("city_000000_000000", 7): None}))
    assert figures["PQ"] == pytest.approx(100 * (0 + 1 + 1 + 1) / 4)
    assert figures["mIoU"] == pytest.approx(100 * (0 + 1 + 1 + 1) / 4)
    assert figures["AP"] == 100


def written(data: PanopticData, wrong: Wrong, folder: Path) -> None:
    """Predictions as the official tools read them: panoptic PNGs and JSON, label PNGs, lists of masks."""
    (folder / "panoptic").mkdir(parents=True)
    annotations = []
    for image, masks, probabilities in chosen(data, wrong):
        ids, segments = panoptic(masks, probabilities, data.things)
        Image.fromarray(rgb_ids(ids)).save(folder / "panoptic" / f"{image.id}.png")
        infos = [{"id": one.id, "category_id": data.classes[one.category].id} for one in segments]
        annotations.append({"image_id": image.id, "file_name": f"{image.id}.png", "segments_info": infos})
        numbers = np.array([*(entry.id for entry in data.classes), 0], np.uint8)  # -1 is the last: unlabelled
        Image.fromarray(numbers[semantic(masks, probabilities)]).save(folder / f"{image.id}_labels.png")
        lines = []
        found = instances(probabilities, data.things)
        for k, (region, category, score) in enumerate(zip(*map(np.ndarray.tolist, found), strict=True)):
            Image.fromarray(masks[region].astype(np.uint8) * 255).save(folder / f"{image.id}_{k}.png")
            lines.append(f"{image.id}_{k}.png {data.classes[category].id} {score}\n")
        (folder / f"{image.id}.txt").write_text("".join(lines))
    (folder / "panoptic.json").write_text(json.dumps({"annotations": annotations}))


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
    ours = judged(data, wrong)
    figures = metrics(ours)
    assert [figures["PQ"], figures["SQ"], figures["RQ"]] == [100 * official["All"][key] for key in ("pq", "sq", "rq")]
    assert figures["PQ things"] == 100 * official["Things"]["pq"]
    assert figures["PQ stuff"] == 100 * official["Stuff"]["pq"]
    by_name = ours.per_class()
    for entry in data.classes:
        assert by_name[entry.name]["PQ"] == 100 * official["per_class"][entry.id]["pq"]


@pytest.mark.parametrize("wrong", [{}, CAR_A])
def test_cityscapes_own_files_give_the_same_matches_and_ap(
    city: PanopticData, wrong: Wrong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as tool

    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # gone from NumPy 2.4; why matches are not its own here
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
    judge = judged(city, wrong)
    ours = list(judge._ap.matches.values())
    assert len(ours) == len(matches)
    for mine, theirs in zip(ours, matches.values(), strict=True):
        assert without_names(mine) == without_names(theirs)
    figures = metrics(judge)
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
    assert metrics(judged(city, CAR_A))["mIoU"] == pytest.approx(100 * official["averageScoreClasses"], abs=1e-9)


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
    assert metrics(judged(data, wrong))["PQ"] == pytest.approx(100 * float(value), abs=1e-4)  # it has float32
    assert (value == 1) == (not wrong)


def test_void_and_missing_classes_stay_out_of_the_confusion_matrix() -> None:
    truth, predicted = np.array([[0, 1, -1, 1]]), np.array([[0, -1, 0, 0]])
    assert confusion(truth, predicted, 2).tolist() == [[1, 0, 0], [1, 0, 1]]
    with pytest.raises(ValueError, match="one size"):
        confusion(truth, predicted[:, :2], 2)


def test_a_class_that_is_nowhere_does_not_count(tmp_path: Path) -> None:
    data = read_panoptic(write_cityscapes(tmp_path, [STREET]), "cityscapes")
    judge = judged(data)
    assert metrics(judge)["PQ"] == metrics(judge)["mIoU"] == 100
    assert np.isnan(judge.per_class()["sky"]["PQ"])


def test_nothing_to_score_is_nan_and_no_crash(tmp_path: Path) -> None:
    data = read_panoptic(write_cityscapes(tmp_path, [STREET]), "cityscapes")
    assert all(np.isnan(value) for value in metrics(SegmentationJudge(data)).values())
    assert intervals(SegmentationJudge(data).figures()) == {}


def test_flat_sentence_scores_leave_the_classes_as_they_are(city: PanopticData) -> None:
    judge = SegmentationJudge(city)
    for image in city.images:
        regions = regions_of(image, city.classes)
        cosines = np.where(np.arange(4) == regions.classes[:, None], 0.6, 0.5)
        judge.add(image, regions.masks, region_probabilities(cosines))
    figures = metrics(judge)
    assert figures["PQ"] == figures["mIoU"] == 100
    assert figures["AP"] == 100  # the right class still scores highest


@pytest.mark.parametrize(("dataset", "wrong"), [("cityscapes", CAR_A), ("ade20k", BED_A)])
def test_a_resample_is_what_the_official_tools_make_of_the_images_drawn(
    tmp_path: Path, dataset: str, wrong: Wrong
) -> None:
    """Each picture twice and once, by counts, and the same pictures written out as a data set of their own."""
    write, pictures = (
        (write_cityscapes, [STREET, YARD]) if dataset == "cityscapes" else (write_ade20k, [ROOM, YARD_ROOM])
    )
    small = read_panoptic(write(tmp_path / "small", pictures), dataset)
    figures = judged(small, wrong).figures()
    large = read_panoptic(write(tmp_path / "large", [pictures[0], pictures[1], pictures[0]]), dataset)
    again = {(large.images[2].id, number): index for (_, number), index in wrong.items()}
    expected = metrics(judged(large, {**wrong, **again}))
    for name, figure in figures.items():
        assert figure.of is not None
        assert figure.units == tuple(image.id for image in small.images)
        assert figure.of(np.array([2, 1])) == pytest.approx(expected[name], abs=1e-9), name
        assert figure.of(np.array([1, 1])) == pytest.approx(figure.value, abs=1e-9), name


def test_resampled_ap_is_the_official_one_on_random_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for dataset, write, pictures in (
        ("cityscapes", write_cityscapes, [STREET, YARD, STREET, STREET]),
        ("ade20k", write_ade20k, [ROOM, YARD_ROOM, ROOM, ROOM]),
    ):
        data = read_panoptic(write(tmp_path / dataset, pictures), dataset)
        judge = SegmentationJudge(data)
        for image in data.images:
            regions = regions_of(image, data.classes)
            judge.add(image, regions.masks, region_probabilities(rng.normal(size=(len(regions.ids), 4))))
        for name in ("AP", "AP50"):
            figure = judge.figures()[name]
            assert 0 < figure.value < 100
            assert figure.of is not None
            assert figure.of(np.ones(4, np.int64)) == pytest.approx(figure.value, abs=1e-9)


def test_wrong_probabilities_are_told(city: PanopticData) -> None:
    regions = regions_of(city.images[0], city.classes)
    with pytest.raises(ValueError, match="each of the 4 classes and one for void"):
        SegmentationJudge(city).add(city.images[0], regions.masks, np.zeros((4, 4)))


def test_regions_are_the_listed_ids_with_tight_boxes(city: PanopticData) -> None:
    regions = regions_of(city.images[0], city.classes)
    assert regions.ids.tolist() == [7, 26, 26000, 26001]  # the group is a region too
    assert [city.classes[k].name for k in regions.classes] == ["road", "car", "car", "car"]
    assert regions.boxes.tolist() == [[0, 0, 50, 40], [90, 0, 100, 40], [60, 0, 90, 20], [60, 20, 90, 40]]
    assert np.array_equal(regions.masks[1], STREET == 26)
    assert np.array_equal(instance_truth(city.images[1]), YARD)


def test_broken_records_are_counted_by_reason(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, [STREET, YARD, YARD])
    (root / "leftImg8bit/val/city/city_000001_000000_leftImg8bit.png").unlink()
    (root / "gtFine/cityscapes_panoptic_val/city_000002_000000_gtFine_panoptic.png").write_bytes(b"no picture")
    problems = Problems()
    data = read_panoptic(root, "cityscapes", problems=problems)
    assert [image.id[:11] for image in data.images] == ["city_000000", "city_000002"]
    assert problems.counts() == {"no such image": 1}
    with pytest.raises(ValueError, match="image cannot be read"):
        regions_of(data.images[1], data.classes)
    # a segment that the file does not list, and one of a class that it does not know
    listed = data.images[0].annotation["segments_info"]
    listed[0]["category_id"], listed[-1]["id"] = 99, 1
    assert regions_of(data.images[0], data.classes, problems).ids.tolist() == [26, 26000]
    assert problems.counts() == {"no such image": 1, "index out of range": 1, "missing field": 1}


def test_missing_files_are_all_named_with_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"cityscapes_panoptic_val\.json.*gtFine/val.*leftImg8bit/val.*csCreate"
    ):
        read_panoptic(tmp_path, "cityscapes")
    with pytest.raises(FileNotFoundError, match=r"ade20k_panoptic_val\.json.*images/validation.*prepare_ade20k"):
        read_panoptic(tmp_path, "ade20k")


def test_too_many_regions_are_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt4roi_nb.evaluate.panoptic_files.MAX_REGIONS", 2)
    data, problems = read_panoptic(write_cityscapes(tmp_path, [STREET]), "cityscapes"), Problems()
    assert regions_of(data.images[0], data.classes, problems).ids.tolist() == [7, 26]
    assert sum(problems.left_out.values()) == 2


@pytest.mark.samples
def test_the_genuine_cityscapes_picture_is_read_and_scored(samples: Path, tmp_path: Path) -> None:
    """The picture of cityscapesscripts' own tests: perfect answers give 100, and the official command agrees."""
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
    judge = judged(data)
    assert metrics(judge)["PQ"] == metrics(judge)["mIoU"] == 100
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
    assert metrics(judged(data, wrong))["PQ"] == 100 * official["All"]["pq"] < 100
