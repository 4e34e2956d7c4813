"""Benchmarks ask a model of `load_model` in its own way to present a box, and the card names that way."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from living import Living
from PIL import Image
from pointing_oracle import World
from pointing_oracle import answer as read_back
from tiny_families import by_its_processor, tiny_family

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.evaluate import BENCHMARKS, Result, __main__, compare, evaluate, sweep
from gpt4roi_nb.evaluate import verify as verify_module
from gpt4roi_nb.evaluate.benchmarks.item import Item, Prediction
from gpt4roi_nb.evaluate.predict import LoadedImage
from gpt4roi_nb.evaluate.prompted import (
    CANNOT_TAKE,
    CannotBeAskedError,
    PromptedCost,
    PromptedPredictor,
    check_capabilities,
)
from gpt4roi_nb.evaluate.questions import LEFT_OUT
from gpt4roi_nb.evaluate.verify import AS_PUBLISHED, BELOW, CHECKS, judge, verify
from gpt4roi_nb.images import load_image
from gpt4roi_nb.models import FAMILIES, PromptedModel
from gpt4roi_nb.models.ways.conventions import CONVENTIONS
from gpt4roi_nb.session import Question
from gpt4roi_nb.session.conversation import Answer

QUIET = {"progress": False, "batch_size": 4}
# Each in the worker where its judge runs already; see test_benchmarks.py.
CAPTIONED = ("vg", "refcocog", "ref_l4")
EVERY_BENCHMARK = [
    pytest.param(name, marks=pytest.mark.xdist_group("captions" if name in CAPTIONED else "sentences"))
    for name in BENCHMARKS
]
Make = Callable[..., PromptedModel]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes models in miniature that have room for VCR's prompts in single bytes."""

    def make(name: str, way: str | None = None, kind: type[PromptedModel] = PromptedModel) -> PromptedModel:
        model, processor = tiny_family(name)
        if name not in ("kosmos-2", "florence2"):  # which have a table of positions
            monkeypatch.setattr(model.config.get_text_config(decoder=True), "max_position_embeddings", 8192)
        return kind(model, processor, way, "tiny")

    return make


@torch.inference_mode()
def in_full_passes(model: PromptedModel, row: pd.Series) -> list[float]:
    """Log-probability of each option by a pass of its own over what the family's own processor makes."""
    told = model.render(row["image"], row["question"], row["boxes"])
    own = dict(by_its_processor(model.model_type, told.text, list(told.images)))
    found = []
    for option in row["options"]:
        text = f"{option}{model.answer_format.end_of_turn}"
        ids = torch.tensor([model.processor.tokenizer(text, add_special_tokens=False)["input_ids"]])
        whole = {**own, "input_ids": torch.cat([own["input_ids"], ids], dim=1)}
        for key, filler in (("attention_mask", 1), ("mm_token_type_ids", 0)):
            whole[key] = torch.cat([whole[key], torch.full_like(ids, filler)], dim=1)
        logits = model.model(**whole).logits[:, own["input_ids"].shape[1] - 1 : -1]
        found.append(float(logits.log_softmax(-1).gather(-1, ids[..., None]).sum()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_BENCHMARK)
def test_every_benchmark_asks_it_and_answers_are_those_of_a_session(
    name: str, world: Path, made: Make, request: pytest.FixtureRequest
) -> None:
    if name in CAPTIONED:
        request.getfixturevalue("one_meteor")
    model = made("qwen3_vl", "draw")
    result = evaluate(name, model, world, limit=1, max_new_tokens=3, **QUIET)
    assert result.metrics and result.card.complete and not result.card.left_out.keys() - {"crowds"}
    assert result.card.way == "draw" and result.card.told["region"] == "the object within the red rectangle"
    rows = result.predictions
    for _, row in rows.iloc[:: max(1, len(rows) // 3)].iterrows():
        if result.card.scorer == "generate":
            alone = model.session(row["image"]).ask(row["question"], row["boxes"], max_new_tokens=3)
            assert row["answer"] == alone.text
            assert row["logprob"] == pytest.approx(sum(alone.logprobs) / len(alone.logprobs), abs=1e-4)
        else:
            expected = torch.tensor(in_full_passes(model, row), dtype=torch.float64).log_softmax(0)
            assert row["option_logprobs"] == pytest.approx(expected.tolist(), abs=1e-4)
            assert row["answer"] == row["options"][int(expected.argmax())]


class Oracle(PromptedModel):
    """Answers with the thing that it reads back from the words and the pixels of what the model would be told."""

    worlds: tuple[World, ...] = ()

    def answers(self, questions: Sequence[Question], **options: Any) -> list[Answer]:
        found = []
        for question in questions:
            (thing,) = self._read(question.image, question.text, question.boxes)
            found.append(Answer(thing, [], [], [], 1, 0, 0.0))
        return found

    def likelihoods(self, image: Any, text: str, boxes: Any, options: Sequence[str], **more: Any) -> list[float]:
        """Of lettered boxes: the likely letter is that of the thing that the question names."""
        said = self._read(image, text, boxes)[-len(options) :]
        return [0.0 if f"Where is {thing}?" in text else -9.0 for thing in said]

    def _read(self, image: Any, text: str, boxes: Any) -> list[str]:
        told, whole = self.render(image, text, boxes), load_image(image)
        (world,) = [one for one in self.worlds if one.image.tobytes() == whole.tobytes()]
        return read_back(told.text, told.images, world, self.model_type)


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[World, ...]]:
    """COCO's and Visual-7W's files about the oracle's worlds; a category per thing."""
    root = tmp_path_factory.mktemp("things")
    worlds = tuple(world for seed in range(12) if len((world := World.of(seed)).things) > 3)[:3]
    for place in ("coco/val2017", "coco/annotations", "visual7w/images"):
        (root / place).mkdir(parents=True)
    names = sorted({name for world in worlds for name, _ in world.things})
    annotations, pairs, boxes, images = [], [], [], []
    for number, world in enumerate(worlds):
        file = f"{number:012}.png"
        world.image.save(root / "coco/val2017" / file)
        world.image.save(root / "visual7w/images" / file)
        images.append({"id": number, "file_name": file, "width": world.image.width, "height": world.image.height})
        first = len(annotations)
        for name, (x1, y1, x2, y2) in world.things:
            one = {"id": len(annotations), "image_id": number, "category_id": names.index(name), "iscrowd": 0}
            annotations.append({**one, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)})
            boxes.append({"box_id": len(boxes), "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1})
        asked = {"qa_id": number, "question": f"Where is {world.things[0][0]}?", "answer": first}
        pairs.append({"filename": file, "split": "val", "image_id": number,
                      "qa_pairs": [{**asked, "multiple_choices": [first + 1, first + 2, first + 3]}]})  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (root / "coco/annotations/instances_val2017.json").write_text(json.dumps(coco))
    (root / "visual7w/dataset_v7w_pointing.json").write_text(json.dumps({"images": pairs, "boxes": boxes}))
    return root, worlds


@pytest.fixture
def oracle(made: Make, things: tuple[Path, tuple[World, ...]], monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(Oracle, "worlds", things[1])
    return lambda name, way=None: made(name, way, Oracle)


EVERY_WAY = [*(("qwen3_vl", way) for way in FAMILIES["qwen3_vl"].ways), ("kosmos-2", "native"), ("llava", "text")]


@pytest.mark.parametrize(("name", "way"), EVERY_WAY)
def test_an_oracle_scores_100_and_its_card_names_the_way(name: str, way: str, things, oracle: Make) -> None:
    root, worlds = things
    model = oracle(name, way)
    found = evaluate("coco", model, root, **QUIET)
    assert found.metrics == {"accuracy": 100, "mAP": pytest.approx(100)}
    assert len(found.predictions) == sum(len(world.things) for world in worlds)
    card = found.card
    assert (card.way, card.checkpoint_name) == (way, "tiny") and f"regions as {way}" in card.line()
    assert card.told["status"].startswith("unverified") and card.told["source"]
    assert card.processor == f"{type(model.processor).__name__} with {type(model.processor.image_processor).__name__}"
    if way in ("text", "native"):
        assert card.told["coordinates"] == CONVENTIONS[name].summary and card.told["convention"] in str(card)
    if model.capabilities.several_regions and name == "qwen3_vl":
        pointed = evaluate("visual7w", model, root, scorer="likelihood", **QUIET)
        assert pointed.metrics == {"pointing": 100} and "each option as the whole answer" in pointed.card.decoding


def test_an_oracle_is_led_astray_by_a_wrong_order(things, oracle: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONVENTIONS, "qwen3_vl", replace(CONVENTIONS["qwen3_vl"], order="yxyx"))
    assert evaluate("coco", oracle("qwen3_vl", "text"), things[0], **QUIET).metrics["accuracy"] < 80


def test_a_card_says_what_line_was_drawn_and_which_size_was_seen(things, oracle: Make) -> None:
    model = oracle("qwen3_vl").with_regions("draw", colour="blue", width=5)
    model.revision = "0a1b2c"
    card = evaluate("coco", model, things[0], **QUIET).card
    assert card.shown == "draw, blue, 5 pixels" and card.told["colours"].startswith("blue, yellow")
    assert card.told["line_width"] == "5 pixels where the longest side has 336, opaque"
    assert card.example == "What is the category of the object within the blue rectangle?"
    assert card.seen == "196 × 84"  # of 500 × 260, in squares of 28 pixels and at most 30 of them
    assert card.revision == "0a1b2c"
    for words in ("draw", "region: the object within the blue rectangle", "196 × 84", "Qwen3VLProcessor with "):
        assert words in card.text()
    padded = evaluate("coco", oracle("llava", "crop"), things[0], **QUIET).card
    assert padded.seen == "56 × 56" and "padded to a square" in padded.told["frame"]


def test_a_run_is_not_continued_in_another_way(things, oracle: Make, tmp_path: Path) -> None:
    root = things[0]
    model = oracle("qwen3_vl", "text")
    evaluate("coco", model, root, folder=tmp_path, **QUIET)
    whole = evaluate("coco", model, root, folder=tmp_path, **QUIET)
    assert Result.load(tmp_path).card == whole.card
    for other in (model.with_regions("crop"), model.with_regions("draw", colour="blue")):
        with pytest.raises(ValueError, match=r"holds another run \(.*regions: .*'way': 'text'"):
            evaluate("coco", other, root, folder=tmp_path, **QUIET)


@pytest.mark.slow
def test_a_sweep_over_all_ways_is_one_table(things, oracle: Make, tmp_path: Path) -> None:
    model = oracle("qwen3_vl")
    found = sweep("coco", model, things[0], colours=("red", "lime"), widths=(2, 3), folder=tmp_path, **QUIET)
    drawn = [f"draw, {colour}, {width} pixels" for colour in ("red", "lime") for width in (2, 3)]
    assert list(found.results) == ["text", *drawn, "marks", "crop", "context", "full+crop"] and not found.refused
    assert {one.card.checkpoint for one in found.results.values()} == {found.results["text"].card.checkpoint}
    table = str(found.table())
    head = next(line for line in table.splitlines() if "[1]" in line)
    assert all(f"{way} [{number}]" in head for number, way in enumerate(found.results, 1))
    assert "accuracy: 100.0 in every way" in table and "differs in more than the way" not in table
    crop = found.results["crop"]
    found.results["crop"] = replace(crop, metrics={"accuracy": 56.8, "mAP": 40.0})
    assert found.spread["accuracy"][1:] == ("crop", "text")
    assert "accuracy: 43.2 points between crop (56.8) and text (100.0)" in str(found)
    assert model.way == "text"
    again = [path.name for path in tmp_path.iterdir() if (path / "result.json").is_file()]
    assert sorted(again) == sorted(way.replace(", ", "-").replace(" ", "-") for way in found.results)


def test_a_gpt4roi_is_swept_too_and_its_other_ways_are_those_of_what_it_is_shown(things, gpt4roi: GPT4RoI) -> None:
    root = things[0]
    found = sweep("coco", gpt4roi, root, ways=("crop", "native", "marks"), max_new_tokens=4, **QUIET)
    assert list(found.results) == ["crop", "region tokens", "marks"] and not found.refused
    own, crop = found.results["region tokens"], found.results["crop"]
    alone = evaluate("coco", gpt4roi, root, max_new_tokens=4, **QUIET)
    assert own.predictions["answer"].tolist() == alone.predictions["answer"].tolist()
    assert not own.card.differences(alone.card) and own.card.way == "region tokens"
    assert (own.card.checkpoint, own.card.seen) == (crop.card.checkpoint, crop.card.seen) and not own.card.told
    assert crop.card.way == "crop" and crop.card.example == "What is the category of the object in the image?"
    model = PromptedModel.of(gpt4roi, "crop")
    for _, row in crop.predictions.iloc[::4].iterrows():
        told = model.render(row["image"], row["question"], row["boxes"])
        answer = gpt4roi.session(told.images[0]).ask(told.text, max_new_tokens=4)
        assert row["answer"] == answer.text
        assert row["logprob"] == pytest.approx(sum(answer.logprobs) / len(answer.logprobs), abs=1e-4)
    assert list(sweep("coco", gpt4roi, root, limit=1, max_new_tokens=1, **QUIET).results)[:2] == [
        "region tokens",
        "draw, red, 3 pixels",
    ]
    with pytest.raises(ValueError, match="regions='text' does not suit gpt4roi"):
        sweep("coco", gpt4roi, root, ways=("native", "text"), **QUIET)
    with pytest.raises(TypeError, match="sweep takes a GPT4RoI or a model of load_model, but 'demo' came"):
        sweep("coco", "demo", root, **QUIET)


def test_a_way_that_cannot_be_asked_is_named_beside_the_others(things, oracle: Make, monkeypatch) -> None:
    monkeypatch.setattr(Oracle, "likelihoods", lambda *given, **more: [0.0, -1.0, -2.0, -3.0])
    found = sweep("visual7w", oracle("llava"), things[0], ways=("draw", "crop"), **QUIET)
    assert list(found.results) == ["draw, red, 3 pixels"] and list(found.refused) == ["crop"]
    assert "not asked as crop: visual7w cannot be asked of llava with regions='crop'" in str(found)
    for ways, why in ((("native",), "does not suit llava"), (("arrows",), "must be one of")):
        with pytest.raises(ValueError, match=why):
            sweep("visual7w", oracle("llava"), things[0], ways=ways, **QUIET)
    with pytest.raises(ValueError, match="colour must be one of red, lime"):
        sweep("visual7w", oracle("llava"), things[0], colours=("pink",), **QUIET)


def test_two_models_are_compared_on_the_same_questions(things, oracle: Make) -> None:
    root = things[0]
    first = evaluate("coco", oracle("qwen3_vl", "text"), root, **QUIET)
    second = evaluate("coco", oracle("llava", "crop"), root, limit=2, **QUIET)
    frame = second.predictions.copy()
    frame.loc[frame.index[:2], "correct"] = False
    comparison = compare(first, replace(second, predictions=frame))
    assert comparison.common == len(frame) and comparison.only_first == 2
    assert comparison.cross().to_numpy().tolist() == [[len(frame) - 2, 2], [0, 0]]
    assert list(comparison.slice("only first")["id"]) == list(frame["id"][:2])
    assert comparison.slices("size_bin")["only first"].sum() == 2
    assert comparison.differences["way"] == ("text", "crop") and "told: region" in comparison.differences
    table = str(comparison)
    assert "tiny, text [1]" in table and "tiny, crop [2]" in table
    assert "[1] right" in table and "McNemar's test: p = 0.5" in table
    with pytest.raises(ValueError, match="outcome must be one of 'both right'"):
        comparison.slice("first")


def nothing_runs(*_: Any, **__: Any) -> Any:
    raise AssertionError("the model was asked")


@pytest.mark.parametrize(
    ("name", "way", "benchmark", "why"),
    [
        ("florence2", "native", "coco", r"answers tasks about one region and no free question.*'Describe <region1>\.'"),
        ("paligemma", "native", "visual7w", "answers tasks about one region"),
        ("llava", "crop", "visual7w", "3 of 3 questions are too much for it.*made for one image at a time"),
    ],
)
def test_what_a_family_cannot_do_is_refused_before_anything_runs(
    name: str, way: str, benchmark: str, why: str, things, made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PromptedPredictor, "answer", nothing_runs)
    with pytest.raises(
        CannotBeAskedError, match=f"{benchmark} cannot be asked of {name} with regions='{way}': .*{why}"
    ):
        evaluate(benchmark, made(name, way), things[0], folder=tmp_path / "kept", **QUIET)
    assert not list((tmp_path / "kept").glob("*.json*"))


def test_a_task_in_place_of_the_question_is_asked_of_florence(things, made: Make) -> None:
    model = made("florence2")
    result = evaluate("coco", model, things[0], question="What category is <region1>?", max_new_tokens=2, **QUIET)
    assert result.card.prompt == "What category is <region1>?" and result.card.way == "native"
    row = result.predictions.iloc[0]
    alone = model.session(row["image"]).ask(row["question"], row["boxes"], max_new_tokens=2)
    assert row["answer"] == alone.text


def test_no_likelihood_no_scorer(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("llava")
    lacking = replace(model.capabilities, likelihood=False)
    monkeypatch.setattr(PromptedModel, "capabilities", lacking)
    item = Item("1", "a", (), "Which?", options=("(A)", "(B)"))
    with pytest.raises(CannotBeAskedError, match="it gives no likelihoods; take scorer='generate'"):
        check_capabilities(model, "visual7w", [item], "likelihood")
    check_capabilities(model, "visual7w", [item], "generate")


def test_a_question_that_is_too_much_is_left_out_and_counted(
    things, made: Make, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """The others of its batch are answered; and small boxes below their own line are counted, without a warning."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "coco").symlink_to(things[0] / "coco")
    model = made("qwen3_vl", "draw")
    own = model.checked

    def checked(whole: Image.Image, text: str, boxes: Any) -> Any:
        if len(boxes) and boxes[0][0] == min(box[0] for _, box in things[1][0].things):
            raise ValueError("it is too much")
        return own(whole, text, boxes)

    model.checked = checked  # type: ignore[method-assign]
    result = evaluate("coco", model, root, max_new_tokens=2, folder=tmp_path / "kept", **QUIET)
    assert result.card.left_out == {CANNOT_TAKE: 1}
    assert "it is too much" in (tmp_path / "kept" / LEFT_OUT).read_text()
    assert len(result.predictions) == sum(len(world.things) for world in things[1]) - 1
    thick = evaluate("coco", made("qwen3_vl").with_regions("draw", width=60), things[0], max_new_tokens=1, **QUIET)
    assert thick.card.counts["boxes whose drawn line covers all that is in them"] == len(thick.predictions)
    assert not [one for one in recwarn if "paints over" in str(one.message)]


@pytest.mark.slow
@pytest.mark.xdist_group("captions")
@pytest.mark.usefixtures("one_meteor")
def test_kosmos_2_is_asked_in_its_makers_words_about_the_whole_split(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = PromptedModel(*tiny_family("kosmos-2"), None, "tiny")
    found = verify("Kosmos-2", model, world, items=1, progress=False)
    (result,) = found.results.values()
    assert result.card.limit is None and result.card.images > 1 and result.card.prompt == "Describe <region1>."
    assert {one.metric: one.published for one in found.findings} == {"METEOR": 12.2, "CIDEr": 60.3}
    assert found.behaves_as_published is None and "fewer than 100" in found.sentence
    exact = {"METEOR": 12.2, "CIDEr": 60.3}
    half = {name: (value - 0.5, value + 0.5) for name, value in exact.items()}
    enough = replace(result, metrics=exact, intervals=half, card=replace(result.card, images=1300))
    assert {one.verdict for one in judge("Kosmos-2", CHECKS["Kosmos-2"][0], enough)} == {AS_PUBLISHED}
    low = replace(enough, metrics={"METEOR": 9.0, "CIDEr": 40.0}, intervals={"METEOR": (8, 10), "CIDEr": (38, 42)})
    assert {one.verdict for one in judge("Kosmos-2", CHECKS["Kosmos-2"][0], low)} == {BELOW}

    monkeypatch.setattr(__main__, "load_model", lambda path, *, regions, **_: model.with_regions(regions))
    for stub, code in ((enough, 0), (low, __main__.DIFFERS)):
        monkeypatch.setattr(verify_module, "evaluate", lambda *_, stub=stub, **__: stub)
        words = ["verify", "Kosmos-2", "--root", str(world), "--out", str(tmp_path), "--json"]
        assert __main__.main(words) == code
        said = json.loads(capsys.readouterr().out)
        assert said["behaves_as_published"] is (code == 0)
        assert sorted(one["published"] for one in said["findings"]) == [12.2, 60.3]


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(TypeError, match="evaluate takes a GPT4RoI or a model of load_model, but 'Qwen' came"):
        evaluate("coco", "Qwen")  # type: ignore[arg-type]


@pytest.mark.parametrize("scorer", ["generate", "likelihood"])
def test_questions_take_no_more_memory_than_is_computed(scorer: str, things, made: Make) -> None:
    root, worlds = things
    model = made("qwen3_vl", "draw")
    paths = sorted((root / "coco/val2017").iterdir())
    options = ("a cat", "a cat and a dog", "none")
    items = [
        Item(f"{path.name} {name}", str(path), (tuple(map(float, box)),), "What is <region1>?", options=options)
        for path, world in zip(paths, worlds, strict=True)
        for name, box in world.things
    ]
    images = {str(path): LoadedImage(load_image(path), load_image(path).size) for path in paths}
    for batch_size in (1, 4):
        predictor = PromptedPredictor(model, scorer, batch_size, 12)
        with Living(model.model) as living:
            assert all(
                isinstance(one, Prediction) for some in predictor.answer([items[:batch_size]], images) for one in some
            )
        cost = PromptedCost(model, items, scorer, 12)(batch_size)
        assert cost / 16 < living.peak < cost


def test_batches_are_as_large_as_memory_allows(things, made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("qwen3_vl", "text")
    costs: list[PromptedCost] = []

    class Cost(PromptedCost):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            costs.append(self)

    monkeypatch.setattr("gpt4roi_nb.evaluate.run.PromptedCost", Cost)
    whole = evaluate("coco", model, things[0], max_new_tokens=2, **QUIET)
    assert whole.card.batch_sizes == [4]
    monkeypatch.setattr("gpt4roi_nb.batches.sum_free", lambda devices: costs[0](3) - 1)
    with pytest.warns(UserWarning, match="continuing with 2 at a time"):
        less = evaluate("coco", model, things[0], max_new_tokens=2, **QUIET)
    assert less.card.batch_sizes == [2] and list(less.predictions["answer"]) == list(whole.predictions["answer"])
    monkeypatch.setattr("gpt4roi_nb.batches.sum_free", lambda devices: costs[0](1) - 1)
    with pytest.raises(MemoryError, match="the questions, even one at a time, need up to"):
        evaluate("coco", model, things[0], max_new_tokens=2, **QUIET)


def test_a_sweep_hashes_the_weights_once(things, oracle: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    plain = PromptedModel._hash_weights
    monkeypatch.setattr(PromptedModel, "_hash_weights", lambda model: (hashed.append(model.way), plain(model))[1])
    sweep("coco", oracle("qwen3_vl"), things[0], ways=("text", "crop", "marks"), **QUIET)
    assert hashed == ["text"]
    oracle("qwen3_vl").fingerprint()
    assert len(hashed) == 2  # nothing is kept once the weights may change
