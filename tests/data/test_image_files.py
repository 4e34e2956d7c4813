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
    root = files.image_files(tmp_path / "images", "a.jpg", "below/b.jpg")
    files.image_files(tmp_path / "elsewhere", "c.jpg", "d.jpg")
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
    "folder/d.jpg": OUTSIDE_FOLDER,
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
    assert "name the folder of the files themselves" in found["outside.jpg"].detail
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


def test_links_may_lead_to_other_folders_that_are_named(folder: Path, tmp_path: Path) -> None:
    both = Folder(folder, [tmp_path / "elsewhere"])
    assert not both.unusable(["a.jpg", "outside.jpg", "folder/c.jpg", "folder/d.jpg"])
    assert both.file("folder/c.jpg") == folder / "folder" / "c.jpg"
    (folder / "third").symlink_to(files.image_files(tmp_path / "third", "e.jpg"))
    assert both.unusable(["third/e.jpg", "nowhere.jpg"]).keys() == {"third/e.jpg", "nowhere.jpg"}


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_a_snapshot_of_the_hub_may_be_named(kind: str, tmp_path: Path) -> None:
    place = tmp_path / f"{kind}--one--set"
    snapshot = place / "snapshots" / "0123abcd"
    files.image_files(place / "blobs", "aa.jpg", "bb.jpg")
    files.image_files(tmp_path, "other.jpg")
    (snapshot / "below").mkdir(parents=True)
    (snapshot / "a.jpg").symlink_to("../../blobs/aa.jpg")
    (snapshot / "below" / "b.jpg").symlink_to("../../../blobs/bb.jpg")
    (snapshot / "c.jpg").symlink_to("../../../other.jpg")
    assert Folder(snapshot).unusable(["a.jpg", "below/b.jpg", "c.jpg"]).keys() == {"c.jpg"}
    assert not Folder(snapshot / "below").unusable(["b.jpg"])
    (place / "blobs").rename(tmp_path / "blobs")
    (place / "blobs").symlink_to(tmp_path / "blobs")
    assert Folder(snapshot).unusable(["a.jpg"])["a.jpg"].reason == OUTSIDE_FOLDER  # that may be anybody's
    place.rename(tmp_path / "set")
    assert Folder(tmp_path / "set" / "snapshots" / "0123abcd").unusable(["a.jpg"])


def test_only_wanted_files_are_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

        def is_file(self, **options: bool) -> bool:
            asked.append(self.name)
            return True

    root = files.image_files(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg")
    listed = {name: Entry(name) for name in ("a.jpg", "b.jpg", "c.jpg")}
    monkeypatch.setattr(Folder, "_listing", lambda self, folder: listed)
    assert not Folder(root).unusable(["a.jpg", "b.jpg"])
    assert "c.jpg" not in asked


def test_links_out_of_the_folder_are_read_where_they_lead_if_that_is_named(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for given in (files.coco(tmp_path / "coco"), files.llava(tmp_path / "llava"), files.vcr(tmp_path / "vcr")):
        whole = load(given.format, given.annotations, given.images, cache=cache, **given.options)
        farm = tmp_path / "farm" / given.format
        farm.mkdir(parents=True)
        for path in given.images.iterdir():
            (farm / path.name).symlink_to(path)
        refused = load(given.format, given.annotations, farm, cache=cache, **given.options)
        assert not len(refused) and "also=" in refused.report()
        for also in (given.images, [tmp_path / "farm", str(given.images)]):
            linked = load(given.format, given.annotations, farm, also=also, cache=cache, **given.options)
            assert [record.boxes.tolist() for record in linked] == [record.boxes.tolist() for record in whole]
            assert not linked.problems.counts() and len(linked)
    with pytest.raises(NotADirectoryError, match="also must name folders"):
        load("coco", given.annotations, farm, also=given.annotations, cache=cache)
    with pytest.raises(FileNotFoundError, match="there is no 'none'"):
        load("coco", given.annotations, farm, also=["none"], cache=cache)


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
