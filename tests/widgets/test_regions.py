"""Numbers, locks, and names of regions in questions."""

from __future__ import annotations

import re

import pytest

from gpt4roi_nb.widgets.examples import GOOD_OF_IMAGE, GOOD_OF_ONE, GOOD_OF_TWO, example_questions
from gpt4roi_nb.widgets.regions import RegionBook, mentions, unnamed_notice

A, B, C = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (40.0, 0.0, 50.0, 10.0)


def book(*boxes, asked=()) -> RegionBook:
    made = RegionBook()
    made.set_asked(asked)
    made.set_new(boxes)
    return made


def shown(made: RegionBook) -> list[tuple]:
    return [(region.number, region.box, region.asked) for region in made.regions]


def test_boxes_number_themselves_in_the_order_of_drawing() -> None:
    made = book(A)
    made.add(B)
    assert shown(made) == [(1, A, False), (2, B, False)]


def test_a_removed_region_gives_its_number_to_the_next() -> None:
    made = book(A, B, C)
    made.remove(made.new[1].key)
    assert shown(made) == [(1, A, False), (2, C, False)]


def test_a_region_keeps_its_key_when_its_number_changes() -> None:
    made = book(A, B)
    key = made.new[1].key
    made.remove(made.new[0].key)
    assert (made.new[0].key, made.new[0].number) == (key, 1)


def test_an_asked_region_takes_over_the_drawn_one_with_its_box() -> None:
    made = book(A, B)
    keys = [region.key for region in made.new]
    made.set_asked([A])
    assert shown(made) == [(1, A, True), (2, B, False)]
    assert [region.key for region in made.regions] == keys


def test_undo_makes_a_region_new_again_before_those_drawn_since() -> None:
    made = book(C, asked=[A, B])
    made.set_asked([A])
    assert shown(made) == [(1, A, True), (2, B, False), (3, C, False)]


def test_two_regions_with_the_same_box_stay_two() -> None:
    made = book(A, A)
    made.set_asked([A])
    assert shown(made) == [(1, A, True), (2, A, False)]


@pytest.mark.parametrize("text", ["What is <region1>?", "What is region 1?", "what is Region1?", "<Region1>: colour?"])
def test_a_new_region_is_named_with_or_without_brackets(text: str) -> None:
    question = book(A).question(text)
    assert "<region1>" in question.text
    assert question.boxes == (A,)


def test_a_region_that_was_asked_about_is_left_as_the_person_wrote_it() -> None:
    question = book(B, asked=[A]).question("Is region 1 left of region 2?")
    assert question.text == "Is region 1 left of <region2>?"
    assert question.boxes == (B,)


def test_a_question_about_the_third_region_swaps_it_with_the_first_and_leaves_the_second() -> None:
    made = book(A, B, C)
    question = made.question("What is <region3>?")
    assert (question.text, question.boxes) == ("What is <region1>?", (C,))
    made.reorder(question.order)
    made.set_asked([C])
    assert shown(made) == [(1, C, True), (2, B, False), (3, A, False)]
    assert question.moved == ((3, 1),)


def test_renumbering_does_not_confuse_two_names() -> None:
    question = book(A, B, C).question("Is <region3> left of <region2>, and what is region 3?")
    assert question.text == "Is <region1> left of <region2>, and what is <region1>?"
    assert question.boxes == (C, B)
    assert question.moved == ((3, 1),)


def test_a_question_that_names_none_takes_none_along() -> None:
    question = book(A).question("How many objects are there?")
    assert question.boxes == ()
    assert question.moved == ()


def test_an_unknown_region_is_left_for_the_session_to_refuse() -> None:
    assert book(A).question("<region7>?").text == "<region7>?"


def test_given_boxes_belong_to_the_question_even_unnamed() -> None:
    assert book(A, B).question("What is this?", given=1).boxes == (A,)


def test_mentions_are_listed_once_each() -> None:
    assert mentions("<region2> or region 1, region2?") == [2, 1]
    assert mentions("a regional 5, region <b>1") == []


@pytest.mark.parametrize(
    ("asked", "new"), [((), ()), ((), (1,)), ((), (1, 2)), ((1,), ()), ((1, 2), ()), ((1,), (2,)), ((1, 2), (3, 4, 5))]
)
def test_examples_name_only_regions_that_exist_and_some_new_one(asked, new) -> None:
    good = [re.sub("{.}", "R", text) for text in (*GOOD_OF_IMAGE, *GOOD_OF_ONE, *GOOD_OF_TWO)]
    seen = set()
    for turn in range(4):
        questions = example_questions(asked, new, turn)
        seen.update(questions)
        assert len(set(questions)) == 3
        for text in questions:
            assert set(mentions(text)) <= {*asked, *new}
            if new:
                assert set(mentions(text)) & set(new)
        for text in questions[:2]:  # those that the model answers well
            assert re.sub("<region.>", "R", text) in good
    assert len(seen) > 3  # they vary


def test_a_question_may_use_a_persons_own_names() -> None:
    made = book(B, C, asked=[A])
    for region, name in zip(made.regions, ("cup", "the kettle", "Big cup"), strict=True):
        made.rename(region.key, name)
    question = made.question("Is the kettle, or the big CUP, larger than the cup? A cupboard, a kettle?")
    assert question.text == "Is <region2>, or <region3>, larger than <region1>? A cupboard, a kettle?"
    assert question.boxes == (B, C)
    assert made.mentions("Is the kettle red?") == [2]


def test_a_name_stays_with_its_region() -> None:
    made = book(A, B)
    made.rename(made.new[1].key, " the  kettle ")
    made.remove(made.new[0].key)
    made.set_asked([B])
    made.set_asked([])
    assert [(region.number, region.name) for region in made.regions] == [(1, "the kettle")]


def test_a_name_is_found_in_a_script_without_spaces_between_words() -> None:
    made = book(A, B, C)
    for region, name in zip(made.regions, ("杯", "杯子", "컵"), strict=True):
        made.rename(region.key, name)
    assert made.mentions("杯子是什么颜色?杯呢?") == [2, 1]
    assert made.mentions("컵은 무슨 색이에요?") == [3]


@pytest.mark.parametrize("numbers", [[4], [1, 2], [1, 3, 4], [2, 3, 4]])
def test_a_message_lists_regions_as_a_person_would(numbers: list[int]) -> None:
    words = {1: "region 4", 2: "regions 1 and 2", 3: "regions 2 to 4" if numbers[0] == 2 else "regions 1, 3 and 4"}
    assert words[len(numbers)] in unnamed_notice(numbers)


@pytest.mark.parametrize("name", ["a", "x" * 41, "12", "region 2", "my <region1>", "KETTLE", "the kettle"])
def test_a_name_that_would_confuse_is_refused(name: str) -> None:
    made = book(A)
    made.set_new([A, B], ["kettle", ""])
    with pytest.raises(ValueError, match="name"):
        made.rename(made.new[1].key, name)
    with pytest.raises(ValueError, match="name"):
        made.set_new([C, C], ["kettle", name])
    assert [region.name for region in made.new] == ["kettle", ""]


def test_a_letter_that_matches_without_being_alike_when_folded_names_nothing() -> None:
    book = RegionBook()
    book.set_new([(1, 1, 9, 9)], ["kitap"])
    assert book.by_number("KİTAP and Kitap") == "KİTAP and <region1>"
