"""Sharing changes no answer: compared with a session that asks one question, and with one full pass per option."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from living import Living
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb.boxes import normalise
from gpt4roi_nb.data.problems import BadRecord
from gpt4roi_nb.evaluate.asking import QuestionCost
from gpt4roi_nb.evaluate.benchmarks.item import Item, Prediction
from gpt4roi_nb.evaluate.predict import TOO_LONG, BatchedPredictor, LoadedImage
from gpt4roi_nb.evaluate.read_ahead import read_ahead, windows
from gpt4roi_nb.images import load_image
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.session.options import choice

LETTERS = ("(A)", "(B)", "(C)", "(D)")
TEXTS = ("a cat", "a cat and a dog", "two red dogs", "none")
SIZES = {"a": (48, 64), "b": (70, 40)}


def items() -> list[Item]:
    boxes = ((3.0, 4.0, 30.0, 33.0), (10.0, 2.0, 38.0, 39.0), (3.0, 4.0, 30.0, 33.0))
    return [
        Item("1", "a", boxes[:1], "What is <region1>?", options=LETTERS),
        Item("2", "b", boxes, "Is <region2> left of <region1>, and is <region3> behind them both?", options=LETTERS),
        Item("3", "a", boxes[:2], "Is <region2> like <region1>?", options=LETTERS),
        Item("4", "b", (), "How many things are there in the picture?", options=LETTERS),
    ]


def images() -> dict[str, object]:
    return {name: load_image(tiny_image(seed, *size)) for seed, (name, size) in enumerate(SIZES.items())}


def answers(gpt4roi, asked, scorer, batch_size=8, given=None) -> dict[str, object]:
    loaded = {
        name: LoadedImage(gpt4roi.processor.image_processor.pixels(image), image.size)
        for name, image in images().items()
    }
    predictor = BatchedPredictor(gpt4roi, scorer, batch_size, 12)
    found = {}
    for outcomes in predictor.answer(predictor.batches(asked), loaded | (given or {})):
        for outcome in outcomes:
            name = outcome.id if isinstance(outcome, Prediction) else outcome[0]
            found[name] = outcome
    return found


@torch.inference_mode()
def plainly(gpt4roi, item: Item) -> list[float]:
    """Log-probability of each option by its own full pass: image, prompt and option, no cache."""
    image = images()[item.image]
    offered = choice(gpt4roi.processor, item.question, item.options)
    boxes = torch.from_numpy(normalise(item.boxes, *image.size)) if item.boxes else torch.zeros(0, 4)
    likely = []
    for rest in offered.continuations:
        ids = torch.tensor([[*offered.prompt.input_ids, *rest]])
        logits = gpt4roi.model(
            input_ids=ids,
            pixel_values=gpt4roi.processor.image_processor.pixels(image)[None],
            boxes=[boxes[[number - 1 for number in offered.prompt.regions]]],
        ).logits[0, len(offered.prompt.input_ids) - 1 : -1]
        likely.append(float(logits.log_softmax(-1).gather(-1, torch.tensor(rest)[:, None]).sum()))
    return torch.tensor(likely).log_softmax(0).tolist()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_generated_answers_are_those_of_a_session(gpt4roi, batch_size):
    found = answers(gpt4roi, items(), "generate", batch_size)
    for item in items():
        said = gpt4roi.session(images()[item.image]).ask(item.question, item.boxes, max_new_tokens=12)
        assert found[item.id].answer == said.text
        if said.logprobs:
            assert found[item.id].logprob == pytest.approx(sum(said.logprobs) / len(said.logprobs), abs=1e-4)
        else:
            assert found[item.id].logprob is None
        assert (found[item.id].width, found[item.id].height) == images()[item.image].size


@pytest.mark.parametrize("options", [LETTERS, TEXTS])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_likelihoods_are_those_of_a_full_pass_an_option(gpt4roi, options, batch_size):
    asked = [replace(item, options=options) for item in items()]
    found = answers(gpt4roi, asked, "likelihood", batch_size)
    for item in asked:
        expected = plainly(gpt4roi, item)
        assert found[item.id].option_logprobs == pytest.approx(expected, abs=1e-4)
        assert found[item.id].answer == options[max(range(4), key=expected.__getitem__)]
        assert found[item.id].logprob == max(found[item.id].option_logprobs)


def test_letters_cost_one_token_and_texts_end_with_their_turn(gpt4roi):
    letters = choice(gpt4roi.processor, "What is it?", LETTERS)
    assert [len(rest) for rest in letters.continuations] == [1, 1, 1, 1]
    texts = choice(gpt4roi.processor, "What is it?", TEXTS)
    assert len({rest[-1] for rest in texts.continuations}) == 1  # the mark of the next turn
    assert all(len(rest) > 1 for rest in texts.continuations)


def test_options_must_differ(gpt4roi):
    with pytest.raises(ValueError, match="not all different"):
        choice(gpt4roi.processor, "What?", ("yes", "yes"))
    with pytest.raises(ValueError, match="compares options"):
        choice(gpt4roi.processor, "What?", ())


def test_what_cannot_be_asked_is_told_and_the_rest_is_asked(gpt4roi):
    bad = [
        Item("outside", "a", ((500.0, 500.0, 600.0, 600.0),), "What is <region1>?"),
        Item("unnamed", "a", ((3.0, 4.0, 30.0, 33.0),), "What is it?"),
        Item("gone", "c", (), "What is it?"),
    ]
    found = answers(gpt4roi, [*items(), *bad], "generate", given={"c": BadRecord("no such image", "there is no 'c'")})
    assert [found[name][1].reason for name in ("outside", "unnamed", "gone")] == ["wrong type"] * 2 + ["no such image"]
    alone = answers(gpt4roi, items(), "generate")
    assert all(found[item.id].answer == alone[item.id].answer for item in items())


def test_a_prompt_that_is_too_long_is_told():
    small = tiny_gpt4roi()
    long = Item("long", "a", (), "why " * 600)
    found = answers(small, [*items(), long], "generate")
    assert found["long"][1].reason == TOO_LONG
    assert isinstance(found["1"], Prediction)


@pytest.mark.parametrize("scorer", ["generate", "likelihood"])
@pytest.mark.parametrize("options", [LETTERS, TEXTS])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_questions_take_no_more_memory_than_is_computed(gpt4roi, scorer, options, batch_size):
    asked = [replace(item, options=options) for item in items()]
    with Living(gpt4roi.model) as living:
        answers(gpt4roi, asked, scorer, batch_size)
    cost = QuestionCost(gpt4roi, asked, scorer, 12)(batch_size)
    assert cost / 8 < living.peak < cost


def test_where_a_gpu_takes_them_images_are_read_into_pinned_memory(gpt4roi, tmp_path, monkeypatch):
    paths = [str(tmp_path / f"{name}.png") for name in SIZES]
    for path, image in zip(paths, images().values(), strict=True):
        image.save(path)
    asked = windows([Item(path, path, (), "What?") for path in paths], 1)
    pinned = []
    # A fake, so that it runs without a GPU.
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: (pinned.append(tensor), tensor.clone())[1])
    plain = list(read_ahead(BatchedPredictor(gpt4roi, "generate", 1, 1).prepare, asked))
    assert not pinned
    monkeypatch.setattr(LoadedModel, "device", torch.device("cuda"))
    found = list(read_ahead(BatchedPredictor(gpt4roi, "generate", 1, 1).prepare, asked))
    assert len(pinned) == len(paths)
    assert [window.index for window, _ in found] == [0, 1]
    for (_, one), (_, other) in zip(found, plain, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[path].prepared, other[path].prepared) for path in one)
