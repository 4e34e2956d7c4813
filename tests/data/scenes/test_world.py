"""A world on disk: the same bytes for the same seed, whole or not there, and true to its scenes."""

import errno
import fcntl
import functools
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpt4roi_nb.data.scenes import __main__ as command
from gpt4roi_nb.data.scenes.formats import write
from gpt4roi_nb.data.scenes.formats.files import png
from gpt4roi_nb.data.scenes.formats.masks import polygons, run_lengths
from gpt4roi_nb.data.scenes.formats.write import FILES, write_world
from gpt4roi_nb.data.scenes.scene import Scene
from gpt4roi_nb.data.scenes.workers import worker_processes


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "SHARD", 4)
    monkeypatch.setattr(write, "MANY", 2)  # the processes trace the solids together
    folders = [
        write_world(tmp_path / f"with{workers}", 10, seed=3, size=168, workers=workers, progress=False)
        for workers in (0, 2)
    ]
    one, two = map(digests, folders)
    assert one == two
    other = digests(write_world(tmp_path / "other", 10, seed=4, size=168, progress=False))
    assert one.keys() == other.keys()
    assert one["images/000000000001.jpg"] != other["images/000000000001.jpg"]


@pytest.mark.slow
def test_a_script_that_every_worker_would_run_again_ends_with_words(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from gpt4roi_nb.data.scenes.formats.write import write_world\n"
        f"write_world({str(tmp_path / 'world')!r}, 2, size=64, workers=1, progress=False)\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1
    assert "if __name__ == '__main__':" in ended.stderr.splitlines()[-1]


@pytest.mark.slow
def test_every_annotation_file_is_there_and_counted(world: Path, read: Any) -> None:
    summary = read("world.json")
    assert (summary["seed"], summary["images"]) == (7, 40)
    assert set(summary["versions"]) == {"gpt4roi_nb", "numpy", "pillow", "pyarrow"}
    for file in FILES:
        assert (world / file.path).stat().st_size > 2, file.path
    assert summary["records"]["objects.jsonl"]["records"] == 40
    assert not list(world.rglob(".spools"))


def test_masks_boxes_and_facts_are_the_scenes(world: Path, read: Any, drawn: dict[int, Scene]) -> None:
    for number, record in enumerate(read("objects.jsonl"), start=1):
        scene = drawn[number]
        assert record["seed"] == scene.seed
        owners = np.asarray(Image.open(world / record["mask"]))
        assert np.array_equal(owners == np.arange(1, len(scene.objects) + 1)[:, None, None], scene.masks)
        for k, (thing, fact) in enumerate(zip(scene.objects, record["objects"], strict=True)):
            assert fact == json.loads(json.dumps(vars(thing)))
            rows, cols = np.nonzero(owners == k + 1)
            assert fact["box"] == [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]


@pytest.mark.slow
def test_images_are_the_scenes_as_good_as_unchanged(world: Path, drawn: dict[int, Scene]) -> None:
    for number, scene in drawn.items():
        written = np.asarray(Image.open(world / "images" / f"{number:012d}.jpg"))
        assert np.abs(written.astype(int) - scene.image).mean() < 3


def test_every_tenth_image_is_for_validation(read: Any) -> None:
    splits = [record["split"] for record in read("objects.jsonl")]
    assert [number for number, split in enumerate(splits, start=1) if split == "val"] == [1, 11, 21, 31]


def test_an_image_under_another_name_takes_no_space(world: Path) -> None:
    image_file = world / "images" / "000000000005.jpg"
    names = (
        "coco/train2017/000000000005.jpg",
        "coco/train2014/COCO_train2014_000000000005.jpg",
        "vg/VG_100K/5.jpg",
        "flickr30k/flickr30k-images/5.jpg",
        "vcr/vcr1images/generated_0000/generated_0000_000000000005@0.jpg",
    )
    for name in names:
        assert (world / name).samefile(image_file)


def test_without_hard_links_a_copy_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    folder = write_world(tmp_path / "world", 2, size=64, progress=False)
    moved = folder.rename(tmp_path / "moved")
    image_file = moved / "coco" / "val2017" / "000000000001.jpg"
    with Image.open(image_file) as image:
        assert image.size == (64, 64)
    assert not image_file.is_symlink()  # the loaders would refuse what leads out of its folder


def test_a_folder_that_is_there_is_never_written_into(world: Path) -> None:
    with pytest.raises(FileExistsError, match="exists already"):
        write_world(world, 2, progress=False)


def test_a_folder_that_is_no_part_of_this_world_is_not_touched(tmp_path: Path) -> None:
    part = tmp_path / "world.part"
    part.mkdir()
    (part / "mine.txt").write_text("kept")
    with pytest.raises(FileExistsError, match="is not an interrupted world"):
        write_world(tmp_path / "world", 2, size=64, progress=False)
    assert (part / "mine.txt").read_text() == "kept"


KILLED = """
import os, signal, sys
from gpt4roi_nb.data.scenes.formats import write
write.SHARD = 2
real, seen = write.added_by, []
def added_by(one):
    seen.append(one)
    if len(seen) == 6:  # in the middle of the third shard, with one of its images written
        os.kill(os.getpid(), signal.SIGKILL)
    return real(one)
write.added_by = added_by
write.write_world(sys.argv[1], 9, seed=4, size=64, progress=False)
"""


@pytest.mark.slow
def test_a_killed_run_is_taken_up_and_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "SHARD", 2)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "world")], check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "world").exists()
    with pytest.raises(FileExistsError, match=r"part of another world: images, seed differ"):
        write_world(tmp_path / "world", 8, seed=5, size=64, progress=False)
    drawn: list[int] = []
    real = write.added_by
    monkeypatch.setattr(write, "added_by", lambda one: drawn.append(one.number) or real(one))
    write_world(tmp_path / "world", 9, seed=4, size=64, progress=False)
    assert drawn == [5, 6, 7, 8, 9]
    write_world(tmp_path / "whole", 9, seed=4, size=64, progress=False)
    assert digests(tmp_path / "world") == digests(tmp_path / "whole")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_ends_the_command_and_its_processes(tmp_path: Path, times: int) -> None:
    """As from a terminal, which sends it to all of them.

    A second one, from an impatient hand, may meet the command while it ends; then Python's own words may be the last.
    """
    words = ["scenes", str(tmp_path / "world"), "--images", "20000", "--size", "64", "--workers", "2"]
    command = [sys.executable, "-m", "gpt4roi_nb", *words]
    # Tests that a shell runs in the background ignore the signal, and would pass that on.
    heeded = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heeded
    ) as running:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("world.part/.shards/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        for _ in range(times):
            os.killpg(running.pid, signal.SIGINT)
        try:
            _, said = running.communicate(timeout=60)
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode not in (0, -signal.SIGKILL)
    if times == 1:
        assert running.returncode == 130 and "KeyboardInterrupt" not in said, said
        assert said.endswith("scenes: interrupted; the same call continues from there\n")


def test_an_interrupt_that_reaches_the_processes_first_is_one_all_the_same() -> None:
    """As on a busy machine: the first sign of it is that they have ended."""

    def interrupted() -> None:
        with worker_processes(1):
            late = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
            late.start()
            raise BrokenProcessPool("a process was terminated abruptly")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests run side by side ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.signal(signal.SIGINT, before)


def test_two_runs_do_not_write_the_same_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = write.added_by

    def second(one: object) -> object:
        monkeypatch.setattr(write, "added_by", real)
        with pytest.raises(FileExistsError, match=r"another run is writing to .*world\.part"):
            write_world(tmp_path / "world", 2, size=64, progress=False)
        return real(one)

    monkeypatch.setattr(write, "added_by", second)
    assert (write_world(tmp_path / "world", 2, size=64, progress=False) / "world.json").is_file()


def test_where_no_folder_can_be_locked_a_world_is_written_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match=r"world\.part' cannot be locked"):
        assert write_world(tmp_path / "world", 2, size=64, progress=False).is_dir()


def test_an_interrupt_keeps_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(write, "added_by", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_world(tmp_path / "world", 2, size=64, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["world.part"]
    assert write_world(tmp_path / "world", 2, size=64, progress=False).is_dir()


def test_too_little_disk_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(OSError, match=r"about .* GB.*fewer or smaller images"):
        write_world(tmp_path / "world", 20_000, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "word"), [({"images": 1}, "images"), ({"n_objects": (1, 3)}, "n_objects"), ({"size": 8}, "size")]
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, Any], word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        write_world(tmp_path / "world", **({"images": 2, "progress": False} | wrong))
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "world")
    monkeypatch.setattr("sys.argv", ["scenes", out, "--images", "2", "--seed", "5", "--size", "64", "--workers", "0"])
    assert command.main() == 0
    assert "2 images" in capsys.readouterr().out
    assert command.main() == 1
    assert "exists already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shape", "dtype", "mode"), [((5, 7), "uint8", "L"), ((5, 7), "uint16", "I;16"), ((1, 3, 3), "uint8", "RGB")]
)
def test_pillow_reads_the_pngs_of_labels(shape: tuple[int, ...], dtype: str, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    with Image.open(io.BytesIO(png(pixels))) as image:
        assert image.mode == mode
        assert np.array_equal(np.asarray(image), pixels)


def disc_with_holes() -> np.ndarray:
    y, x = np.mgrid[:30, :40]
    mask = (x - 15) ** 2 + (y - 15) ** 2 < 140
    mask &= (x - 12) ** 2 + (y - 13) ** 2 > 12
    mask[20:23, 17:20] = False
    mask[3:9, 30:36] = True  # a second part, with a hole of its own, and a pixel that touches it by a corner
    mask[5:7, 32:34] = False
    mask[9, 36] = True
    return mask


@pytest.mark.parametrize("seed", range(6))
def test_polygons_and_run_lengths_give_back_every_pixel(seed: int) -> None:
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(seed)
    mask = disc_with_holes() if seed == 0 else np.kron(rng.random((9, 11)) < 0.5, np.ones((3, 2))).astype(bool)
    height, width = mask.shape
    found = coco_mask.merge(coco_mask.frPyObjects(polygons(mask), height, width))
    assert np.array_equal(coco_mask.decode(found), mask)
    lengths = run_lengths(mask)
    assert np.array_equal(coco_mask.decode(coco_mask.frPyObjects(lengths, height, width)), mask)


def test_each_part_of_a_mask_is_one_polygon_and_an_empty_mask_has_none() -> None:
    assert len(polygons(disc_with_holes())) == 3
    assert polygons(np.zeros((4, 4), bool)) == []
    assert polygons(np.ones((2, 3), bool)) == [[0, 0, 3, 0, 3, 2, 0, 2]]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"seed": 1.5}, TypeError),
        ({"seed": True}, TypeError),
        ({"seed": -1}, ValueError),
        ({"workers": 1.5}, TypeError),
        ({"workers": -1}, ValueError),
    ],
)
def test_a_seed_or_workers_that_cannot_be_are_named(tmp_path: Path, arguments: dict[str, Any], error: Any) -> None:
    (name,) = arguments
    with pytest.raises(error, match=f"{name} must be "):
        write_world(tmp_path / "world", 2, **arguments)
    assert not list(tmp_path.iterdir())
