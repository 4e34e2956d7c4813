"""Every reader of annotations on damaged files: it ends in records and a count, or in an error in words."""

from __future__ import annotations

import json
import logging
import pickle
import random
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import annotation_files as files
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from mutations import cases, ends_well, garbled, mutated, written

from gpt4roi_nb.data import index as index_module
from gpt4roi_nb.data import load
from gpt4roi_nb.data.dataset import FILE_OPTIONS
from gpt4roi_nb.data.image_files import Folder
from gpt4roi_nb.data.index import Index
from gpt4roi_nb.data.llava import read_detections
from gpt4roi_nb.data.pickles import PICKLES, read_pickle
from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.data.scenes.formats.write import write_world

FEW = 4  # of a list in a file of the world, so that a change is likely to matter
MADE = {f"small {make.__name__}": make for make in files.ALL}
ALIKE = ("refcoco+", "refcocog", "refcoco+ refs", "refcocog refs", "vcr single", "vcr several")  # read as another is
WORLD = [name for name in files.WORLD if name not in ALIKE]


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Reports of bad records would fill the screen."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("fuzz") / "world", 4, seed=3, size=64, workers=0, progress=False)


def of_world(name: str, world: Path) -> files.Given:
    format, annotations, images, options = files.WORLD[name]
    paths = {key: world / value if key in FILE_OPTIONS else value for key, value in options.items()}
    return files.Given(format, world / annotations, world / images, paths)


def few(content: Any) -> Any:
    """The content with at most `FEW` entries in the lists at its top."""
    if isinstance(content, list):
        return content[:FEW]
    return {key: value[:FEW] if isinstance(value, list) else value for key, value in content.items()}


def content_of(file: Path) -> Any:
    if file.suffix in PICKLES:
        return few(pickle.loads(file.read_bytes()))
    if file.suffix == ".jsonl":
        return few([json.loads(line) for line in file.read_text().splitlines()])
    return few(json.loads(file.read_text()))


def damage(file: Path, content: Any, rng: random.Random) -> None:
    content = mutated(content, rng)
    if file.suffix in PICKLES:
        data = pickle.dumps(content, protocol=rng.randrange(6))
        file.write_bytes(garbled(data, rng) if rng.random() < 0.3 else data)
    else:
        file.write_bytes(written(content, rng, lines=file.suffix == ".jsonl"))


def check(given: files.Given, cache: Path) -> None:
    """What `load` gives can be used: named images, boxes and turns, from the index as well."""
    with ends_well():
        for rebuild in (True, False):
            dataset = load(given.format, given.annotations, given.images, cache=cache, rebuild=rebuild, **given.options)
            for record in dataset:
                assert ".." not in PurePosixPath(record.image).parts and not record.image.startswith("/")
                assert np.isfinite(record.boxes).all()
                assert all(text.strip() for _, text in record.turns)
            assert dataset.report() and sum(dataset.problems.counts().values()) == len(list(dataset.problems))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MADE, *WORLD])
def test_a_damaged_annotation_file(name: str, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("case")
    given = MADE[name](folder) if name in MADE else of_world(name, tiny_world)
    targets = {"annotations": given.annotations}
    targets |= {key: given.options[key] for key in ("instances", "image_data") if key in given.options}
    contents = {key: content_of(file) for key, file in targets.items()}
    copies = {key: folder / f"damaged {file.name}" for key, file in targets.items()}
    options = {**given.options, **{key: file for key, file in copies.items() if key != "annotations"}}
    given = given._replace(annotations=copies["annotations"], options=options)

    @cases
    def case(rng: random.Random) -> None:
        victim = rng.choice(list(targets))
        for key, file in copies.items():
            if key == victim:
                damage(file, contents[key], rng)
            else:
                file.write_bytes(
                    pickle.dumps(contents[key]) if file.suffix in PICKLES else written(contents[key], NO_DAMAGE)
                )
        check(given, folder / "cache")

    case()


class _NoDamage(random.Random):
    def random(self) -> float:
        return 0.5


NO_DAMAGE = _NoDamage()


def test_a_damaged_metadata_file_of_vcr(tmp_path: Path) -> None:
    given = files.vcr(tmp_path)
    file = given.images / "lsmdc_1" / "1_A@0.json"
    content = json.loads(file.read_text())

    @cases
    def case(rng: random.Random) -> None:
        file.write_bytes(written(mutated(content, rng), rng))
        check(given, tmp_path / "cache")

    case()


@pytest.mark.parametrize("kind", ["pkl", "npz", "parquet"])
def test_a_damaged_file_of_detections(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"detected.{kind}"
    names = ["a.jpg", "b/c.jpg", "d.jpg"]
    rows = [np.random.default_rng(k).random((k, 5)) for k in range(3)]

    @cases
    def case(rng: random.Random) -> None:
        given = [rng.choice((rows[k], mutated(rows[k].tolist(), rng))) for k in range(3)]
        if kind == "pkl":
            entries = [{"filename": name, "pred_bboxes": one} for name, one in zip(names, given, strict=True)]
            file.write_bytes(pickle.dumps(mutated(entries, rng), protocol=rng.randrange(6)))
        elif kind == "npz":
            arrays = {
                "filename": names,
                "offsets": mutated([0, 0, 1, 3], rng),
                "pred_bboxes": np.concatenate(rows).tolist(),
                "labels": mutated([0, 1, 2], rng),
            }
            arrays = mutated(arrays, rng)
            try:
                np.savez(file, **{key: np.array(value) for key, value in arrays.items()})
            except (ValueError, TypeError, OverflowError, UnicodeError):  # no array can be made of it
                return
        else:
            table = {"filename": mutated(names, rng), "pred_bboxes": mutated([one.tolist() for one in rows], rng)}
            try:
                pyarrow.parquet.write_table(pyarrow.table(table), file)
            except (pyarrow.ArrowException, ValueError, TypeError, OverflowError):
                return
        if rng.random() < 0.5:
            file.write_bytes(garbled(file.read_bytes(), rng))
        with ends_well():
            problems = Problems()
            found = read_detections(file, problems)
            assert all(len(each) % (6 * 8) == 0 for each in found.values())  # whole rows of float64
            assert problems.table()

    case()


def test_a_damaged_pickle(tmp_path: Path) -> None:
    file = tmp_path / "a.p"
    content = [{"a": [1, 2.5, "é", None], "b": np.arange(6.0).reshape(2, 3), "c": (True, b"x", {1, 2})}] * 2

    @cases
    def case(rng: random.Random) -> None:
        file.write_bytes(garbled(pickle.dumps(content, protocol=rng.randrange(6)), rng))
        with ends_well():
            read_pickle(file, arrays=rng.random() < 0.8)

    case()


def test_a_damaged_index(tmp_path: Path) -> None:
    given = files.refcoco(tmp_path)
    dataset = load(given.format, given.annotations, given.images, cache=tmp_path / "cache")
    contents = {
        name: (dataset.index.folder / name).read_bytes() for name in (index_module.ANNOTATIONS, index_module.MANIFEST)
    }

    @cases
    def case(rng: random.Random) -> None:
        victim = rng.choice(list(contents))
        for name, data in contents.items():
            file = dataset.index.folder / name
            file.unlink()  # another file: the former may still be mapped
            file.write_bytes(garbled(data, rng) if name == victim else data)
        with ends_well():
            index = Index(dataset.index.folder)
            for row in range(min(len(index), 10)):
                assert index[row].boxes.shape[1] == 4
            Folder(tmp_path).unusable(index.images())

    case()
