"""The tokenizer gives the ids that GPT4RoI was trained on, after saving and loading as well."""

from __future__ import annotations

import functools
import itertools
import json

import pytest
import sentencepiece
from golden_recipe import read_json, unpack
from hypothesis import example, given
from hypothesis import strategies as st
from tiny import TOKENIZER

from gpt4roi_nb.prompt import plain_encoding
from gpt4roi_nb.tokenizer import ADDED_TOKENS, add_gpt4roi_tokens, canonical_tokenizer, tokenizer_from_sentencepiece

RECORDED = read_json("prompts.json")
PROMPTS = [
    (f"{conversation['name']}-{index}", round_["prompt"], round_["input_ids"])
    for conversation in RECORDED["conversations"]
    for index, round_ in enumerate(conversation["app_rounds"])
    if "input_ids" in round_
] + [
    (f"{conversation['name']}-train", conversation["train"]["prompt"], conversation["train"]["input_ids"])
    for conversation in RECORDED["conversations"]
]


@pytest.fixture(scope="module", params=["canonical", "reloaded"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def pieces():
    return sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER))


@pytest.mark.parametrize("probe", RECORDED["tokenizer_probe"], ids=lambda probe: repr(probe["text"]))
def test_probes_have_the_recorded_ids(tokenizer, probe):
    assert tokenizer(probe["text"], split_special_tokens=False)["input_ids"] == probe["ids"]
    assert tokenizer.convert_ids_to_tokens(probe["ids"]) == probe["tokens"]


@pytest.mark.parametrize(("name", "prompt", "ids"), PROMPTS, ids=[name for name, *_ in PROMPTS])
def test_whole_prompts_have_the_recorded_ids(tokenizer, name, prompt, ids):
    prompt = prompt.replace("<im_patch>*256", "<im_patch>" * 256)
    assert tokenizer(prompt)["input_ids"] == unpack(ids)


def test_special_tokens_have_the_recorded_ids(tokenizer):
    for token, token_id in RECORDED["special_ids"].items():
        assert tokenizer.convert_tokens_to_ids(token) == token_id
    assert len(tokenizer) == 1006


def test_adding_the_tokens_again_changes_nothing(tokenizer):
    assert add_gpt4roi_tokens(tokenizer) == 0
    assert tokenizer.convert_tokens_to_ids(list(ADDED_TOKENS)) == list(range(1000, 1006))


def test_reloading_keeps_padding_side_length_and_specials(canonical, reloaded):
    for name in ("padding_side", "model_max_length", "bos_token", "eos_token", "unk_token", "pad_token"):
        assert getattr(reloaded, name) == getattr(canonical, name), name
    assert reloaded.padding_side == "left"


@given(st.text())
@example("")
@example(" ")
@example("  two  spaces ")
@example("<s></s><unk><bbox>[PAD]<0x41>")
@example("###\n\n####### #")
@example("👩‍👩‍👧‍👦 שלום عالم नमस्ते 猫")
@example("\u2581\u2581a \ufeff\u200b\u00a0\x00")
def test_plain_text_has_sentencepiece_ids(pieces, canonical, text):
    assert [token_id for token_id, _ in plain_encoding(text, canonical)] == pieces.encode(text)


@pytest.mark.parametrize(
    "text",
    [
        "What is it?",
        "🦊🍎 two emoji",
        "👩‍👩‍👧‍👦",
        "مرحبا بالعالم",
        "שלום, עולם!",
        "नमस्ते",
        "日本語 テスト",
        "a\nb\n\nc",
        "  indented",
        "x  y ",
    ],
)
def test_text_survives_encoding_and_decoding(tokenizer, text):
    ids = [token_id for token_id, _ in plain_encoding(text, tokenizer)]
    assert tokenizer.decode(ids) == text


@given(st.text(st.characters(exclude_characters="\u2581", codec="utf-8")))
def test_any_text_survives_encoding_and_decoding(canonical, text):
    assert canonical.decode([token_id for token_id, _ in plain_encoding(text, canonical)]) == text


def test_offsets_cover_the_text(canonical):
    text = "A café 🦊 near שלום."
    covered = set()
    for _, (start, end) in plain_encoding(text, canonical):
        covered.update(range(start, end))
    assert covered == set(range(len(text)))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.model"):
        tokenizer_from_sentencepiece(tmp_path / "absent.model")


def test_a_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"not a SentencePiece model")
    with pytest.raises(ValueError, match="is not a SentencePiece model"):
        tokenizer_from_sentencepiece(path)


@pytest.fixture(scope="module")
def as_transformers_converts(canonical, tmp_path_factory):
    """A folder with the tokenizer.json that transformers makes from this tokenizer.model.

    Merges of one piece are in the opposite order, and a pre-tokenizer handles the spaces.
    """
    content = json.loads(canonical.backend_tokenizer.to_str())
    merges = content["model"]["merges"]
    groups = [list(group) for _, group in itertools.groupby(merges, key="".join)]
    content["model"]["merges"] = [merge for group in groups for merge in reversed(group)]
    assert content["model"]["merges"] != merges
    content["normalizer"] = content["post_processor"] = None
    content["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    folder = tmp_path_factory.mktemp("json")
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


@given(st.text(st.characters(codec="utf-8")))
@example("A large language model, is it  in the\n\nmanner? ### ")
def test_a_tokenizer_json_gives_sentencepiece_ids_as_well(as_transformers_converts, pieces, text):
    tokenizer = _from_json(as_transformers_converts)
    assert [token_id for token_id, _ in plain_encoding(text, tokenizer)] == pieces.encode(text)


@functools.cache
def _from_json(folder):
    return canonical_tokenizer(folder)


def test_a_tokenizer_json_gives_the_recorded_prompts(as_transformers_converts):
    tokenizer = _from_json(as_transformers_converts)
    for _, prompt, ids in PROMPTS:
        assert tokenizer(prompt.replace("<im_patch>*256", "<im_patch>" * 256))["input_ids"] == unpack(ids)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": {"type": "WordPiece"}}, "was not converted from a LLaMA tokenizer.model"),
        ({}, "was not converted from a LLaMA tokenizer.model"),
        ({"model": {"type": "BPE", "byte_fallback": True, "vocab": {"a": 0}, "merges": []}}, "lacks <s>, </s>, <unk>"),
        ({"model": {"type": "BPE", "byte_fallback": True, "merges": []}}, "the vocabulary of .* must be an object"),
        ({"model": {"type": "BPE", "byte_fallback": True, "vocab": {"a": "b"}}}, "must be a whole number, but is 'b'"),
        ({"model": {"type": "BPE", "byte_fallback": True, "vocab": {"a": 0}}}, "the merges of .* must be a list"),
        ({"model": {"type": "BPE", "byte_fallback": True, "vocab": {"a": 0}, "merges": ["a"]}}, "must be a list of 2"),
        ({"model": {"type": "BPE", "byte_fallback": True, "vocab": {"a": -1}, "merges": []}}, "from 0 without gaps"),
        ({"model": {"type": "BPE", "byte_fallback": True, "vocab": {"a": 0}, "merges": ["a b"]}}, "lacks one of them"),
    ],
)
def test_another_tokenizer_json_is_refused(tmp_path, content, words):
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        canonical_tokenizer(tmp_path)
