"""A batch is what the model takes: padded on the right, boxes in the order of their tokens, answers labelled."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb.data import collate
from gpt4roi_nb.data.augmentation import augment, augment_as_published
from gpt4roi_nb.data.collate import Collator
from gpt4roi_nb.data.problems import BadRecord, Problems
from gpt4roi_nb.data.record import Record
from gpt4roi_nb.images import load_image
from gpt4roi_nb.prompt import IGNORE

BOXES = np.array([[0, 0, 32, 24], [32, 24, 64, 48]], dtype=np.float32)
SHORT = (("user", "What is <region1>?"), ("assistant", "a cup"))
LONG = (
    ("user", "Is <region2> like <region1>?"),
    ("assistant", "no, region2 is a cone"),
    ("user", "Why is that so?"),
    ("assistant", "who knows"),
)


@pytest.fixture(scope="module")
def processor():
    return tiny_gpt4roi().processor


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(tiny_image()).save(tmp_path / "a.png")
    return tmp_path


def record(turns, boxes, source="vg") -> Record:
    return Record("a.png", boxes, turns, source, "7")


def test_a_batch_is_what_the_model_takes(processor, folder):
    batch = Collator(processor, folder)([record(SHORT, BOXES[:1]), record(LONG, BOXES)])
    assert batch["pixel_values"].shape[0] == 2 and batch["ids"] == ["7", "7"] and batch["sources"] == ["vg", "vg"]
    mask = batch["attention_mask"]
    assert mask[0, 0] == 1 and mask[0, -1] == 0 and mask[1].all()
    torch.testing.assert_close(batch["boxes"][0], torch.tensor([[0, 0, 0.5, 0.5]]))
    torch.testing.assert_close(
        batch["boxes"][1], torch.tensor([[0.5, 0.5, 1, 1], [0, 0, 0.5, 0.5]])
    )  # as they are named
    for row, turns in enumerate((SHORT, LONG)):
        expected = processor.conversation(turns)
        length = len(expected["input_ids"])
        assert batch["input_ids"][row, :length].equal(expected["input_ids"])
        assert batch["labels"][row, :length].equal(expected["labels"])
        assert (batch["labels"][row, length:] == IGNORE).all()


def test_a_long_conversation_loses_its_last_questions(processor, folder):
    first = processor.conversation(LONG[:2])["input_ids"]
    batch = Collator(processor, folder, max_length=len(first))([record(LONG, BOXES)])
    assert batch["input_ids"][0].equal(first)
    with pytest.raises(BadRecord, match=r"too long: its first question and answer have .* \(vg: record 7, a\.png\)"):
        Collator(processor, folder, max_length=len(first) - 1)([record(LONG, BOXES)])


def test_each_source_may_have_its_folder(processor, folder):
    collator = Collator(processor, {"vg": folder, "coco": folder / "absent"})
    collator([record(SHORT, BOXES[:1])])
    with pytest.raises(BadRecord, match="no such image"):
        collator([record(SHORT, BOXES[:1], "coco")])
    with pytest.raises(ValueError, match="no folder for the source 'flickr'; it names folders for vg, coco"):
        collator([record(SHORT, BOXES[:1], "flickr")])


def test_nothing_outside_the_folder_is_opened(processor, folder, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Image.fromarray(tiny_image()).save(elsewhere / "b.png")
    (folder / "link.png").symlink_to(elsewhere / "b.png")
    (folder / "below").symlink_to(elsewhere)
    (folder / "inside.png").symlink_to("a.png")
    outside = ["link.png", "below/b.png", f"../{elsewhere.name}/b.png", str(elsewhere / "b.png")]
    opened = []
    monkeypatch.setattr(collate, "load_image", lambda file: (opened.append(file), load_image(file))[1])
    monkeypatch.chdir(folder)
    for images in (folder, {"vg": folder}, "."):
        collator = Collator(processor, images, problems=Problems())
        assert all(collator.example(Record(name, BOXES[:1], SHORT, "vg", name)) is None for name in outside)
        assert collator.problems.counts() == {"path leaves its folder": 4} and not opened
        with pytest.raises(BadRecord, match="path leaves its folder"):
            collator.path_of(Record("link.png", BOXES[:1], SHORT, "vg", "7"))
    assert collator.example(Record("inside.png", BOXES[:1], SHORT, "vg", "7")) is not None
    whole = Collator(processor, None).example(Record(str(folder / "link.png"), BOXES[:1], SHORT, "vg", "7"))
    assert whole is not None and len(opened) == 2  # whoever gives whole paths has named the file


def test_links_may_lead_to_the_folders_that_are_named_as_well(processor, folder, tmp_path):
    (tmp_path / "mix").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "mix" / "below").symlink_to(folder)
    (tmp_path / "mix" / "link.png").symlink_to(folder / "a.png")
    given = [Record(name, BOXES[:1], SHORT, "vg", "7") for name in ("link.png", "below/a.png")]
    for images in (tmp_path / "mix", {"vg": tmp_path / "mix"}):
        for also in (folder, str(folder), [tmp_path / "other", folder]):
            assert Collator(processor, images, also=also)(given)["ids"] == ["7", "7"]
        for also in ((), tmp_path / "other"):
            with pytest.raises(BadRecord, match=r"path leaves its folder: .*also=… of load or train"):
                Collator(processor, images, also=also)(given[:1])
    with pytest.raises(ValueError, match="also names folders that links in images lead to, but images is None"):
        Collator(processor, None, also=folder)
    with pytest.raises(NotADirectoryError, match="also must name folders"):
        Collator(processor, folder, also=folder / "a.png")
    with pytest.raises(FileNotFoundError, match=r"there is no 'none' in .*, which also names"):
        Collator(processor, folder, also=["none"])


def test_what_cannot_be_used_keeps_its_row_and_teaches_nothing(processor, folder):
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:200])
    good = record(SHORT, BOXES[:1])
    damaged = [
        Record("cut.png", BOXES[:1], SHORT, "vg", "1"),
        Record("absent.png", BOXES[:1], SHORT, "vg", "2"),
        record(SHORT, BOXES[1:] + 900),
        record((("user", "What is <region1>? " * 30), ("assistant", "a cup")), BOXES[:1]),
    ]
    problems = Problems()
    length = len(processor.conversation(SHORT)["input_ids"])
    collator = Collator(processor, folder, max_length=length + 5, problems=problems)
    batch = collator([damaged[0], good, *damaged[1:]])
    alone = collator([good])
    assert batch["input_ids"][1, :length].equal(alone["input_ids"][0])
    assert batch["pixel_values"].shape[0] == 5 and batch["pixel_values"][1].equal(alone["pixel_values"][0])
    assert (batch["labels"][[0, 2, 3, 4]] == IGNORE).all() and (batch["labels"][1] != IGNORE).any()
    assert problems.counts() == {
        "image cannot be read": 1,
        "no such image": 1,
        "box outside the image": 1,
        "too long": 1,
    }
    assert "vg: record 1, cut.png" in problems.table()
    with pytest.raises(BadRecord, match=r"image cannot be read: .*cut\.png"):
        Collator(processor, folder, problems=Problems(strict=True))(damaged)


def test_images_are_moved_by_chance_that_the_epoch_decides(processor, folder):
    collator = Collator(processor, folder, augment="mild", seed=3)
    one, again = (collator([record(SHORT, BOXES[:1])]) for _ in range(2))
    assert one["pixel_values"].equal(again["pixel_values"])
    moved, changed = augment(Image.open(folder / "a.png"), record(SHORT, BOXES[:1]), 3, epoch=1)
    collator.epoch = 1
    other = collator([record(SHORT, BOXES[:1])])
    assert other["pixel_values"][0].equal(processor.image_processor.pixels(moved))
    assert not other["pixel_values"].equal(one["pixel_values"])
    torch.testing.assert_close(other["boxes"][0][0] * torch.tensor([64, 48, 64, 48]), torch.tensor(changed.boxes[0]))


def test_augmentation_is_a_choice_for_each_source(processor, folder):
    collator = Collator(processor, folder, augment={"coco": "published"})
    named, other = (dataclasses.replace(record(SHORT, BOXES[:1]), source=source) for source in ("coco", "vg"))
    changed = 0
    for collator.epoch in range(6):
        expected, _ = augment_as_published(Image.open(folder / "a.png"), named, 0, epoch=collator.epoch)
        assert collator([named])["pixel_values"][0].equal(processor.image_processor.pixels(expected))
        whole = collator([other])["pixel_values"][0]
        assert whole.equal(processor.image_processor.pixels(Image.open(folder / "a.png")))
        changed += not whole.equal(processor.image_processor.pixels(expected))
    assert 1 <= changed <= 6
