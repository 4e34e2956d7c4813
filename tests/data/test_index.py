"""The index: made once, made anew when a file changes, shared by workers."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import annotation_files as files
import pytest
from annotation_files import Given
from torch.utils.data import DataLoader

from gpt4roi_nb.data import Record, RegionDataset, load
from gpt4roi_nb.data import index as index_module


def opened(given: Given, **more: Any) -> RegionDataset:
    cache = given.annotations.parent / "cache"
    return load(given.format, given.annotations, given.images, cache=cache, **{**given.options, **more})


@pytest.fixture
def many(tmp_path: Path) -> Given:
    """5,000 records, more than two batches."""
    images = [files.image_entry(k, "1.jpg") for k in range(5000)]
    annotations = [{"id": k, "image_id": k, "bbox": [k % 50, 1, 9, 9], "category_id": 1} for k in range(5000)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
    return Given("coco", files.write(tmp_path / "i.json", content), files.image_files(tmp_path / "images", "1.jpg"), {})


def test_records_are_read_by_number_in_the_files_order(many: Given) -> None:
    dataset = opened(many)
    assert len(dataset) == 5000
    for number in (0, 2047, 2048, 4095, 4096, 4999, -1):
        assert dataset[number].id == str(number % 5000)
        assert dataset[number].boxes[0, 0] == number % 5000 % 50
    with pytest.raises(IndexError, match="5000"):
        dataset[5000]
    dataset[0].boxes[:] = 7  # a copy: the index stays as it is
    assert dataset[0].boxes[0, 1] == 1


def test_the_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = files.refcoco(tmp_path)
    assert len(opened(given)) == 2
    built = []
    build = index_module._build
    monkeypatch.setattr(index_module, "_build", lambda *given: (built.append(1), build(*given)))
    opened(given)
    opened(given, seed=5)
    assert not built
    content = json.loads(given.annotations.read_text())
    content["images"].append(files.image_entry(2, content["images"][0]["file_name"], caption="third"))
    content["annotations"].append({"id": 2, "image_id": 2, "bbox": [0, 0, 9, 9]})
    given.annotations.write_text(json.dumps(content))
    assert len(opened(given)) == 3
    os.utime(given.annotations, ns=(1, 1))
    opened(given)
    assert len(built) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 1  # what no longer holds is gone
    opened(given, rebuild=True)
    monkeypatch.setattr(index_module, "VERSION", index_module.VERSION + 1)
    opened(given)
    assert len(built) == 4


def test_other_options_are_another_index(tmp_path: Path) -> None:
    given = files.vcr(tmp_path)
    sizes = {rendering: len(opened(given, rendering=rendering)) for rendering in ("all", "single", "several", "choice")}
    assert sizes == {"all": 2, "single": 1, "several": 2, "choice": 4}
    assert len(list((tmp_path / "cache").iterdir())) == 4
    given = files.unc_refs(tmp_path / "unc")
    assert len(opened(given)) == 2
    instances = given.options["instances"]
    instances.write_text(instances.read_text().replace("581857,", "581858,"))
    assert len(opened(given)) == 0  # a second file counts too


def test_an_interrupted_build_leaves_nothing_that_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = files.coco(tmp_path)

    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(index_module, "write_json", interrupted)
        opened(given)
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(opened(given)) == 1


@pytest.mark.slow
def test_two_processes_may_make_the_same_index(tmp_path: Path) -> None:
    given = files.coco(tmp_path)
    script = "import sys; from gpt4roi_nb.data import load; print(len(load('coco', sys.argv[1], cache=sys.argv[2])))"
    command = [sys.executable, "-c", script, str(given.annotations), str(tmp_path / "cache")]
    root = Path(__file__).parents[2]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["1", "1"]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_an_index_that_another_process_made_meanwhile_is_kept(tmp_path: Path) -> None:
    given = files.coco(tmp_path)
    dataset = opened(given)
    folder = dataset.index.folder
    stamp = (folder / index_module.MANIFEST).stat().st_ino
    index_module._build(folder, '"coco"', lambda problems: [dataset.annotation(0)], False, False)
    assert (folder / index_module.MANIFEST).stat().st_ino == stamp
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def as_is(records: list[Record]) -> list[Record]:
    return records


def test_a_pickled_data_set_is_small_whatever_its_size(many: Given) -> None:
    dataset = opened(many)
    dataset[4000]
    data = pickle.dumps(dataset)
    assert len(data) < 4000
    assert pickle.loads(data)[4000] == dataset[4000]


@pytest.mark.slow
def test_workers_read_the_same_records(many: Given) -> None:
    dataset = opened(many)
    loader = DataLoader(dataset, batch_size=500, num_workers=2, collate_fn=as_is)  # type: ignore[arg-type]
    assert [record for batch in loader for record in batch] == list(dataset)


@pytest.mark.slow
def test_workers_share_the_index_in_memory(tmp_path: Path) -> None:
    """What a worker holds for itself does not grow with the index, which is mapped from a file."""
    words = "word " * 400
    images = [files.image_entry(k, "1.jpg", caption=f"{k} {words}") for k in range(20_000)]
    annotations = [{"id": k, "image_id": k, "bbox": [1, 1, 9, 9]} for k in range(20_000)]
    file = files.write(tmp_path / "r.json", {"images": images, "annotations": annotations})
    load("refcoco", file, cache=tmp_path / "cache")
    script = (
        "import sys; import psutil, pyarrow; from gpt4roi_nb.data import load\n"
        "parts = lambda: psutil.Process().memory_maps()\n"
        "mapped = lambda: sum(part.rss for part in parts() if part.path.endswith('annotations.arrow'))\n"
        "own = lambda: sum(part.private_dirty for part in parts() if not part.path.endswith('annotations.arrow'))\n"
        "dataset = load('refcoco', sys.argv[1], cache=sys.argv[2]); dataset[0]; before = own()\n"
        "for number in range(0, len(dataset), 7): dataset[number]\n"
        "print(own() - before, mapped(), int('pandas' in sys.modules))\n"
    )
    command = [sys.executable, "-c", script, str(file), str(tmp_path / "cache")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    grown, mapped, pandas = map(int, result.stdout.split())
    arrow = next((tmp_path / "cache").glob("*/annotations.arrow")).stat().st_size
    assert arrow > 40e6
    assert grown < 5e6
    assert not pandas  # a second to import, and 60 MB in each worker
    assert mapped > 20e6  # it was read through the map


def test_mistakes_of_the_caller_are_told(tmp_path: Path) -> None:
    given = files.coco(tmp_path)
    with pytest.raises(ValueError, match="'flickr30k'"):
        load("cocoo", given.annotations)
    with pytest.raises(ValueError, match="has no option 'rendering'; it has name"):
        opened(given, rendering="all")
    with pytest.raises(FileNotFoundError, match="check the path"):
        load("coco", tmp_path / "none.json")
    with pytest.raises(FileNotFoundError, match="no_folder"):
        load("coco", given.annotations, tmp_path / "no_folder")
    dataset = load("coco", given.annotations, cache=tmp_path)
    with pytest.raises(ValueError, match="image folder"):
        dataset.read(0)


@pytest.mark.parametrize("name", [index_module.ANNOTATIONS, index_module.MANIFEST])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"{}",
        lambda data: data.replace(b'"rows": 2', b'"rows": 3').replace(b"ARROW1", b"ARROW2"),
    ],
)
def test_a_damaged_index_says_which_file_and_what_to_do(name: str, damage: Any, tmp_path: Path) -> None:
    given = files.refcoco(tmp_path)
    file = opened(given).index.folder / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=rf"the index is damaged: .*{name}.*rebuild=True"):
        opened(given)
    assert len(opened(given, rebuild=True)) == len(opened(given)) == 2
