"""Rows of token ids padded to one length, the mask that says which are real, and what rows have in common."""

import pytest
import torch

from gpt4roi_nb.inference.padding import common_length, mask_after, pad

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("side", "ids", "mask"),
    [
        ("left", [[7, 8, 9], [2, 2, 5]], [[1, 1, 1], [0, 0, 1]]),
        ("right", [[7, 8, 9], [5, 2, 2]], [[1, 1, 1], [1, 0, 0]]),
    ],
)
def test_rows_are_padded_on_the_side_that_is_asked_for(side, ids, mask):
    found, known = pad([(7, 8, 9), [5]], CPU, side=side, value=2)
    assert found.tolist() == ids and known.tolist() == mask
    assert found.dtype == known.dtype == torch.int64


def test_a_mask_knows_the_opening_and_is_left_out_without_padding():
    _, known = pad([[7, 8], [5]], CPU, side="left")
    assert mask_after(2, known).tolist() == [[1, 1, 1, 1], [1, 1, 0, 1]]
    assert mask_after(2, pad([[7, 8], [5, 6]], CPU, side="left")[1]) is None


@pytest.mark.parametrize(
    ("rows", "length"),
    [([[1, 2, 3]], 3), ([[1, 2, 3], [1, 2]], 2), ([(1, 2, 3), (1, 5, 3)], 1), ([[1], [2]], 0), ([[1, 2], []], 0)],
)
def test_what_all_rows_begin_with_is_counted(rows, length):
    assert common_length(rows) == length
