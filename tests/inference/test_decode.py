"""Tokens become text that can be shown while it is written; the next token is chosen as requested."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tiny import tiny_config, tiny_gpt4roi, tiny_image, tiny_processor
from tiny_parts import TOKENIZERS
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.cache_utils import DynamicCache

import gpt4roi_nb.inference.decode as decode_module
from gpt4roi_nb.inference.decode import Sampling, decode, takes_whole_masks
from gpt4roi_nb.inference.detokenizer import StreamingDetokenizer
from gpt4roi_nb.processor import GPT4RoIImageProcessor, GPT4RoIProcessor
from gpt4roi_nb.prompt import plain_encoding
from gpt4roi_nb.tokenizer import add_gpt4roi_tokens


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(tiny_config())


def ids_of(processor, text):
    return [token_id for token_id, _ in plain_encoding(text, processor.tokenizer)]


def written(processor, ids):
    """The detokenizer after some tokens, and the pieces shown; stops where the answer ends by itself."""
    writing, pieces = StreamingDetokenizer(processor), []
    for token_id in ids:
        pieces.append(writing.push(token_id, -1.0))
        if writing.finished:
            break
    pieces.append(writing.rest())
    return writing, pieces


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("Assistant: A red cup.\n###", "A red cup."),
        ("Assistant: A red cup.", "A red cup."),
        ("A red cup.\n### Human: And", "A red cup."),
        ("Assistant:A red cup.  \n\n###", "A red cup."),
        ("A", "A"),
        ("Assistant: Assistant: yes", "Assistant: yes"),
        ("Assistant: two\nlines\n###", "two\nlines"),
        ("Assistant: # one ## two\n###", "# one ## two"),
        ("Assistant: 🦊 and שלום 👩‍👩‍👧‍👦!\n###", "🦊 and שלום 👩‍👩‍👧‍👦!"),
        ("Assistant:\n###", ""),
        ("###", ""),
        ("Assistant: a   b\n###", "a   b"),
    ],
)
def test_the_answer_is_what_stands_between_role_and_stop_mark(processor, said, text):
    writing, pieces = written(processor, ids_of(processor, said))
    assert writing.text == text == "".join(pieces) == "".join(writing.tokens)
    assert writing.finished == ("###" in said)
    first, last = writing.kept
    assert len(writing.tokens) == last - first
    assert len(writing.ids) == len(writing.logprobs)


def test_end_of_sequence_ends_the_answer(processor):
    ids = [*ids_of(processor, "A cup"), processor.tokenizer.eos_token_id, *ids_of(processor, "more")]
    writing, pieces = written(processor, ids)
    assert writing.finished and writing.text == "A cup" == "".join(pieces)
    assert processor.tokenizer.eos_token_id not in writing.ids[slice(*writing.kept)]


def test_neither_role_nor_stop_mark_is_ever_shown(processor):
    shown = ""
    writing = StreamingDetokenizer(processor)
    for token_id in ids_of(processor, "Assistant: A # cup.\n###"):
        shown += writing.push(token_id, -1.0)
        assert "A # cup.".startswith(shown)
    assert shown == "A # cup."


def test_a_character_is_shown_when_it_is_whole(processor):
    writing = StreamingDetokenizer(processor)
    pieces = [writing.push(token_id, -1.0) for token_id in ids_of(processor, "a 🦊 b")]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) + writing.rest() == "a 🦊 b"


@given(st.lists(st.one_of(st.integers(0, 999), st.integers(3, 258)), max_size=30))
@example([198, 172, 243])  # é, and one byte of another character: the whole run of bytes becomes unreadable
@example([243, 162, 137, 131, 260])  # a character of four bytes, and a word
@example([198, 1, 172])  # a token without text within a character
def test_pieces_and_tokens_make_the_text_whatever_the_tokens(processor, ids):
    writing, pieces = written(processor, ids)
    assert "".join(pieces) == writing.text
    assert "".join(writing.tokens) == writing.text
    first, last = writing.kept
    assert 0 <= first <= last <= len(writing.ids) and len(writing.tokens) == last - first
    assert "###" not in writing.text and writing.text == writing.text.strip()


LOGITS = torch.tensor([[2.0, 1.0, 0.5, -1.0]])


def test_temperature_zero_takes_the_likeliest():
    assert Sampling().choose(LOGITS, None).tolist() == [0]


def draws(sampling, count=400):
    generator = sampling.generator(torch.device("cpu"))
    return sampling.choose(LOGITS.expand(count, -1), generator).tolist()


def test_sampling_follows_the_probabilities():
    shares = torch.bincount(torch.tensor(draws(Sampling(1.0, seed=0), 20_000)), minlength=4) / 20_000
    torch.testing.assert_close(shares, LOGITS[0].softmax(-1), atol=0.02, rtol=0)


def test_a_seed_makes_draws_repeatable():
    assert draws(Sampling(1.0, seed=7)) == draws(Sampling(1.0, seed=7)) != draws(Sampling(1.0, seed=8))


def test_top_p_leaves_the_smallest_set_that_reaches_it():
    probabilities = LOGITS[0].softmax(-1)  # 0.60, 0.22, 0.13, 0.03
    assert set(draws(Sampling(1.0, top_p=float(probabilities[0]) - 0.01, seed=0))) == {0}
    assert set(draws(Sampling(1.0, top_p=float(probabilities[0]) + 0.01, seed=0))) == {0, 1}
    assert set(draws(Sampling(1.0, top_p=0.9, seed=0))) == {0, 1, 2}
    assert set(draws(Sampling(1.0, top_p=1.0, seed=0))) == {0, 1, 2, 3}


@pytest.mark.parametrize("temperature", [-0.1, 1e-9, 2e6, 1e308, float("nan"), float("inf")])
def test_bad_temperatures_are_explained(temperature):
    with pytest.raises(ValueError, match=r"temperature must be 0 \(greedy\), or from 1e-06 to 1e\+06, but is"):
        Sampling(temperature)


@pytest.mark.parametrize("top_p", [0.0, -1.0, 1.1, float("nan")])
def test_bad_top_p_is_explained(top_p):
    with pytest.raises(ValueError, match="top_p must be above 0 and at most 1, but is"):
        Sampling(1.0, top_p)


@pytest.fixture(scope="module", params=["llama", "qwen3", "brackets"])
def template_processor(request):
    tokenizer = TOKENIZERS[request.param]()
    add_gpt4roi_tokens(tokenizer)
    return GPT4RoIProcessor(GPT4RoIImageProcessor(32), tokenizer, num_image_tokens=16, chat_format="template")


@pytest.mark.parametrize(
    "text",
    [
        "A red cup.",
        "Assistant: A red cup.",
        "Assistant",
        "### Human: no",
        "Three marks: ###",
        "# one\n\n## two\n### three",
        "🦊 and שלום 👩‍👩‍👧‍👦!",
        "",
    ],
)
def test_with_a_template_an_answer_ends_at_its_token_only(template_processor, text):
    end = template_processor.tokenizer.convert_tokens_to_ids(template_processor.end_of_turn)
    writing, pieces = written(
        template_processor, [*ids_of(template_processor, text), end, *ids_of(template_processor, "more")]
    )
    assert writing.finished and writing.ids[-1] == end
    assert writing.text == text == "".join(pieces) == "".join(writing.tokens)
    unfinished, pieces = written(template_processor, ids_of(template_processor, text))
    assert unfinished.text == text == "".join(pieces) and not unfinished.finished


def test_any_end_of_sequence_of_the_model_ends_the_answer(template_processor):
    ids = ids_of(template_processor, "A red cup")
    for eos_token_id in (ids[-1], [5, ids[-1]]):
        writing = StreamingDetokenizer(template_processor, eos_token_id)
        for token_id in ids:
            assert not writing.finished
            writing.push(token_id, -1.0)
        assert writing.finished


@given(st.lists(st.one_of(st.integers(0, 341), st.integers(0, 258)), max_size=30))
def test_with_a_template_pieces_and_tokens_make_the_text_whatever_the_tokens(template_processor, ids):
    writing, pieces = written(template_processor, ids)
    assert "".join(pieces) == writing.text == "".join(writing.tokens)
    first, last = writing.kept
    assert 0 <= first <= last <= len(writing.ids) and len(writing.tokens) == last - first


@given(st.lists(st.integers(min_value=0, max_value=1000), max_size=40))
@example([0, 3 + 0xE2, 3 + 0x82, 3 + 0xAC, 500])
@example([3 + 0x41, 3 + 0xE2, 500, 3 + 0x41])
def test_text_grows_as_the_whole_would_be_decoded(processor, ids):
    """Token by token, decoding only a few at a time, with the same result as decoding all at once."""
    tokenizer = processor.tokenizer
    writing = StreamingDetokenizer(processor)
    for count, token_id in enumerate(ids, start=1):
        writing.push(token_id, -1.0)
        whole = tokenizer.decode(ids[:count], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert writing._text == whole


@given(st.lists(st.one_of(st.integers(0, 341), st.integers(0, 258)), max_size=30))
def test_with_a_template_text_grows_as_the_whole_would_be_decoded(template_processor, ids):
    tokenizer = template_processor.tokenizer
    writing = StreamingDetokenizer(template_processor)
    for count, token_id in enumerate(ids, start=1):
        writing.push(token_id, -1.0)
        whole = tokenizer.decode(ids[:count], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert writing._text == whole


@pytest.mark.parametrize("times", [1, 10])
def test_the_work_is_linear_in_the_length(template_processor, processor, monkeypatch, times):
    """Ten times the tokens take ten times the decoding, not a hundred times."""
    for each in (processor, template_processor):
        ids, decoded = ids_of(each, "A red cup stands on the small table, שלום 🦊. "), []
        real = type(each.tokenizer).decode

        def counting(self, token_ids, *args, real=real, decoded=decoded, **kwargs):
            decoded.append(len(token_ids))
            return real(self, token_ids, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(type(each.tokenizer), "decode", counting)
            writing = StreamingDetokenizer(each)
            for token_id in ids * times:
                writing.push(token_id, -1.0)
        assert sum(decoded) < 25 * len(ids) * times


class Reads(TorchDispatchMode):
    """Count what waits for the device: reading a number, a list, or a copy on the CPU."""

    def __init__(self, monkeypatch) -> None:
        super().__init__()
        self.count = 0
        for name in ("tolist", "cpu", "numpy"):
            monkeypatch.setattr(torch.Tensor, name, self.counted(getattr(torch.Tensor, name)))

    def counted(self, read):
        def reads(*args, **kwargs):
            self.count += 1
            return read(*args, **kwargs)

        return reads

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default  # item(), bool(), int(), float()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_token_costs_one_read_of_the_device(monkeypatch, temperature):
    session = tiny_gpt4roi(seed=1).session(tiny_image())
    asked = {"temperature": temperature, "seed": 0, "boxes": [(3, 4, 30, 40), (10, 4, 40, 30)]}
    session.describe(max_new_tokens=1, **asked)  # what is looked at once
    reads = Reads(monkeypatch)
    found = []
    for count in (1, 2, 5, 6):
        before = reads.count
        with reads:
            answers = session.describe(max_new_tokens=count, **asked)
        assert {len(answer.token_ids) for answer in answers} == {count}  # none of them has ended by itself
        found.append(reads.count - before)
    assert found[1] - found[0] == found[3] - found[2] == 1
    assert found[2] - found[1] == 3


def padded(loaded, count: int) -> list[list[int]]:
    """The answers to two prompts, of which the second is shorter and padded in front."""
    embed = loaded.model.get_input_embeddings()
    ids = torch.tensor([[5, 6, 7, 8, 9], [0, 0, 5, 6, 7]])
    rows = [StreamingDetokenizer(loaded.processor) for _ in ids]
    mask = (ids > 0).long()
    for _ in decode(
        loaded,
        rows,
        embed(ids).detach(),
        DynamicCache(),
        max_new_tokens=count,
        sampling=Sampling(),
        attention_mask=mask,
    ):
        pass
    return [row.ids for row in rows]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_token_of_a_padded_batch_costs_one_read_too(monkeypatch, attention):
    loaded = tiny_gpt4roi(seed=1)
    loaded.model.language_model.set_attn_implementation(attention)
    with monkeypatch.context() as patch:
        patch.setattr(decode_module, "takes_whole_masks", lambda config: False)
        by_token = padded(loaded, 6)
    assert padded(loaded, 6) == by_token and [len(ids) for ids in by_token] == [6, 6]
    reads = Reads(monkeypatch)
    found = []
    for count in (2, 5):
        before = reads.count
        with reads:
            padded(loaded, count)
        found.append(reads.count - before)
    assert found[1] - found[0] == 3


@pytest.mark.parametrize(
    ("changed", "taken"),
    [
        ({}, True), ({"sliding_window": 8}, False), ({"layer_types": ["sliding_attention"]}, False),
        ({"alibi": True}, False), ({"rope_parameters": None}, False),
        ({"_attn_implementation": "flash_attention_2"}, False),
    ],
)  # fmt: skip
def test_a_whole_mask_goes_only_where_nothing_else_decides_what_is_looked_at(changed, taken):
    config = SimpleNamespace(_attn_implementation="sdpa", rope_parameters={"rope_theta": 1e4}, layer_types=None)
    vars(config).update(changed)
    assert takes_whole_masks(config) is taken
