"""Damaged input files: an evaluation ends with questions and a count of problems, or with a clear error."""

from __future__ import annotations

import csv
import io
import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from mutations import cases, ends_well, garbled, mutated, written

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.evaluate import BENCHMARKS, Result, evaluate
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Prediction
from gpt4roi_nb.evaluate.benchmarks.naming_subsets import CONTROLMLLM, FERRET, OSPREY_PACO, Subset
from gpt4roi_nb.evaluate.journal import RUN, Journal
from gpt4roi_nb.evaluate.predictions import _frame, read_predictions, write_predictions
from gpt4roi_nb.evaluate.question_table import read_table
from gpt4roi_nb.evaluate.result import PREDICTIONS, RESULT
from gpt4roi_nb.prompt import references
from gpt4roi_nb.session.gpt4roi import GPT4RoI

FILES = {
    "coco": "coco/annotations/instances_val2017.json",
    "lvis": "lvis/lvis_v1_val.json",
    "visual7w": "visual7w/dataset_v7w_pointing.json",
    "cityscapes": "cityscapes/gtFine/cityscapes_panoptic_val.json",
    "ade20k": "ade20k/ADEChallengeData2016/ade20k_panoptic_val.json",
    "gar_bench": "gar_bench/GAR-Bench-VQA.json",
    "vstar_bench": "vstar_bench/test_questions.jsonl",
    "ref_l4": "ref_l4/ref-l4-val.json",  # its Parquet file as a list
}
FEW = 3  # entries per list of a file, so that a change is likely to matter


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_damaged_annotations_of_a_benchmark(name: str, world: Path, tmp_path: Path) -> None:
    file = _own(world, tmp_path / "world", FILES[name])
    content = _few(world / FILES[name])

    @cases
    def case(rng: random.Random) -> None:
        file.write_bytes(written(mutated(content, rng), rng, lines=file.suffix == ".jsonl"))
        problems = Problems()
        with ends_well():
            config = EvalConfig(tmp_path / "world", "val", folder=tmp_path)
            items = list(BENCHMARKS[name].items(config, problems))
            for item in items:
                assert ".." not in Path(item.image).parts and item.image.startswith(str(tmp_path))
                assert item.question.strip() and (item.target.strip() or item.options)
                assert set(references(item.question)) == set(range(1, len(item.boxes) + 1))
            assert problems.table()

    case()


@pytest.mark.slow
@pytest.mark.parametrize("subset", [OSPREY_PACO, FERRET, CONTROLMLLM], ids=lambda one: one.file)
def test_damaged_files_of_questions(subset: Subset, world: Path, tmp_path: Path) -> None:
    lines = (world / ("paco" if subset is OSPREY_PACO else "lvis") / subset.file).read_text().splitlines()
    entries = json.loads(lines[0]) if subset is OSPREY_PACO else list(map(json.loads, lines))
    file = tmp_path / subset.file

    @cases
    def case(rng: random.Random) -> None:
        file.write_bytes(written(mutated(entries[:FEW], rng), rng, lines=subset is not OSPREY_PACO))
        problems = Problems()
        with ends_well():
            for item in subset.read(file, world / "coco", problems):
                assert ".." not in Path(item.image).parts
                assert item.question.count("<region1>") == 1 and item.target.strip()
            assert subset.size(file) >= 0 and problems.table()

    case()


def _own(world: Path, copy: Path, name: str) -> Path:
    """A writable file in a copy of a world made of links."""
    copy.mkdir()
    for path in world.iterdir():
        (copy / path.name).symlink_to(path)
    file = copy / name
    top = copy / Path(name).parts[0]
    real = top.resolve()
    top.unlink()
    _links(real, top, file)
    return file


def _few(file: Path) -> Any:
    """The content of an annotation file, with few elements of its lists."""
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text().splitlines()[:FEW]]
    if not file.exists():
        return pq.read_table(file.with_suffix(".parquet")).to_pylist()[:FEW]
    content = json.loads(file.read_text())
    if isinstance(content, list):
        return content[:FEW]
    return {
        key: value[:FEW] if isinstance(value, list) and key not in ("categories", "boxes") else value
        for key, value in content.items()
    }


def test_a_damaged_parquet_file_of_a_benchmark(world: Path, tmp_path: Path) -> None:
    file = _own(world, tmp_path / "world", "ref_l4/ref-l4-val.parquet")
    data = (world / "ref_l4" / "ref-l4-val.parquet").read_bytes()

    @cases
    def case(rng: random.Random) -> None:
        file.write_bytes(garbled(data, rng))
        with ends_well():
            assert all(
                item.target.strip()
                for item in BENCHMARKS["ref_l4"].items(EvalConfig(tmp_path / "world", "val"), Problems())
            )

    case()


def test_damaged_boxes_of_vstar(world: Path, tmp_path: Path) -> None:
    first = json.loads((world / "vstar_bench" / "test_questions.jsonl").read_text().splitlines()[0])["image"]
    name = f"vstar_bench/{first.removesuffix('.jpg')}.json"
    file = _own(world, tmp_path / "world", name)
    content = json.loads((world / name).read_text())

    @cases
    def case(rng: random.Random) -> None:
        file.write_bytes(written(mutated(content, rng), rng))
        problems = Problems()
        with ends_well():
            assert list(BENCHMARKS["vstar_bench"].items(EvalConfig(tmp_path / "world", "test"), problems))
            assert problems.table()

    case()


def _links(real: Path, folder: Path, apart: Path) -> None:
    """Copy a folder as links, except the folders above the file `apart`, and its counterpart in Parquet."""
    folder.mkdir()
    for path in real.iterdir():
        copy = folder / path.name
        if copy in apart.parents:
            _links(path, copy, apart)
        elif copy.with_suffix("") != apart.with_suffix(""):
            copy.symlink_to(path)


def test_a_damaged_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    rows = [
        Prediction("a", "cat", -0.5, None, 0.25, 64, 48, "1 2"),
        Prediction("b", "", None, (-0.5, -1.5), 0.0, 1, 1),
    ]
    journal.begin({"benchmark": "coco"})
    for _ in range(3):
        journal.add(rows, 4)
    answers = journal.folder / "answers-0.jsonl"
    lines = [json.loads(line) for line in answers.read_text().splitlines()]

    @cases
    def case(rng: random.Random) -> None:
        answers.write_bytes(written(mutated(lines, rng), rng, lines=True))
        (journal.folder / RUN).write_bytes(written(mutated({"benchmark": "coco"}, rng), rng))
        with ends_well():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                damaged = Journal(journal.folder)
                damaged.mend()
            before = damaged.settled()
            damaged.add(rows, 4)
            assert damaged.settled() == before | {"a", "b"}
            damaged.check_images(lambda name: "1 2")
            damaged.begin({"benchmark": "coco"})

    case()


def test_a_damaged_table_of_predictions(tmp_path: Path) -> None:
    file = tmp_path / "predictions.parquet"
    numbers = {"width": 1, "height": 1, "region": 1, "score": 0.5, "logprob": -1.0, "margin": 0.1, "seconds": 1.0}
    write_predictions(_frame([{"id": str(k), "boxes": [[1.0, 2.0, 3.0, 4.0]], **numbers} for k in range(20)]), file)
    data = file.read_bytes()

    @cases
    def case(rng: random.Random) -> None:
        file.write_bytes(garbled(data, rng))
        with ends_well():
            read_predictions(file)

    case()


@pytest.fixture(scope="module")
def saved(gpt4roi: GPT4RoI, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a result."""
    return evaluate("vcr", gpt4roi, world, limit=2, progress=False).save(tmp_path_factory.mktemp("saved"))


def test_a_damaged_result(saved: Path, tmp_path: Path) -> None:
    content = json.loads((saved / RESULT).read_text())
    (tmp_path / PREDICTIONS).symlink_to(saved / PREDICTIONS)

    @cases
    def case(rng: random.Random) -> None:
        (tmp_path / RESULT).write_bytes(written(mutated(content, rng), rng))
        with ends_well():
            loaded = Result.load(tmp_path)
            assert str(loaded) and loaded.card.text() and isinstance(loaded.card.model, str)
            assert loaded.card.differences(loaded.card) == {}

    case()


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"intervals": []}, "'intervals' of it must be an object, but is \\[\\]"),
        ({"intervals": {"a": [1, 2, 3]}}, "'a' of 'intervals' of it must be a list of 2, but is \\[1, 2, 3\\]"),
        ({"metrics": {"a": "b"}}, "'a' of 'metrics' of it must be a number, but is 'b'"),
        ({"card": {}}, "'card' of it lacks 'benchmark'"),
    ],
)
def test_a_result_of_another_form_is_said(entry: dict[str, Any], says: str, saved: Path, tmp_path: Path) -> None:
    (tmp_path / PREDICTIONS).symlink_to(saved / PREDICTIONS)
    (tmp_path / RESULT).write_text(json.dumps(json.loads((saved / RESULT).read_text()) | entry))
    with pytest.raises(ValueError, match=rf"result\.json' is damaged or was written by another version: {says}"):
        Result.load(tmp_path)


def test_a_damaged_table_of_questions(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    rows = [["a.png", "What is <region1>?", "1 2 30 40"], ["a.png", "And <region2>, “beside” it?", "1 2 3 4; 5 6 7 8"]]
    file = tmp_path / "questions.csv"

    @cases
    def case(rng: random.Random) -> None:
        changed = [[str(cell) for cell in row] for row in mutated(rows, rng) if isinstance(row, list)]
        stream = io.StringIO()
        csv.writer(stream).writerows([["image", "question", "boxes"], *changed])
        data = stream.getvalue().encode("utf-8", "replace")
        file.write_bytes(garbled(data, rng) if rng.random() < 0.3 else data)
        with ends_well():
            for row in read_table(file, tmp_path).rows:
                assert row.problem or (row.question.strip() and row.image.startswith(str(tmp_path)))
                assert np.isfinite(np.array(row.boxes)).all()

    case()
