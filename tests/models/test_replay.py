"""An answer run again with something changed about a region: what is changed, and the numbers of full passes."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import FAMILIES as TINY
from tiny_families import LATER, OTHERS, by_its_processor, tiny_family

from gpt4roi_nb import Answer
from gpt4roi_nb.batches import BatchSize
from gpt4roi_nb.capture import MAPS, faithfulness
from gpt4roi_nb.capture.ablation import blurred, covered
from gpt4roi_nb.models import PromptedModel
from gpt4roi_nb.models.families import default_question
from gpt4roi_nb.session.region_model import Question

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
BOX, OTHER = (20.0, 10.0, 80.0, 60.0), (70.0, 40.0, 130.0, 90.0)
TWO = "Is <region1> larger than <region2>?"


def loaded(name: str, way: str | None = None) -> PromptedModel:
    return PromptedModel(*tiny_family(name), way, "tiny")


def asked(name: str, way: str | None = None, image: Image.Image = IMAGE) -> tuple[PromptedModel, Answer]:
    model = loaded(name, way)
    return model, model.session(image).ask(default_question(model.way, name), [BOX], max_new_tokens=4)


# ------------------------------------------------------------------------------------------------- what is changed


@pytest.mark.parametrize(
    ("name", "way", "told"),
    [
        ("qwen3_vl", "text", "Is the object larger than [500, 400, 929, 900]?"),
        (
            "qwen3_vl",
            "draw",
            "Is the object within the red rectangle larger than the object within the lime rectangle?",
        ),
        ("qwen3_vl", "marks", "Is the object marked 1 larger than the object marked 2?"),
        ("qwen3_vl", "crop", "Is the object in image 1 larger than the object in image 2?"),
        ("qwen3_vl", "full+crop", "Is the object in image 2 larger than the object in image 3?"),
    ],
)
def test_only_the_pointing_at_one_region_is_taken_away(name: str, way: str, told: str) -> None:
    model = loaded(name, way)
    regions = {1: BOX, 2: OTHER}
    whole = model.point(model.images(), IMAGE, regions)
    prompt = model.prompt(model.images(), IMAGE, [("user", TWO)], regions, hidden=1)
    assert prompt.rendered_text == told
    kept = [model.images().prepared(image).digest for image in whole.images]
    found = [shown.digest for shown in prompt.shown]
    original = model.images().prepared(IMAGE).digest
    if way == "text":
        assert found == kept == [original]
    elif way in ("crop", "full+crop"):
        place = 0 if way == "crop" else 1
        assert found[place] == original and found[place] != kept[place]
        assert [*found[:place], *found[place + 1 :]] == [*kept[:place], *kept[place + 1 :]]
    else:
        assert len(found) == 1 and found != kept and found != [original]  # region 2 is still drawn
        one_left = model.prompt(model.images(), IMAGE, [("user", TWO)], regions, hidden=2)
        assert one_left.shown[0].digest not in (*found, *kept)


def test_a_region_in_tokens_of_the_model_becomes_what_stood_around_them() -> None:
    told = {
        name: loaded(name).prompt(loaded(name).images(), IMAGE, [("user", text)], {1: BOX}, hidden=1).rendered_text
        for name, text in (
            ("kosmos-2", "What is <region1>?"),
            ("florence2", "Describe <region1>."),
            ("paligemma", "Caption <region1>."),
        )
    }
    assert told == {
        "kosmos-2": "<grounding> Question: What is <phrase> the object</phrase>? Answer:",
        "florence2": "<s>What does the region  describe?</s>",
        "paligemma": "<s>caption \n",
    }


def test_a_question_that_says_the_object_does_not_say_it_twice() -> None:
    model = loaded("qwen3_vl")
    question = [("user", "What is the object <region1> made of?")]
    prompt = model.prompt(model.images(), IMAGE, question, {1: BOX}, hidden=1)
    assert prompt.rendered_text == "What is the object  made of?"
    drawn = loaded("qwen3_vl", "draw").prompt(model.images(), IMAGE, question, {1: BOX})
    assert drawn.rendered_text == "What is the object within the red rectangle made of?"


# --------------------------------------------------------------------------------------- as full forward passes say


@torch.inference_mode()
def full_pass(name: str, model: Any, told: str, image: Image.Image, ids: list[int], first: int) -> torch.Tensor:
    """Log-probabilities of the ids from `first` on, after what the family's own processor makes of text and image."""
    own = dict(by_its_processor(name, told, [image]))
    written = torch.tensor([ids[:-1]], dtype=torch.long)
    if name == "florence2":
        start = torch.tensor([[model.config.text_config.decoder_start_token_id]])
        logits = model(**own, decoder_input_ids=torch.cat([start, written], dim=1)).logits
    else:
        own["input_ids"] = torch.cat([own["input_ids"], written], dim=1)
        for key in ("attention_mask", "token_type_ids", "mm_token_type_ids", "image_embeds_position_mask"):
            if key in own:
                filler = 1 if key in ("attention_mask", "token_type_ids") else 0
                own[key] = torch.cat([own[key], torch.full_like(written, filler)], dim=1)
        logits = model(**own).logits
    likely = logits[0, -len(ids) :].float().log_softmax(-1)
    return likely.gather(-1, torch.tensor(ids)[:, None])[first:, 0]


@pytest.mark.parametrize("name", TINY)
def test_an_ablation_is_what_full_passes_say(name: str) -> None:
    model, answer = asked(name)
    replay: Any = answer.replay
    ids, first = list(replay.ids), replay.first
    question = [("user", default_question(model.way, name))]
    soft = blurred(IMAGE, BOX)
    cases = {
        "remove": (model.prompt(model.images(), IMAGE, question, {1: BOX}, hidden=1).rendered_text, IMAGE),
        "blur": (answer.told, model.render(soft, question[0][1], [BOX]).images[0]),
    }
    for how, (told, image) in cases.items():
        ablation = answer.ablate(1, how, max_new_tokens=4)
        assert ablation.before.tolist() == pytest.approx(answer.logprobs, abs=1e-4)
        expected = full_pass(name, model.model, told, image, ids, first)
        assert ablation.after.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
        assert ablation.change.abs().max() > 1e-4  # it is a change, and none of its own
        assert "without region 1" in ablation.verdict() or "with region 1 blurred" in ablation.verdict()
    again = model.session(soft).ask(question[0][1], [BOX], max_new_tokens=4)
    assert answer.ablate(1, "blur", max_new_tokens=4).answer == again.text
    assert answer.ablate(1, generate=False).answer is None


@pytest.mark.parametrize("name", sorted({*LATER, *OTHERS} - {"gemma3"}))  # whose miniature ends its answer at once
def test_classes_outside_the_table_are_ablated_and_occluded_too(name: str) -> None:
    _, answer = asked(name)
    for how in ("remove", "blur"):
        ablation = answer.ablate(1, how, generate=False)
        assert ablation.before.tolist() == pytest.approx(answer.logprobs, abs=1e-4)
        assert ablation.change.abs().max() > 1e-6
    assert torch.isfinite(answer.occlusion(4, "each", batch_size=2)).all()


@pytest.mark.parametrize("name", ["qwen3_vl", "kosmos-2", "internvl", "vipllava", "florence2"])
def test_an_occlusion_is_what_full_passes_say(name: str) -> None:
    model, answer = asked(name)
    replay: Any = answer.replay
    places = {"qwen3_vl": (4, 5), "kosmos-2": (4, 4), "vipllava": (3, 4)}.get(name, (16, 16))
    patch = 8 if places == (16, 16) else 2
    each = answer.occlusion(patch, "each", batch_size=3)
    rows, columns = (-(-side // patch) for side in places)
    assert each.shape == (len(answer.tokens), rows, columns)
    hidden = covered(IMAGE, (0, 0, patch, patch), *places)
    question = default_question(model.way, name)
    image = model.render(hidden, question, [BOX]).images[0]
    without = full_pass(name, model.model, answer.told, image, list(replay.ids), replay.first)
    assert each[:, 0, 0].tolist() == pytest.approx((torch.tensor(answer.logprobs) - without).tolist(), abs=1e-4)
    torch.testing.assert_close(answer.occlusion(patch), each.sum(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(answer.occlusion(patch, -1), each[-1], atol=1e-4, rtol=0)


# ------------------------------------------------------------------------- an answer that depends on the region alone


class Oracle:
    """Reads prompts in the place of a language model: the answer is as likely as the oracle sees a reason for it."""

    attention_mask = None

    def __init__(self, prompts: Any, reasons: list[float], ids: list[int]) -> None:
        self.begin = torch.tensor([prompt.input_ids for prompt in prompts])
        self._reasons, self._ids = reasons, ids

    def __call__(self, model: Any, input_ids: torch.Tensor, cache: Any, mask: Any) -> torch.Tensor:
        logits = torch.zeros(*input_ids.shape, model.config.get_text_config(decoder=True).vocab_size)
        logits[..., self._ids] = torch.tensor(self._reasons)[:, None, None]
        return logits


def by_an_oracle(monkeypatch: pytest.MonkeyPatch, answer: Answer, reason: Any) -> None:
    """reason: of what the model is told: takes a prompt, and says how likely the answer is to it."""
    monkeypatch.setattr(
        "gpt4roi_nb.models.replay.reader_of",
        lambda model, prompts, start, features: Oracle(prompts, [reason(one) for one in prompts], answer.token_ids),
    )


def seen(prompt: Any, model: PromptedModel) -> torch.Tensor:
    """Pixels of the first image that is shown, (3, H, W) in [0, 255], as the model's own processor made them."""
    images = model.processor.image_processor
    values = prompt.shown[0].values["pixel_values"][0].float()
    mean, std = (torch.tensor(value)[:, None, None] for value in (images.image_mean, images.image_std))
    return (values * std + mean) * 255


BRIGHT = Image.new("RGB", (140, 100), (20, 20, 20))
BRIGHT.paste((250, 250, 250), tuple(map(int, BOX)))


def test_occlusion_finds_the_region_that_an_oracle_answers_from(monkeypatch: pytest.MonkeyPatch) -> None:
    model, answer = asked("paligemma", image=BRIGHT)
    by_an_oracle(monkeypatch, answer, lambda prompt: float(seen(prompt, model).mean()) / 20)
    drops = answer.occlusion(1)
    assert drops.shape == (4, 4)
    for row in range(4):
        for column in range(4):
            x1, y1, x2, y2 = column * 35, row * 25, column * 35 + 35, row * 25 + 25
            share = max(min(x2, BOX[2]) - max(x1, BOX[0]), 0) * max(min(y2, BOX[3]) - max(y1, BOX[1]), 0) / (35 * 25)
            # Covered, a place gets the image's mean: one that was darker becomes brighter.
            assert (float(drops[row, column]) > 0) == (share > 60 * 50 / (140 * 100)), (row, column, share)
    assert int(drops.argmax()) == 5  # the one place that lies in the region whole


def test_a_part_of_the_image_is_covered_before_a_region_is_drawn_or_cut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, answer = asked("vipllava", image=BRIGHT)
    redness: list[float] = []

    def reason(prompt: Any) -> float:
        pixels = seen(prompt, model)
        redness.append(float((pixels[0] - pixels[1:].amax(0)).max()))
        return 0.0

    by_an_oracle(monkeypatch, answer, reason)
    answer.occlusion(2)
    assert len(redness) > 4 and min(redness) > 60  # the line is seen, whatever is covered

    model, answer = asked("qwen3_vl", "crop", BRIGHT)
    by_an_oracle(monkeypatch, answer, lambda prompt: float(prompt.shown[0].values["pixel_values"].mean()))
    drops = answer.occlusion(4)  # of 16 × 16 places
    inside = torch.zeros(4, 4, dtype=torch.bool)
    inside[:3, :3] = True  # the squares that touch the box
    assert bool((drops[inside] > 0).all()) and bool((drops[~inside] == 0).all())


@pytest.mark.parametrize(("name", "way"), [("vipllava", "draw"), ("qwen3_vl", "text"), ("kosmos-2", "native")])
def test_without_the_pointing_an_oracle_that_follows_it_cannot_answer(
    name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, answer = asked(name, way, BRIGHT)

    def pointed_at(prompt: Any) -> float:
        if way == "draw":
            pixels = seen(prompt, model)
            return 9.0 * bool((pixels[0] - pixels[1:].amax(0)).max() > 60)
        return 9.0 * ("[" in prompt.rendered_text or "<patch_index_" in prompt.rendered_text)

    by_an_oracle(monkeypatch, answer, pointed_at)
    removed, soft = answer.ablate(1, generate=False), answer.ablate(1, "blur", generate=False)
    assert removed.change.max() < -1 and soft.change.abs().max() == 0
    assert removed.verdict().startswith("without region 1 the log-probability of the answer falls by")


# ------------------------------------------------------------------------------------------------------- refusals


def test_what_cannot_be_changed_is_refused_in_words() -> None:
    model, answer = asked("qwen3_vl")
    assert answer.ablations == ("remove", "blur")
    for how in ("swap", "move", "position_only", "feature_only"):
        with pytest.raises(
            ValueError, match=r"how must be remove or blur for a qwen3_vl.*only a GPT4RoI has a region tok"
        ):
            answer.ablate(1, how)
    for call, words in (
        (lambda: answer.ablate(1, "burn"), "how must be remove or blur for a qwen3_vl, but is 'burn'$"),
        (lambda: answer.ablate(2), "has no region 2; its regions are: 1"),
        (lambda: answer.ablate(1, baseline="zero"), "which a qwen3_vl does not have; leave them out"),
        (lambda: answer.occlusion(6), "from 1 to 5, but is 6"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(IndexError, match="one of the"):
        answer.occlusion(2, 9)
    (described,) = model.session(IMAGE).describe([BOX], max_new_tokens=2)
    assert described.ablate(1, generate=False).change.shape == (len(described.tokens),)
    batch = model.answers([Question(IMAGE, "What is <region1>?", [BOX])], max_new_tokens=2)[0]
    with pytest.raises(RuntimeError, match="keeps nothing of its image, so you cannot look at ablations"):
        batch.ablate(1)


def test_a_follow_up_is_run_again_with_all_that_was_said() -> None:
    session = loaded("qwen3_vl", "draw").session(IMAGE)
    session.ask("What is <region1>?", [BOX], max_new_tokens=3)
    answer = session.ask("Is it left of <region2>?", [OTHER], max_new_tokens=3)
    for region in (1, 2):
        ablation = answer.ablate(region, generate=False)
        assert ablation.before.tolist() == pytest.approx(answer.logprobs, abs=1e-4)
        assert ablation.change.abs().max() > 1e-4
    assert len(session.history) == 2


# --------------------------------------------------------------------------------------------------- faithfulness


def one_at_a_time(answer: Answer, tokens: Any) -> torch.Tensor:
    """How much the tokens lose when one image token becomes their mean: faithful by construction."""
    replay: Any = answer.replay
    units = replay.removable("image")
    rows = torch.zeros(len(units) + 1, replay.length, dtype=torch.bool)
    for row, position in enumerate(units, 1):
        rows[row, position] = True
    likely = replay.without(rows, BatchSize(4, "prompts"))[:, list(tokens)].mean(-1)
    scores = torch.zeros(replay.length)
    scores[units] = likely[0] - likely[1:]
    return scores


@pytest.mark.parametrize(("name", "way"), [("qwen3_vl", "full+crop"), ("kosmos-2", None), ("vipllava", None)])
def test_a_faithful_map_beats_random_ones(name: str, way: str | None) -> None:
    _, answer = asked(name, way)
    found = faithfulness(
        {"faithful": one_at_a_time, "raw attention": MAPS["raw attention"]}, [answer], steps=5, random_maps=3
    )
    assert found.deletion_area["faithful"] < found.deletion_area["random"]
    assert found.insertion_area["faithful"] > found.insertion_area["random"]
    whole = torch.tensor(answer.logprobs).mean().exp()
    for curve in (found.deletion["raw attention"], found.insertion["random"].flip(0)):
        torch.testing.assert_close(curve[0], whole, atol=1e-4, rtol=0)


def test_what_cannot_be_measured_is_refused_in_words() -> None:
    _, answer = asked("qwen3_vl")
    with pytest.raises(ValueError, match='has no region tokens to remove; use over="image"'):
        faithfulness(["raw attention"], [answer], over="regions")
    with pytest.raises(RuntimeError, match="only the attention weights of a qwen3_vl are recorded"):
        faithfulness(["rollout"], [answer])
