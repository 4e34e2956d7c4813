"""SS, S-IoU and the binary choice: an example for each rule of the protocol."""

import json
from pathlib import Path

import pytest

from gpt4roi_nb.data.protocol_texts import clean_name
from gpt4roi_nb.evaluate.metrics.similarity import (
    chose_right,
    clean_answer,
    distinct,
    draw,
    ferret_forms,
    names_true,
    surface_forms,
    without_denials,
    word_iou,
)


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        ("a cup", "a cup"),
        ("Category: a red cup.", "a red cup"),
        ("It is: a red, cup: small.", "a red  cup"),  # between the first colon and the second, as Osprey has it
        ("cup.", "cup"),
        (":", ""),
        ("", ""),
    ],
)
def test_an_answer_is_what_follows_the_first_colon_without_signs(answer: str, cleaned: str) -> None:
    assert clean_answer(answer) == cleaned


def test_a_name_has_blanks_for_underscores_and_colons() -> None:
    assert clean_name("coffee_maker") == "coffee maker"
    assert clean_name("mug:inner_body") == "mug inner body"


@pytest.mark.parametrize(
    ("answer", "name", "value"),
    [
        ("a Red cup", "cup", 1 / 3),
        ("coffee maker", "coffee maker", 1),
        ("cup cup", "cup", 1),  # words are a set
        ("cups", "cup", 0),
        ("", "cup", 0),
        ("", "", 0),
    ],
)
def test_the_iou_of_words(answer: str, name: str, value: float) -> None:
    assert word_iou(answer, name) == pytest.approx(value)


def test_names_in_brackets_count_as_both_halves() -> None:
    assert surface_forms("mug_(drinking_vessel)") == ("mug (drinking vessel)", "mug", "drinking vessel")
    forms = surface_forms("aerosol_can", ["aerosol_can", "spray_can"])
    assert forms == ("aerosol can", "spray can")
    assert surface_forms("bow_(weapon)", ["bow_(weapon)", "Longbow"])[1:] == ("bow", "weapon", "longbow")


@pytest.mark.parametrize(
    ("answer", "rest"),
    [
        ("It is a cup, not a bowl.", "It is a cup, "),
        ("not a bowl, but a cup", " but a cup"),
        ("No, it is a cup.", " it is a cup."),
        ("There is no bowl. It is a cup.", "There is  It is a cup."),
        ("a cup, not a bowl", "a cup, "),  # no sign follows: to the end
        ("a nose, a notebook and a piano", "a nose, a notebook and a piano"),  # whole words only
    ],
)
def test_denials_are_left_out(answer: str, rest: str) -> None:
    assert without_denials(answer) == rest


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("a cup", True),
        ("It is a Teacup.", True),  # within a longer word, as in the reference
        ("a mug", True),  # a synonym
        ("a bowl", False),
        ("a cup or a bowl", False),
        ("It is a cup, not a bowl.", True),
        ("not a cup, a bowl", False),
        ("", False),
        ("something else", False),
    ],
)
def test_the_choice_is_right_with_the_true_name_and_without_the_false_one(answer: str, right: bool) -> None:
    assert chose_right(answer, surface_forms("cup", ["cup", "mug"]), surface_forms("bowl")) is right


def test_ferrets_forms_keep_case_and_the_names_brackets() -> None:
    assert ferret_forms("CD_player ", ["CD_player", "mug_(drinking_vessel)"]) == ("CD player", "mug", "drinking vessel")
    assert ferret_forms("bow_(weapon)") == ("bow (weapon)",)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("a cup", True),
        ("It is a teacup.", True),  # within a longer word
        ("a Cup", False),  # case counts
        ("a mug", True),  # a synonym
        ("a bowl", False),
        ("a cup or a bowl", True),  # the false name does no harm
        ("It is not a cup, it is a bowl.", False),
        ("It is not a cup", True),  # no sign ends the denial
        ("Not a cup, a bowl", True),  # nor does a blank begin it
        ("It has no cup. A bowl.", False),
        ("On my nose a cup, a bowl", False),  # a denial begins with the letters alone
        ("A nose and a cup", True),
        ("", False),
    ],
)
def test_ferrets_rule_looks_for_the_true_name_alone(answer: str, right: bool) -> None:
    assert names_true(answer, ferret_forms("cup", ["cup", "mug"])) is right


def test_names_that_hold_one_another_are_no_choice() -> None:
    assert not distinct(surface_forms("teddy_bear"), surface_forms("bear"))
    assert not distinct(surface_forms("bear"), surface_forms("teddy_bear"))
    assert distinct(surface_forms("cup"), surface_forms("bowl"))


def test_a_draw_depends_on_seed_and_item_alone() -> None:
    first = draw(3, 17).integers(1000)
    assert draw(3, 17).integers(1000) == first
    others = {draw(seed, item).integers(1000) for seed, item in ((3, 18), (4, 17), (17, 3))}
    assert others != {first}


@pytest.mark.samples
def test_every_genuine_lvis_name_has_forms_and_is_said_by_itself(samples: Path) -> None:
    categories = json.loads((samples / "lvis" / "lvis_v1_train_cat_info.json").read_text())
    assert len(categories) > 1000
    bracketed = 0
    for entry in categories:
        forms = surface_forms(entry["name"], entry["synonyms"])
        assert forms
        assert all(form == form.strip().lower() and "_" not in form for form in forms)
        assert chose_right(f"It is a {forms[0]}.", forms, ["\0"])
        # Alone: in a sentence, "a nosebag." would be taken for a denial.
        assert names_true(clean_name(entry["name"]), ferret_forms(entry["name"], entry["synonyms"]))
        bracketed += "(" in entry["name"]
        assert "(" not in "".join(forms[1:])
        assert word_iou(clean_name(entry["name"]), clean_name(entry["name"])) == 1
    assert bracketed > 20


def test_an_items_random_numbers_are_its_own_also_for_negative_ids() -> None:
    drawn = [draw(seed, item).random() for seed, item in ((0, 1), (0, -1), (-1, 1), (1, 0), (0, 2**63 - 1))]
    assert len(set(drawn)) == len(drawn)
    assert draw(0, -1).random() == drawn[1]
