"""A batch is what the model takes: padded on the right, boxes in the order of their tokens, answers labelled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import picture, tiny_gpt4roi

from gpt4roi_nb.data.collate import Collator
from gpt4roi_nb.data.record import Record
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
    Image.fromarray(picture()).save(tmp_path / "a.png")
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
    with pytest.raises(ValueError, match=r"record '7' of vg has .* tokens in its first question"):
        Collator(processor, folder, max_length=len(first) - 1)([record(LONG, BOXES)])


def test_each_source_may_have_its_folder(processor, folder):
    collator = Collator(processor, {"vg": folder, "coco": folder / "absent"})
    collator([record(SHORT, BOXES[:1])])
    with pytest.raises(FileNotFoundError):
        collator([record(SHORT, BOXES[:1], "coco")])
    with pytest.raises(ValueError, match="no folder of images for the source 'flickr'; there are vg, coco"):
        collator([record(SHORT, BOXES[:1], "flickr")])
