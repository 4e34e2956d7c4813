"""Training's questions in other words keep their regions, and are never a held-out wording."""

import re

import numpy as np
import pytest
from wording_tables import wording_tables

from gpt4roi_nb.data.scenes.open_questions import ALL_KINDS, ask
from gpt4roi_nb.data.scenes.scene import make_scene
from gpt4roi_nb.demo.recipe.paraphrase import (
    AFTER,
    AS_UNKNOWN,
    BEFORE,
    in_another_order,
    paraphrase,
    with_synonym,
    without_a_word,
)

SCENE = make_scene(3)


def plain(text):
    """A wording without capitals, marks, American spelling and "what's"; every slot is the same."""
    text = text.lower().replace("what's", "what is").replace("color", "colour")
    return " ".join(re.sub(r"\{\w+\}", "@", re.sub(r"[?.!,:;]", " ", text)).split())


def test_no_held_out_wording_comes_out_of_training():
    held_out = {plain(text) for table in wording_tables().values() for text in table.unseen}
    assert len(held_out) > 200
    reached = set()
    for text in {text for table in wording_tables().values() for text in table.seen}:
        orders = [text, *in_another_order(text)]
        swapped = [*orders, *(other for one in orders for other in with_synonym(one))]
        for one in [*swapped, *(shorter for some in swapped for shorter in without_a_word(some))]:
            framed = [one, *(before + one for before in BEFORE), *(one + after for after in AFTER)]
            reached |= {plain(some) for some in framed}
    assert reached & held_out == set()
    assert len(reached) > 20_000


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_question_is_often_changed_and_keeps_its_regions(kind):
    rng = np.random.default_rng(1)
    drawn = (ask(SCENE, kind, rng) for _ in range(60))
    texts = [question.text for question in drawn if question is not None]
    changed = [paraphrase(rng, text) for text in texts]
    assert 0.1 < np.mean([old != new for old, new in zip(texts, changed, strict=True)]) < 0.8
    for old, new in zip(texts, changed, strict=True):
        assert re.findall(r"<region\d>", new) == re.findall(r"<region\d>", old)


def test_two_regions_to_choose_from_may_stand_first():
    assert list(in_another_order("Which one is behind, <region2> or <region1>?")) == [
        "Between <region2> and <region1>, which one is behind?",
        "If you compare <region2> with <region1>, which one is behind?",
        "Which one, <region2> or <region1>, is behind?",
        "Of these two, <region2> and <region1>, which is behind?",
    ]
    assert not list(in_another_order("Is <region1> left or right of <region2>?"))


def test_a_longer_phrase_is_not_replaced_in_its_middle():
    said = set(with_synonym("What stands to the left of <region1>?"))
    assert "What stands left of <region1>?" in said
    assert not any("to the to the" in text or "to the on the" in text for text in said)


def test_words_that_are_replaced_by_others_than_synonyms_are_of_questions_without_an_answer():
    answered = [
        text.lower().split()
        for name, table in wording_tables().items()
        if name.split()[0] not in ("region", "image", "chat")
        for text in (*table.seen, *table.unseen)
    ]
    assert len(answered) > 200
    words = {word.strip("?.,!") for text in answered for word in text}
    assert words.isdisjoint(AS_UNKNOWN)
