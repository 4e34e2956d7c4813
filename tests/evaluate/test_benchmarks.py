"""Each benchmark on cases worked out by hand, and all of them from their files to a table."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bare import bare_python

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.data.scenes.scene import CATEGORIES
from gpt4roi_nb.evaluate import BENCHMARKS, Result, evaluate
from gpt4roi_nb.evaluate.__main__ import main
from gpt4roi_nb.evaluate.benchmarks.coco import COCO, mean_average_precision
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction
from gpt4roi_nb.evaluate.benchmarks.letters import letter_of
from gpt4roi_nb.evaluate.benchmarks.naming import LVIS, PACO
from gpt4roi_nb.evaluate.benchmarks.registry import benchmark, check_files
from gpt4roi_nb.evaluate.benchmarks.vcr import VCR
from gpt4roi_nb.evaluate.metrics.similarity import packaged_model
from gpt4roi_nb.evaluate.predict import BatchedPredictor

ONE_WORKER = pytest.mark.xdist_group("sentences")  # importing the sentence embedder takes long: once per process
# Captioning benchmarks run in the worker where METEOR runs already, and import no embedder.
CAPTIONS = pytest.mark.xdist_group("captions")
CAPTIONED = ("vg", "refcocog", "ref_l4")
WRONG = {"(A)": "(B)", "(B)": "(C)", "(C)": "(D)", "(D)": "(A)"}


def in_its_worker(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=CAPTIONS if name in CAPTIONED else ONE_WORKER) for name in names]


def listed(name: str, root: Path, **config) -> tuple[list[Item], Problems]:
    chosen = benchmark(name)
    problems = Problems()
    given = {"split": chosen.splits[0], "scorer": chosen.scoring[0], **config}
    return list(chosen.items(EvalConfig(root, **given), problems)), problems


def said(items: list[Item], answers: list[str]) -> list[Prediction]:
    return [Prediction(item.id, answer, -0.5, None, 0.1, 96, 96) for item, answer in zip(items, answers, strict=True)]


def values(name: str, items: list[Item], answers: list[str], root: Path) -> dict[str, float]:
    chosen = benchmark(name)
    scores = chosen.score(items, said(items, answers), EvalConfig(root, chosen.splits[0]))
    return {key: figure.value for key, figure in scores.metrics.items()}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("(C)", "(C)"), ("C", "(C)"), ("The answer is ( B ).", "(B)"), ("B) because of D", "(B)"), ("D.", "(D)"),
        ("A dog is in (D)", "(D)"), ("A dog", None), ("", None), ("(E)", None), ("Because", None), ("c", None),
        ("Bob's", None), ("Option A", "(A)"),
    ],
)  # fmt: skip
def test_the_first_option_letter_of_an_answer(answer, letter):
    assert letter_of(answer) == letter


@pytest.mark.slow
def test_vcr_counts_an_annotation_only_when_both_are_right(world):
    items, problems = listed("vcr", world)
    assert not list(problems) and {item.kind for item in items} == {"qa", "qar"}
    groups = list(dict.fromkeys(item.group for item in items))
    assert len(items) == 2 * len(groups) >= 8
    wrong = {(groups[0], "qa"), (groups[1], "qar"), (groups[2], "qa"), (groups[2], "qar")}
    answers = [WRONG[item.target] if (item.group, item.kind) in wrong else item.target for item in items]
    n = len(groups)
    assert values("vcr", items, answers, world) == pytest.approx(
        {"Q→A": 100 * (n - 2) / n, "QA→R": 100 * (n - 2) / n, "Q→AR": 100 * (n - 3) / n}
    )
    silent = VCR.score(items, said(items, ["I do not know"] * len(items)), EvalConfig(world, "val"))
    assert silent.counts == {"answers without a letter": len(items)}
    assert [figure.value for figure in silent.metrics.values()] == [0, 0, 0]


def test_vcr_asks_in_the_protocols_words(world):
    items, _ = listed("vcr", world)
    answer, rationale = items[0], items[1]
    count = len(answer.boxes)
    opening = ",".join(f"<region{k}>" for k in range(1, count + 1))
    opening += " refers to specific areas within the photo along with their respective identifiers."
    for item in (answer, rationale):
        assert item.question.startswith(opening + "\nQuestion: ")
        assert [line[:3] for line in item.question.splitlines()[-4:]] == ["(A)", "(B)", "(C)", "(D)"]
    gold = next(line for line in answer.question.splitlines() if line.startswith(answer.target))
    assert f"\nAnswer: {gold[4:]}\n" in rationale.question  # the right answer, whatever the model said


def test_visual7w_offers_boxes_or_texts_in_an_order_by_seed(world):
    items, problems = listed("visual7w", world)
    assert not list(problems) and {item.kind for item in items} == {"pointing", "telling"}
    kinds = ("pointing", "telling")
    files = {kind: json.loads((world / f"visual7w/dataset_v7w_{kind}.json").read_text()) for kind in kinds}
    pairs = {
        f"visual7w/{kind}/{pair['qa_id']}": pair
        for kind, content in files.items()
        for image in content["images"]
        for pair in image["qa_pairs"]
        if image["split"] == "val"
    }
    boxes = {box["box_id"]: (box["x"], box["y"]) for box in files["pointing"]["boxes"]}
    assert {item.id for item in items} == set(pairs)
    for item in items:
        right = item.facts["choice"]
        if item.kind == "pointing":
            assert item.boxes[right][:2] == boxes[pairs[item.id]["answer"]] and len(item.boxes) == 4
        else:
            line = next(line for line in item.question.splitlines() if line.startswith(item.target))
            assert line == f"{item.target} {pairs[item.id]['answer']}" and item.boxes == ()
    other, _ = listed("visual7w", world, seed=1)
    assert [item.target for item in other] != [item.target for item in items]
    answers = [WRONG[item.target] if item.kind == "telling" else item.target for item in items]
    assert values("visual7w", items, answers, world) == {"pointing": 100, "telling": 0}


def test_visual7w_tells_what_is_wrong_with_a_pair(world, tmp_path):
    shutil.copytree(world / "visual7w", tmp_path / "visual7w")
    file = tmp_path / "visual7w" / "dataset_v7w_telling.json"
    content = json.loads(file.read_text())
    pairs = [pair for image in content["images"] if image["split"] == "val" for pair in image["qa_pairs"]]
    del pairs[0]["answer"]
    pairs[1]["multiple_choices"] = ["one"]
    pairs[2]["question"] = " "
    file.write_text(json.dumps(content))
    (tmp_path / "visual7w" / "dataset_v7w_pointing.json").unlink()  # one of the two is enough
    check_files("visual7w", tmp_path, "val")
    items, problems = listed("visual7w", tmp_path)
    assert problems.counts() == {"missing field": 2, "wrong type": 1} and len(items) == len(pairs) - 3


def test_coco_is_right_on_exactly_the_name(world):
    items, problems = listed("coco", world)
    n = len(items)
    assert not list(problems) and n >= 8
    answers = [item.target for item in items]
    answers[:4] = [f"A {items[0].target.upper()}.", f" the {items[1].target} ", f"red {items[2].target}", "dragon"]
    scores = COCO.score(items, said(items, answers), EvalConfig(world, "val"))
    assert scores.columns["correct"] == [True, True, False, False] + [True] * (n - 4)
    assert scores.metrics["accuracy"].value == pytest.approx(100 * (n - 2) / n)
    assert scores.counts == {"category unknown to the mapping": 2}


def test_mean_average_precision_worked_by_hand():
    names = {1: "cup", 2: "ring"}

    def item(image: int, x: int, category: int) -> Item:
        facts = {"image": image, "category": category, "names": names}
        return Item(f"{image}/{x}", f"{image}.jpg", ((x, 0.0, x + 50.0, 50.0),), "?", names[category], facts=facts)

    items = [item(1, 0, 1), item(1, 100, 1), item(2, 0, 2), item(2, 100, 1)]
    # Of cups: 2 of 3 found, and nothing else called so: precision 1 up to recall 2/3, that is 67 of 101 points.
    # Of rings: found, but one more is called so, at the same score; the true one comes first in the list.
    figure = mean_average_precision(items, [1, 1, 2, 2])
    assert figure.value == pytest.approx(100 * (67 / 101 + 1) / 2)
    assert figure.units == ("1", "2")
    assert figure.of_samples(np.array([[1, 1]])) == pytest.approx(figure.value)
    assert figure.of_samples(np.array([[2, 0]])) == pytest.approx(100)  # both cups of image 1, twice; no ring
    # Image 2 twice: of rings right, wrong, right, wrong: precision 1 to recall 1/2 (51 points), then 2/3. No cup.
    assert figure.of_samples(np.array([[0, 2]])) == pytest.approx(100 * ((51 + 50 * 2 / 3) / 101 + 0) / 2)
    assert mean_average_precision(items, [None] * 4).value == 0


def test_coco_map_is_what_pycocotools_says_of_the_file(world, tmp_path, capsys):
    from pycocotools.coco import COCO as Annotations
    from pycocotools.cocoeval import COCOeval

    root, place = tmp_path, "coco/annotations/instances_val2017.json"
    content = json.loads((world / place).read_text())
    items, _ = listed("coco", world)
    names = list(items[0].facts["names"])
    guessed = [names[(names.index(item.facts["category"]) + (k % 3 == 0)) % len(names)] for k, item in enumerate(items)]
    spoken = [items[0].facts["names"][category] for category in guessed]
    for item, category in zip(items[::6], guessed[::6], strict=True):  # a crowd around some of those named wrongly
        x1, y1, x2, y2 = item.boxes[0]
        crowd = {"bbox": [x1 - 2, y1 - 2, x2 - x1 + 9, y2 - y1 + 9], "area": 1.0, "iscrowd": 1, "category_id": category}
        crowd |= {"id": 10**6 + len(content["annotations"]), "image_id": item.facts["image"], "segmentation": []}
        content["annotations"].append(crowd)
    (root / place).parent.mkdir(parents=True)
    (root / place).write_text(json.dumps(content))
    truth = Annotations(str(root / place))
    found = []
    for item, category in zip(items, guessed, strict=True):
        x1, y1, x2, y2 = item.boxes[0]
        box = [x1, y1, x2 - x1, y2 - y1]
        found.append({"image_id": item.facts["image"], "category_id": category, "bbox": box, "score": 1.0})
    official = COCOeval(truth, truth.loadRes(found), "bbox")
    official.evaluate()
    official.accumulate()
    official.summarize()
    assert COCO.score(items, said(items, spoken), EvalConfig(root, "val")).metrics["mAP"].value == pytest.approx(
        100 * official.stats[0]
    )
    # A wrong name within a crowd of that name does not count: without the crowd it would.
    assert mean_average_precision(items, guessed).value < 100 * official.stats[0] - 1e-3


@pytest.mark.slow
@ONE_WORKER
def test_lvis_and_paco_worked_by_hand(world):
    for chosen in (LVIS, PACO):
        items, problems = listed(chosen.name, world, split="val")
        assert not list(problems)
        by_kind = {asked: [item for item in items if item.facts["asked"] == asked] for asked in ("name", "choice")}
        assert len(by_kind["name"]) == len(by_kind["choice"])
        first = by_kind["name"][0]
        assert first.question == "What is the category of <region1>? Using only one word or phrase."
        words = first.target.split()
        config = EvalConfig(world, "val")
        # The text after the colon counts; one word of two, and one that is not, is an IoU of 1/(n + 1).
        scores = chosen.score([first], said([first], [f"Category: {words[0].upper()}, quux."]), config)
        assert scores.metrics["S-IoU"].value == pytest.approx(100 / (len(words) + 1))
        assert scores.metrics["SS"].value < 95 and scores.columns["correct"] == [False]
        assert list(scores.metrics) == ["SS", "S-IoU"] and scores.counts == {}
        for item in by_kind["choice"]:
            true, false = item.facts["true"], item.facts["false"]
            assert item.question == "Is the object <region1> of the image a {} or a {}?".format(*item.options)
            assert {option.lower() for option in item.options} == {true[0], false[0]}
            assert not any(a in b or b in a for a in true for b in false)
        item = by_kind["choice"][0]
        true, false = item.facts["true"][0], item.facts["false"][0]
        answers = {f"a {true}": True, false: False, f"a {true}, not a {false}": True}
        answers |= {f"{true} or {false}": True, "": False}  # by the published rule
        scores = chosen.score([item] * len(answers), said([item] * len(answers), list(answers)), config)
        assert scores.columns["correct"] == list(answers.values())
        assert scores.metrics["binary choice"].value == 60
        assert scores.metrics["binary choice (strict)"].value == 40


@pytest.mark.parametrize("damage", [lambda one: one.pop("id"), lambda one: one.update(name=7)])
def test_a_category_that_cannot_be_used_is_counted(world, tmp_path, damage):
    shutil.copytree(world / "lvis", tmp_path / "lvis")
    file = tmp_path / "lvis" / "lvis_v1_val.json"
    content = json.loads(file.read_text())
    whole = {one["id"]: one["category_id"] for one in content["annotations"]}
    first = content["annotations"][0]["category_id"]
    for one in content["categories"]:
        one["synonyms"] = None
    damage(next(one for one in content["categories"] if one["id"] == first))
    file.write_text(json.dumps(content))
    items, problems = listed("lvis", tmp_path, split="val")
    about = sum(category == first for category in whole.values())
    assert problems.counts()["index out of range"] == about
    assert problems.counts().total() == about + 1
    assert len([item for item in items if item.facts["asked"] == "name"]) == len(whole) - about


@ONE_WORKER
def test_the_card_names_the_embedder_and_the_judges(world, gpt4roi):
    kept = {"limit": 1, "progress": False}
    usual = evaluate("lvis", gpt4roi, world, **kept).card
    other = evaluate("lvis", gpt4roi, world, mapping_model=packaged_model(), **kept).card
    assert "SS by all-MiniLM-L6-v2;" in usual.mapping and f"SS by {packaged_model()};" in other.mapping
    assert usual.differences(other) == {"mapping": (usual.mapping, other.mapping)}
    assert usual.versions["sentence-transformers"] == version("sentence-transformers")
    assert "sentence-transformers" in str(usual)
    plain = evaluate("coco", gpt4roi, world, **kept).card
    assert set(plain.versions) - set(usual.versions) == {"pycocotools"}


def test_false_names_are_not_in_the_image_and_come_first_half_the_time(world):
    items, _ = listed("lvis", world, split="train")
    shown: dict[str, set[str]] = {}
    for item in items:
        shown.setdefault(item.image, set()).add(item.target.lower())
    choices = [item for item in items if item.facts["asked"] == "choice"]
    assert all(item.facts["false"][0] not in shown[item.image] for item in choices)
    first = sum(item.options[0] == item.facts["true"][0] for item in choices)
    assert 0.3 * len(choices) < first < 0.7 * len(choices)


@pytest.fixture
def perfect(monkeypatch):
    """A model that gives the right answers."""
    monkeypatch.setattr(
        BatchedPredictor,
        "_write",
        lambda self, asked, shared: [(question.item.target, -0.1, None) for question in asked],
    )

    def choose(self, asked, shared):
        even = math.log(0.1 / 3)
        rows = [[math.log(0.9) if option == one.item.target else even for option in one.item.options] for one in asked]
        return [(one.item.target, math.log(0.9), tuple(row)) for one, row in zip(asked, rows, strict=True)]

    monkeypatch.setattr(BatchedPredictor, "_choose", choose)


@pytest.mark.slow
@pytest.mark.parametrize("name", in_its_worker(BENCHMARKS))
@pytest.mark.usefixtures("perfect")
def test_perfect_predictions_give_100_everywhere(name, world, gpt4roi, request):
    if name in CAPTIONED:
        request.getfixturevalue("one_meteor")
    result = evaluate(name, gpt4roi, world, progress=False)
    figures = {key: value for key, value in result.metrics.items() if key not in ("CIDEr", "BLEU-4")}
    assert figures and all(value == pytest.approx(100, abs=1e-4) for value in figures.values()), result.metrics
    assert all(low == pytest.approx(100, abs=1e-4) for key, (low, _) in result.intervals.items() if key in figures)
    judged = result.predictions["correct"].dropna()
    assert judged.all()
    assert not result.card.left_out.keys() - {"crowds"}


def half(wrong: int, of: int) -> float:
    return 100 * (of - wrong) / of


def is_group(item: Item) -> bool:
    """Whether a region is Cityscapes' group of one category, which PQ leaves out; its id is that of its label."""
    return item.id.startswith("cityscapes/") and item.facts["segment_id"] < 1000 and item.kind in CATEGORIES


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    in_its_worker(["vcr", "visual7w", "coco", "lvis", "paco", "cityscapes", "ade20k", *CAPTIONED]),
)
def test_every_scorer_is_in_between_where_every_second_answer_is_wrong(name, world, request):
    if name in CAPTIONED:
        request.getfixturevalue("one_meteor")
    items, _ = listed(name, world)
    wrong = set(range(1, len(items), 2))
    share = half(len(wrong), len(items))
    answers = [(WRONG.get(item.target, "zzz") if k in wrong else item.target) for k, item in enumerate(items)]
    figures = values(name, items, answers, world)
    assert 0 < len(wrong) < len(items)
    if name == "vcr":  # two questions per annotation, the second always wrong
        assert figures == {"Q→A": 100, "QA→R": 0, "Q→AR": 0}
    elif name == "visual7w":
        kinds = {kind: [k for k, item in enumerate(items) if item.kind == kind] for kind in figures}
        assert figures == {kind: half(len(wrong & set(places)), len(places)) for kind, places in kinds.items()}
    elif name in ("coco", "cityscapes", "ade20k"):
        assert figures["accuracy (lexical)" if "accuracy (lexical)" in figures else "accuracy"] == pytest.approx(share)
        kinds = sorted({item.kind for item in items})
        places = {kind: [k for k, item in enumerate(items) if item.kind == kind] for kind in kinds}
        recall = {kind: half(len(wrong & set(of)), len(of)) for kind, of in places.items()}
        if name == "coco":  # no name is wrong, so each category has precision 1 up to its recall
            points = [101 if value == 100 else int(value + 1e-9) + 1 if value else 0 for value in recall.values()]
            assert figures["mAP"] == pytest.approx(sum(100 * one / 101 for one in points) / len(points))
        else:  # a segment is found whole or missed, and none is found that is not there: RQ is TP / (TP + FN / 2)
            counted = {k for k, item in enumerate(items) if not is_group(item)}
            counts = [(len(counted & set(of)), len(counted & set(of) - wrong)) for of in places.values()]
            quality = [100 * found / (found + (all_ - found) / 2) for all_, found in counts if all_]
            for metric in ("PQ (lexical)", "RQ (lexical)"):
                assert figures[metric] == pytest.approx(sum(quality) / len(quality))
    elif name in ("lvis", "paco"):  # "zzz" shares no word with any name
        assert figures["S-IoU"] == pytest.approx(share)
        assert share < figures["SS"] < 100
    else:  # of METEOR and CIDEr every item counts alike, of METEOR by words
        assert figures["ROUGE-L"] == pytest.approx(share)
        assert 0 < figures["METEOR"] < 100 and 0 < figures["CIDEr"] < 1000


@pytest.mark.slow
@ONE_WORKER
@pytest.mark.parametrize("split", ["lvis_eval", "question_roc"])
def test_a_choice_is_right_as_often_as_the_true_name_is_said(split, world):
    items, _ = listed("lvis", world, split=split)
    answers = [f"a {item.target}" if k % 4 else "a zeppelin" for k, item in enumerate(items)]
    right = 100 * sum(k % 4 > 0 for k in range(len(items))) / len(items)
    scores = LVIS.score(items, said(items, answers), EvalConfig(world, split))
    assert {key: figure.value for key, figure in scores.metrics.items()} == pytest.approx(
        {"binary choice": right, "binary choice (strict)": right}
    )
    assert sum(scores.counts.values()) == len(items)


@ONE_WORKER
@pytest.mark.slow
def test_the_demo_model_runs_every_benchmark_with_one_command(world, tmp_path, capsys):
    """In the environment that the docs tell users to make; what it measured is read here."""
    arguments = ["all", "--root", str(world), "--out", str(tmp_path), "--limit", "2", "--markdown"]
    command = [bare_python(), "-I", "-m", "gpt4roi_nb.evaluate", *arguments]
    table = subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True).stdout
    for name in BENCHMARKS:
        assert f"\n| {name} | " in table
        result = Result.load(tmp_path / name)
        assert result.metrics and len(result.predictions) >= 2 and result.card.complete
        assert result.card.checkpoint_name == "demo"
        assert set(result.predictions["size_bin"]) <= {"", "small", "medium", "large"}
        assert "published" in str(result.table())
    page = tmp_path / "page.md"
    page.write_text("# Before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n")
    assert main([*arguments, "--into", str(page)]) == 0  # nothing is asked again
    assert page.read_text() == f"# Before\n<!-- figures -->\n\n{table}\n<!-- end of figures -->\nafter\n"


def test_the_command_presents_boxes_as_it_is_told(world, tmp_path):
    options = ["--regions", "draw", "--colour", "blue", "--width", "5", "--limit", "1", "--out", str(tmp_path)]
    assert main(["coco", "--root", str(world), *options]) == 0
    card = Result.load(tmp_path / "coco").card
    assert card.way == "draw" and card.told["colours"].startswith("blue, ")
    assert card.told["line_width"].startswith("5 pixels")


def test_the_command_says_all_that_is_missing(world, tmp_path, capsys):
    assert main(["vcr", "coco", "--root", str(world), "--check"]) == 0
    assert "complete for vcr, coco" in capsys.readouterr().out
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    assert main(["coco", "--root", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "lacks what coco (val) needs" in told and "instances_val2017.json" in told and "images: " not in told
    assert main(["coco", "--root", str(tmp_path / "nowhere")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    for name in ("coco/val2017", "paco"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(world / "paco" / "paco_val_1k_category.json", tmp_path / "paco")
    assert main(["paco", "--root", str(tmp_path), "--check"]) == 1
    told = capsys.readouterr().err
    assert "COCO's train2017" in told and "val2017" not in told
    (tmp_path / "page.md").write_text("no marks")
    assert main(["coco", "--root", str(world), "--into", str(tmp_path / "page.md")]) == 1
    assert "must hold the marks '<!-- figures -->'" in capsys.readouterr().err


def test_a_datasets_own_folder_is_a_root_too(world, gpt4roi):
    own = evaluate("coco", gpt4roi, world / "coco", limit=2, progress=False)
    part = evaluate("coco", gpt4roi, world, limit=2, progress=False)
    assert own.metrics == part.metrics and list(own.predictions["id"]) == list(part.predictions["id"])


@pytest.mark.samples
@pytest.mark.parametrize(
    ("name", "file"), [("coco", "annotations/instances_val2017.json"), ("lvis", "lvis_v1_val.json")]
)
def test_genuine_records_are_asked_about_and_scored(samples, tmp_path, name, file):
    source = samples / name / {"coco": "instances_val2017_subset.json", "lvis": "lvis_v0.5_val_subset.json"}[name]
    target = tmp_path / name / file
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    items, problems = listed(name, tmp_path, split="val")
    assert items and not problems.counts()
    chosen = benchmark(name)
    if name == "coco":
        scores = chosen.score(items, said(items, [item.target for item in items]), EvalConfig(tmp_path, "val"))
        assert {key: figure.value for key, figure in scores.metrics.items()} == pytest.approx(
            {"accuracy": 100, "mAP": 100}
        )
    else:
        choices = [item for item in items if item.facts["asked"] == "choice"]
        answers = [item.facts["true"][0] for item in choices]
        scores = chosen.score(choices, said(choices, answers), EvalConfig(tmp_path, "val"))
        assert scores.metrics["binary choice"].value == 100
