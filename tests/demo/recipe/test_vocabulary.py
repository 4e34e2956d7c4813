"""The demo's tokenizer: repeatable, and made for its world."""

import pytest

from gpt4roi_nb.data.scenes.scene import CATEGORIES, COLOURS, MATERIALS, SIZES
from gpt4roi_nb.demo.recipe.vocabulary import train_sentencepiece

TURNS = (
    ("user", "What is <region1>, and is it the same colour as <region2>?"),
    ("assistant", "a small red metal cone, and yes, both are red"),
    ("user", "And region 1?"),
    ("assistant", "red"),
)


@pytest.mark.slow
def test_training_it_twice_gives_the_same_file(recipe, tmp_path):
    for name in ("one", "two"):
        train_sentencepiece(tmp_path / name, recipe.vocabulary)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("word", [*CATEGORIES, *COLOURS, *MATERIALS, *SIZES, "yes", "no", "left", "behind", "wood"])
def test_every_word_of_an_answer_is_one_token(processor, word):
    assert len(processor.tokenizer.tokenize(word)) == 1


@pytest.mark.parametrize("piece", ["#", "###", ":", "▁Assistant", "▁Human", "<0x0A>"])
def test_the_pieces_that_the_prompt_needs_are_there(processor, piece):
    assert processor.tokenizer.convert_tokens_to_ids(piece) != processor.tokenizer.unk_token_id


@pytest.mark.parametrize("text", ["a zebra, naïve", "日本語 🙂", "tab\there", "  two  spaces "])
def test_any_text_comes_back_from_its_tokens(processor, text):
    tokenizer = processor.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]

    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("turns", [1, 3])
def test_a_question_is_the_exact_start_of_the_conversation_it_becomes(processor, turns):
    question = processor.prompt(TURNS[:turns]).input_ids

    assert processor.prompt(TURNS).input_ids[: len(question)] == question
