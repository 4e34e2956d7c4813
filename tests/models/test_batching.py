"""Many questions at a time: the same answers as one by one, and options as full passes say."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_gpt4roi
from tiny_families import FAMILIES as TINY
from tiny_families import tiny_family

from gpt4roi_nb.models import FAMILIES, PromptedModel, batching, reading
from gpt4roi_nb.models import images as images_module
from gpt4roi_nb.models.batching import read_together
from gpt4roi_nb.models.families import default_question, family_of
from gpt4roi_nb.session.region_model import Question, RegionModel

RNG = np.random.default_rng(0)
WIDE, TALL = (Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)) for shape in ((100, 140, 3), (130, 90, 3)))
BOX, OTHER = (20.0, 10.0, 80.0, 60.0), (3.0, 40.0, 78.0, 99.0)


def loaded(name: str, way: str | None = None) -> PromptedModel:
    return PromptedModel(*tiny_family(name), way, "tiny")


def questions_of(model: PromptedModel) -> list[Question]:
    first = default_question(model.way, model.model_type)
    second = first if not model.capabilities.free_question else "Is the thing in <region1> made of wood, or of stone?"
    return [
        Question(WIDE, first, [BOX]),
        Question(TALL, second, [OTHER]),
        Question(WIDE, second, [OTHER]),
        Question(WIDE, first, [OTHER]),
    ]


def alone(model: RegionModel, question: Question, **options: object) -> object:
    return model.session(question.image).ask(question.text, question.boxes, **options)


@pytest.mark.parametrize("batch_size", [1, 3, 4])
@pytest.mark.parametrize("name", TINY)
def test_answers_of_a_batch_are_those_of_a_session(name: str, batch_size: int) -> None:
    model = loaded(name)
    questions = questions_of(model)
    found = model.answers(questions, max_new_tokens=8, batch_size=batch_size)
    for question, answer in zip(questions, found, strict=True):
        expected = alone(model, question, max_new_tokens=8)
        assert answer.text == expected.text and answer.told == expected.told
        assert answer.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


@pytest.mark.parametrize("way", FAMILIES["qwen3_vl"].ways)
def test_every_way_answers_in_batches(way: str) -> None:
    model = loaded("qwen3_vl", way)
    questions = questions_of(model)
    found = model.answers(questions, max_new_tokens=4)
    for question, answer in zip(questions, found, strict=True):
        assert answer.logprobs == pytest.approx(alone(model, question, max_new_tokens=4).logprobs, abs=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("name", TINY)
def test_a_row_goes_on_alone_when_others_have_left(name: str) -> None:
    """As `decode` does it once half of the rows are finished."""
    model = loaded(name)
    images = model.images()
    prompts = [
        model.prompt(images, question.image, [("user", question.text)], {1: question.boxes[0]})
        for question in questions_of(model)[:2]
    ]
    after = torch.tensor([[7]])
    reader, cache, _ = read_together(model, images, prompts[1:])
    reader(model.model, reader.begin, cache, None)
    expected = reader(model.model, after, cache, None)[:, -1]
    if not family_of(name).takes_padding:
        text = questions_of(model)[1].text  # of equal length
        prompts[0] = model.prompt(images, WIDE, [("user", text)], {1: BOX})
    reader, cache, _ = read_together(model, images, prompts)
    reader(model.model, reader.begin, cache, reader.attention_mask)
    kept = torch.tensor([1])
    cache.batch_select_indices(kept)
    reader.keep(kept)
    mask = reader.attention_mask
    mask = None if mask is None else torch.cat([mask[kept], torch.ones(1, 1, dtype=torch.long)], dim=1)
    torch.testing.assert_close(reader(model.model, after, cache, mask)[:, -1], expected, atol=1e-4, rtol=0)


def test_rows_that_are_finished_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("qwen3_vl")
    questions = questions_of(model)
    singles = [alone(model, question, max_new_tokens=12).token_ids for question in questions]
    tokens = {token for ids in singles for token in ids}
    steps = {token: sorted(ids.index(token) if token in ids else 99 for ids in singles) for token in tokens}
    end = next(token for token, ends in steps.items() if ends[1] < ends[-1])
    kept: list[int] = []
    own = reading.CausalReader.keep
    monkeypatch.setattr(reading.CausalReader, "keep", lambda self, rows: (kept.append(len(rows)), own(self, rows)))
    monkeypatch.setattr(model.model.generation_config, "eos_token_id", [2, end])
    found = model.answers(questions, max_new_tokens=12)
    for question, one in zip(questions, found, strict=True):
        other = alone(model, question, max_new_tokens=12)
        assert one.text == other.text and one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert kept


def test_what_all_prompts_begin_with_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("qwen3_vl")
    lengths: list[tuple[int, int]] = []
    own = model.model.forward

    def counted(*given: object, **options: torch.Tensor) -> object:
        lengths.append(tuple(options["input_ids"].shape))
        return own(*given, **options)

    monkeypatch.setattr(model.model, "forward", counted)
    model.session(WIDE).describe([BOX, OTHER, BOX], max_new_tokens=1)
    image = len(model.images().prepared(WIDE).ids)
    (opening_rows, opening), (rows, rest) = lengths
    assert opening_rows == 1 and opening > image and rows == 3 and rest < opening


def test_memory_that_runs_out_makes_batches_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("kosmos-2")
    own = batching.read_together

    def short(*given: object) -> object:
        if len(given[2]) > 1:
            raise torch.OutOfMemoryError("two are too many")
        return own(*given)

    monkeypatch.setattr(batching, "read_together", short)
    with pytest.warns(UserWarning, match="memory ran out"):
        found = model.answers(questions_of(model), max_new_tokens=2)
    assert len(found) == 4


def test_an_interrupt_ends_many_questions_and_keeps_what_was_described(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("kosmos-2")
    written: list[int] = []
    own = reading.KosmosReader.__call__

    def interrupted(self: reading.KosmosReader, *given: object) -> torch.Tensor:
        written.append(len(given[1]))
        if len(written) == 2:  # in the second region, and in the second token of a batch
            raise KeyboardInterrupt
        return own(self, *given)

    monkeypatch.setattr(reading.KosmosReader, "__call__", interrupted)
    session = model.session(WIDE)
    with pytest.warns(UserWarning, match="stopped after 1 of 3 regions; 1 more were begun"):
        found = session.describe([BOX, OTHER, BOX], max_new_tokens=1, batch_size=1)
    assert [answer.stopped for answer in found] == [False, True]
    written.clear()
    with pytest.raises(KeyboardInterrupt):
        model.answers(questions_of(model), max_new_tokens=4, batch_size=2)


@pytest.mark.parametrize("name", TINY)
def test_options_together_are_as_likely_as_each_alone(name: str) -> None:
    model = loaded(name)
    question = default_question(model.way, name)
    options = ["a red ball", "x", "a long answer of many more words"]
    together = model.likelihoods(WIDE, question, [BOX], options)
    each = [model.likelihoods(WIDE, question, [BOX], [option])[0] for option in options]
    assert together == pytest.approx(each, abs=1e-4)
    assert model.likelihoods(WIDE, question, [BOX], options, batch_size=2) == pytest.approx(each, abs=1e-4)


def test_a_gpt4roi_answers_in_batches_too() -> None:
    gpt4roi = tiny_gpt4roi()
    questions = [
        Question(WIDE, "What is <region1>?", [BOX]),
        Question(TALL, "Is <region1> left of <region2>?", [BOX, OTHER]),
        Question(WIDE, "Which is larger, <region2> or <region1>?", [OTHER, BOX]),
        Question(TALL, "How many?"),
    ]
    found = gpt4roi.answers(questions, max_new_tokens=6, batch_size=3)
    for question, answer in zip(questions, found, strict=True):
        expected = alone(gpt4roi, question, max_new_tokens=6)
        assert answer.text == expected.text
        assert answer.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_images_are_prepared_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts and boxes of all questions are checked before; of images no more are held than a batch has."""
    model, events = loaded("vipllava"), []
    prepare, read = images_module.prepare, batching.read_together
    monkeypatch.setattr(images_module, "prepare", lambda *given: events.append("image") or prepare(*given))
    monkeypatch.setattr(batching, "read_together", lambda *given: events.append("batch") or read(*given))
    several = [Image.new("RGB", (60, 60), (shade, 0, 0)) for shade in range(4)]
    questions = [Question(image, "What is <region1>?", [(5, 5, 40, 40)]) for image in several]
    assert len(model.answers(questions, max_new_tokens=1, batch_size=2)) == 4
    assert events == ["image", "image", "batch"] * 2
    events.clear()
    with pytest.raises(ValueError, match=r"question 4: .* names <region2>"):
        model.answers([*questions, Question(several[0], "What is <region2>?", [(5, 5, 40, 40)])])
    many, boxes = "".join(f"<region{number}>" for number in range(1, 11)), [(5, 5, 40, 40)] * 10
    with pytest.raises(ValueError, match="question 4: draw names regions by colour and has 9 colours"):
        model.answers([*questions, Question(several[0], many, boxes)])
    assert events == []


def test_a_gpt4rois_images_are_read_batch_by_batch_and_one_that_comes_again_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpt4roi, seen = tiny_gpt4roi(), []
    own = type(gpt4roi.processor.image_processor).pixels
    monkeypatch.setattr(
        type(gpt4roi.processor.image_processor),
        "pixels",
        lambda self, image: seen.append(image.size) or own(self, image),
    )
    file = io.BytesIO()
    TALL.save(file, format="PNG")
    file.seek(0)
    questions = [
        *[Question(WIDE, "What is <region1>?", [BOX])] * 2,
        Question(file, "What is <region1>?", [BOX]),
        Question(WIDE, "How many?"),
    ]
    found = gpt4roi.answers(questions, max_new_tokens=2, batch_size=2)
    assert seen == [WIDE.size, TALL.size, WIDE.size] and found[0].text == found[1].text
    assert found[2].text == gpt4roi.session(TALL).ask("What is <region1>?", [BOX], max_new_tokens=2).text


@pytest.mark.parametrize("kind", ["gpt4roi", "qwen3_vl"])
def test_a_long_question_leaves_the_room_of_other_batches(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_gpt4roi() if kind == "gpt4roi" else loaded(kind)
    where = "gpt4roi_nb.inference.shared_opening.decode" if kind == "gpt4roi" else "gpt4roi_nb.models.batching.decode"
    rooms: list[int] = []
    read = alone(model, Question(WIDE, "What is <region1>?", [BOX]), max_new_tokens=1).prompt_tokens
    each = len(model.processor.tokenizer("why " * 20, add_special_tokens=False)["input_ids"]) / 20
    many = "why " * int((model.context_length - read - 100) / each)

    def counted(*given: object, max_new_tokens: int, **options: object) -> list[object]:
        rooms.append(max_new_tokens)
        return []

    monkeypatch.setattr(where, counted)
    short = Question(WIDE, "What is <region1>?", [BOX])
    long = Question(WIDE, f"What is <region1>? {many}", [BOX])
    model.answers([short, long], max_new_tokens=200, batch_size=1)
    assert rooms[0] == 200 and 0 < rooms[1] < 200


def test_a_bad_question_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Question(WIDE, "What is <region1>?", [BOX])
    models = (loaded("qwen3_vl"), tiny_gpt4roi())
    for model in models:
        monkeypatch.setattr(type(model.model), "forward", None)
        for bad, why in (
            (Question(WIDE, "What is <region2>?", [BOX]), "question 1: the text names <region2>"),
            (Question(WIDE, "What is <region1>?", [(5, 5, 5, 9)]), "question 1: "),
            (Question(WIDE, "word " * 1200), "question 1: .*tokens"),
        ):
            with pytest.raises(ValueError, match=why):
                model.answers([good, bad])
    assert [model.answers([]) for model in models] == [[], []]
