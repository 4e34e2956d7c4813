"""The rules for kinds of error, each with an example that a person would agree with."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from gpt4roi_nb.data.protocol_texts import LETTERS
from gpt4roi_nb.failures import ERROR_KINDS, error_kinds

STAR, RING = [10.0, 10.0, 30.0, 30.0], [50.0, 50.0, 90.0, 90.0]
LONG = "there is a red star in the middle of the table and it lies in front of "


def row(answer: str, target: str = "a red star", **changes: Any) -> dict[str, Any]:
    plain = {
        "image": "one.png",
        "question": "What is <region1>?",
        "answer": answer,
        "target": target,
        "correct": False,
        "boxes": [STAR],
        "region": 1,
        "options": None,
        "mapped_sbert": None,
        "mapped_lexical": None,
    }
    return {**plain, **changes}


# What else the benchmark has: a ring in the same image, a cube in another.
OTHERS = [
    row("a blue ring", "a blue ring", boxes=[RING], correct=True),
    row("a green cube", "a green cube", image="two.png", correct=True),
]


def kind(answer: str, target: str = "a red star", **changes: Any) -> str:
    return error_kinds(pd.DataFrame([row(answer, target, **changes), *OTHERS]))[0]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", "format"),
        ("?!", "format"),
        ("What is region1?", "format"),
        ("a star </im_start>", "format"),
        ("red red red red", "format"),
        ("a star of a star of a star of a star of", "format"),
        ("a blue ring", "wrong region"),
        ("The blue ring.", "wrong region"),
        ("a blue star", "wrong attribute"),
        ("star", "wrong attribute"),
        ("red stars on the table", "wrong attribute"),
        ("a red ring", "wrong category"),
        ("a green cube", "wrong category"),
        ("a zebra", "hallucination"),
    ],
)
def test_of_a_short_name(answer: str, expected: str) -> None:
    assert kind(answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (LONG + "a green cube", "hallucination"),
        (LONG + "a large blue ring", "wrong attribute"),
        ("there is nothing at all but the wide brown wooden table here", "wrong category"),
    ],
)
def test_of_a_description(answer: str, expected: str) -> None:
    assert kind(answer, LONG + "a small blue ring") == expected


def test_of_yes_and_no_and_of_counts() -> None:
    assert kind("yes, both are red", "no, they differ") == "wrong yes or no"
    assert kind("3", "two") == "wrong count"
    assert kind("four objects", "3 objects") == "wrong count"


def test_of_choices() -> None:
    options = list(LETTERS)
    assert kind(options[0], options[1], options=options, region=0) == "wrong choice"
    assert kind("none of these", options[1], options=options) == "format"
    pointed = {"options": options, "boxes": [STAR, RING, STAR, RING], "region": 2}
    assert kind(options[0], options[1], **pointed) == "wrong region"
    texts = {"options": ["a dog", "a cat"], "region": 0}
    assert kind("a dog", "a cat", **texts) == "wrong choice"
    assert kind("a bird", "a cat", **texts) == "format"


def test_an_answer_that_differs_in_its_region_alone() -> None:
    assert kind("region 2 is to the left", "region 1 is to the left") == "wrong region"


def test_a_mapped_class_stands_for_the_answer() -> None:
    assert kind("something with four wheels", "star", mapped_sbert="ring") == "wrong category"


def test_right_and_not_judged_are_no_errors() -> None:
    assert kind("a red star", correct=True) == "right"
    assert kind("a red star", correct=None) == "not judged"
    table = pd.DataFrame([row("a", correct=None), *OTHERS]).astype({"correct": "boolean"})
    assert error_kinds(table) == ["not judged", "right", "right"]


def test_every_kind_is_reached_by_these_examples() -> None:
    seen = {
        kind(""), kind("a blue ring"), kind("3", "two"), kind("yes", "no"), kind("a blue star"), kind("a zebra"),
        kind("a red ring"), kind(LETTERS[0], LETTERS[1], options=list(LETTERS), region=0),
        kind("they lie in a row, one beside another, and wait", "a pile of all that nobody has ever named so far"),
    }  # fmt: skip
    assert seen == set(ERROR_KINDS)
