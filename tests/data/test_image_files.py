"""Nothing outside a named folder is read, and what is no image file is said."""

import os
from pathlib import Path

import annotation_files as files
import pytest

from gpt4roi_nb.data import BadRecord, load
from gpt4roi_nb.data.image_files import Folder, image_size
from gpt4roi_nb.data.problems import NO_IMAGE, OUTSIDE_FOLDER, UNREADABLE_IMAGE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images with links of all sorts, and one image outside of it."""
    root = files.pictures(tmp_path / "images", "a.jpg", "below/b.jpg")
    files.pictures(tmp_path / "elsewhere", "c.jpg")
    (root / "inside.jpg").symlink_to("below/b.jpg")
    (root / "outside.jpg").symlink_to(tmp_path / "elsewhere" / "c.jpg")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "other").symlink_to("below")
    (root / "nowhere.jpg").symlink_to("none.jpg")
    os.mkfifo(root / "pipe.jpg")
    return root


NAMES = {
    "a.jpg": "",
    "below/b.jpg": "",
    "inside.jpg": "",
    "other/b.jpg": "",
    "outside.jpg": OUTSIDE_FOLDER,
    "folder/c.jpg": OUTSIDE_FOLDER,
    "../elsewhere/c.jpg": OUTSIDE_FOLDER,
    "none.jpg": NO_IMAGE,
    "none/a.jpg": NO_IMAGE,
    "a.jpg/a.jpg": NO_IMAGE,
    "n" * 5000: NO_IMAGE,
    "nowhere.jpg": NO_IMAGE,
    "below": UNREADABLE_IMAGE,
    "pipe.jpg": UNREADABLE_IMAGE,
}


def test_what_can_be_used_lies_in_the_folder(folder: Path) -> None:
    found = Folder(folder).unusable(NAMES)
    assert {name: bad.reason for name, bad in found.items()} == {name: why for name, why in NAMES.items() if why}
    assert "name the folder that the files lie in" in found["outside.jpg"].detail
    assert "is a pipe" in found["pipe.jpg"].detail
    assert not Folder(folder).unusable(["below/b.jpg", "other/b.jpg", "below/b.jpg"])


@pytest.mark.parametrize("name", [name for name, why in NAMES.items() if why in ("", OUTSIDE_FOLDER)])
def test_a_file_is_found_only_in_the_folder(folder: Path, name: str) -> None:
    if NAMES[name]:
        with pytest.raises(BadRecord, match=OUTSIDE_FOLDER):
            Folder(folder).file(name)
    else:
        assert Folder(folder).file(name) == folder / name


def test_the_folder_may_itself_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert not Folder(tmp_path / "link").unusable(["a.jpg", "inside.jpg", "other/b.jpg"])
    assert Folder(tmp_path / "link").unusable(["outside.jpg"])


def test_records_of_images_outside_are_left_out_and_counted(tmp_path: Path) -> None:
    given = files.coco(tmp_path)
    (given.images / "000000000009.jpg").rename(tmp_path / "moved.jpg")
    (given.images / "000000000009.jpg").symlink_to(tmp_path / "moved.jpg")
    dataset = load("coco", given.annotations, given.images, cache=tmp_path / "cache")
    assert len(dataset) == 0 and dataset.problems.counts() == {OUTSIDE_FOLDER: 1}
    assert "hard links" in dataset.report()


def test_the_size_of_a_pipe_is_not_waited_for(folder: Path) -> None:
    with pytest.raises(BadRecord, match="is a pipe"):
        image_size(folder / "pipe.jpg")


def test_sizes_and_metadata_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    given = files.llava(tmp_path / "llava")
    name = "000000033471.jpg"
    (given.images / name).rename(tmp_path / name)
    (given.images / name).symlink_to(tmp_path / name)
    dataset = load("llava", given.annotations, given.images, cache=tmp_path / "cache", **given.options)
    assert dataset.problems.counts() == {OUTSIDE_FOLDER: 2}
    given = files.vcr(tmp_path / "vcr")
    metadata = given.images / "lsmdc_1" / "1_A@0.json"
    metadata.rename(tmp_path / "metadata.json")
    metadata.symlink_to(tmp_path / "metadata.json")
    dataset = load("vcr", given.annotations, given.images, cache=tmp_path / "cache")
    assert dataset.problems.counts() == {OUTSIDE_FOLDER: 2}
