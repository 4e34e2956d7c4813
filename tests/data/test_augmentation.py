"""Mirroring and shifting: boxes follow, words stay true, and what cannot be made true is left alone."""

import numpy as np
import pytest
from PIL import Image

from gpt4roi_nb.data import Record, augment, instruction_texts
from gpt4roi_nb.data.augmentation import (
    PUBLISHED_PIXELS,
    PUBLISHED_SIDE,
    augment_as_published,
    may_be_mirrored,
    mirror,
    shift,
)
from gpt4roi_nb.data.protocol_texts import choice_question

BOX = (10, 12, 30, 28)


def record(answer: str = "a cat", box: tuple[float, ...] = BOX, number: int = 0) -> Record:
    turns = (("user", "What is <region1>?"), ("assistant", answer))
    return Record("1.jpg", np.array([box], np.float32), turns, "coco", str(number))


def an_image() -> Image.Image:
    """Grey, with the box in red."""
    pixels = np.full((60, 80, 3), 128, np.uint8)
    x1, y1, x2, y2 = BOX
    pixels[y1:y2, x1:x2] = (255, 0, 0)
    return Image.fromarray(pixels)


def red(image: Image.Image) -> list[float]:
    """Pixel xyxy of what is red."""
    rows, columns = np.nonzero(np.asarray(image)[:, :, 0] == 255)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize(
    ("said", "mirrored"),
    [
        ("a cat", "a cat"),
        ("left", "right"),
        ("left cow", "right cow"),
        ("the man on the left", "the man on the right"),
        ("Left side, the one on the RIGHT", "Right side, the one on the LEFT"),
        ("man on left", "man on right"),
        ("the woman on the left in a red dress", "the woman on the right in a red dress"),
        ("the man's left hand and the cat's right ear", "the man's right hand and the cat's left ear"),
        ("the cup is left of the plate", "the cup is right of the plate"),
        ("top right cow", "top left cow"),
        ("On the right is a cone, and to her left a ball.", "On the left is a cone, and to her right a ball."),
        ("leftmost zebra", "rightmost zebra"),
        ("giraffe to the right of the tree", "giraffe to the left of the tree"),
        ("bottom left corner", "bottom right corner"),
        ("holding it in her right hand", "holding it in her left hand"),
    ],
)
def test_left_and_right_are_exchanged_where_they_mean_sides(said: str, mirrored: str) -> None:
    assert may_be_mirrored(record(said))
    image, made = mirror(an_image(), record(said))
    assert made.turns[1][1] == mirrored
    assert made.boxes[0].tolist() == red(image) == [50, 12, 70, 28]
    assert may_be_mirrored(made) and mirror(image, made)[1] == record(said)


@pytest.mark.parametrize(
    "said",
    [
        "she has left the room",
        "that is right",
        "all right, yes",
        "the person who is right behind him",
        "nothing is left over",
        "they came at the right moment",
        "it takes the right balance and the right technique",
        "steering in the right direction",
        "a car that yields the right of way",
        "women won the right to vote",
        "he sat on the right chair by luck",
        "what is left of the pizza",
        "he left half of his lunch",
        "she holds it right side up",
        "Right away",
        "guy on rt",
        "<region1> left half of her sandwich",
        "the guests left most of the food",
        "only one slice left of the pizza",
        "her left-overs",
        "standing in front right next to him",
        "start on the right foot",
        "respect the right of pedestrians",
        "a ring on her left hand, so she is married",
        "cars keep to the left side of the road",
        "on the right side of history, in her own right",
        "left alone",
        "the sign says stop",
        'it reads "exit"',
        "number 23",
        "at 3 o'clock",
        "the clock on the wall",
        "the car in the wrong lane",
    ],
)
def test_what_would_not_be_true_of_a_mirror_image_is_not_mirrored(said: str) -> None:
    assert not may_be_mirrored(record(said))
    for seed in range(20):
        image, _ = augment(an_image(), record(said), seed, max_shift=0)
        assert red(image) == list(BOX)


def test_no_wording_of_this_package_keeps_an_image_from_being_mirrored() -> None:
    wordings = [
        wording.format(region="<region1>", regions="<region1>")
        for name, group in vars(instruction_texts).items()
        if name.isupper()
        for wording in (group if isinstance(group, tuple) else (group,))
    ]
    wordings += [
        choice_question(1, "Why?", ("a cat", "a dog", "a cow", "a cup"), answer)
        for answer in (None, "It <region1> sits.")
    ]
    assert len(wordings) > 80
    box = np.array([BOX], np.float32)
    for wording in wordings:
        turns = (("user", wording if "<region1>" in wording else f"<region1> {wording}"), ("assistant", "a cat"))
        assert may_be_mirrored(Record("1.jpg", box, turns, "coco", "1")), wording


def test_a_shift_moves_image_and_boxes_alike() -> None:
    image, made = shift(an_image(), record(), 4, -3)
    assert made.boxes[0].tolist() == red(image) == [14, 9, 34, 25]
    assert image.size == (80, 60)


def test_a_shift_that_would_cut_a_box_is_not_made() -> None:
    image, made = shift(an_image(), record(), -20, 0)
    assert made.boxes[0].tolist() == red(image) == list(BOX)


def test_augmenting_is_repeatable_varied_and_changes_no_input() -> None:
    given = [record(number=number) for number in range(60)]
    once = [augment(an_image(), one, 3) for one in given]
    again = [augment(an_image(), one, 3) for one in reversed(given)][::-1]
    assert [made for _, made in once] == [made for _, made in again]
    for image, made in once:
        assert made.boxes[0].tolist() == red(image)
    flipped = sum(made.boxes[0, 0] > 40 for _, made in once)
    assert 15 < flipped < 45
    assert len({tuple(made.boxes[0].tolist()) for _, made in once}) > 20
    assert all(one == record(number=number) for number, one in enumerate(given))


def test_an_image_without_regions_may_be_shifted() -> None:
    empty = Record("1.jpg", np.zeros((0, 4), np.float32), (("user", "What?"), ("assistant", "x")), "llava", "1")
    assert shift(an_image(), empty, 2, 2)[1].boxes.shape == (0, 4)


def test_as_published_half_are_flipped_and_half_shifted_by_up_to_32_pixels_of_224() -> None:
    given = [record("a stop sign", number=number) for number in range(200)]  # "mild" would not mirror a sign
    made = [augment_as_published(an_image(), one, 3) for one in given]
    boxes = np.array([one.boxes[0] for _, one in made])
    assert all(one.boxes[0].tolist() == red(image) for image, one in made)
    assert all(one.turns == given[0].turns for _, one in made)
    upright = np.array(BOX, np.float32)
    moved = np.array([not (np.allclose(box, upright) or np.allclose(box, (50, 12, 70, 28))) for box in boxes])
    assert 70 < moved.sum() < 130
    most = PUBLISHED_PIXELS / PUBLISHED_SIDE
    down = boxes[:, 1] - BOX[1]
    assert 0.8 * most * 60 < down.max() <= round(most * 60) and -round(most * 60) <= down.min() < -0.8 * most * 60
    still = boxes[~moved]
    assert 0.35 < np.isclose(still[:, 0], 50).mean() < 0.65
    black = [(np.asarray(image) == 0).all(axis=2).any() for image, _ in made]
    assert [bool(one) for one in black] == [bool(one) for one in moved]


def test_as_published_a_region_that_leaves_the_image_goes_with_its_turns() -> None:
    boxes = np.array([[0, 20, 4, 40], [30, 10, 60, 50], [76, 20, 80, 40]], np.float32)
    names = ("a cat", "a dog", "a cow")
    turns = tuple(
        turn for k, name in enumerate(names, 1) for turn in (("user", f"What is <region{k}>?"), ("assistant", name))
    )
    seen = set()
    for number in range(100):
        _, made = augment_as_published(an_image(), Record("1.jpg", boxes, turns, "coco", str(number)), 0)
        told = tuple(text for role, text in made.turns if role == "assistant")
        assert [text for role, text in made.turns if role == "user"] == [
            f"What is <region{k + 1}>?" for k in range(len(told))
        ]
        wide = dict(zip(told, (made.boxes[:, 2] - made.boxes[:, 0]).tolist(), strict=True))
        assert wide["a dog"] > 4 and all(width > 2 / 224 * 80 for width in wide.values())
        seen.add(told)
    assert seen == {names, names[:2], names[1:]}
    about_both = (("user", "Is <region1> beside <region2> and <region3>?"), ("assistant", "Yes."))
    for number in range(30):
        _, made = augment_as_published(an_image(), Record("1.jpg", boxes, about_both, "x", str(number)), 0)
        assert made.turns == about_both and len(made.boxes) == 3


def test_as_published_left_and_right_are_never_mirrored() -> None:
    for number in range(30):
        _, made = augment_as_published(an_image(), record("the left cat", number=number), 0)
        assert made.boxes[0, 0] < 40 and made.turns[1][1] == "the left cat"
