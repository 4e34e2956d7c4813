"""Models of transformers in miniature behind the session: prompts, features, likelihoods, what they refuse."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_gpt4roi
from tiny_families import FAMILIES as TINY
from tiny_families import by_its_processor, tiny_family

from gpt4roi_nb.models import FAMILIES, PromptedModel
from gpt4roi_nb.models import images as images_module
from gpt4roi_nb.models.families import default_question, pieces_of, point
from gpt4roi_nb.models.images import SessionImages, prepare, resized_size
from gpt4roi_nb.models.prompts import build
from gpt4roi_nb.models.reading import cache_for, reader_of

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
BOX = (20.0, 10.0, 80.0, 60.0)
OPTIONS = ["a red ball", "a cube", "a red cone of wood"]


def loaded(name: str, way: str | None = None) -> PromptedModel:
    return PromptedModel(*tiny_family(name), way, "tiny")


def question_of(model: PromptedModel) -> str:
    return default_question(model.way, model.model_type)


EACH_WAY = [
    *((name, way, None) for name in TINY for way in FAMILIES[name].ways),
    *(("florence2", "native", task) for task in list(FAMILIES["florence2"].tasks)[1:]),  # None is the first
]


@torch.inference_mode()
@pytest.mark.parametrize(("name", "way", "question"), EACH_WAY)
def test_ids_pixels_and_logits_are_those_of_the_familys_own_processor_and_forward(
    name: str, way: str, question: str | None
) -> None:
    """Token ids equal; and from features that were passed in, the logits of one whole pass from pixels."""
    model = loaded(name, way)
    store = model.images()
    question = question or question_of(model)
    prompt = model.prompt(store, IMAGE, [("user", question)], {1: BOX})
    rendered = model.render(IMAGE, question, [BOX])
    assert rendered.text == prompt.rendered_text and rendered.note["way"] == way
    own = by_its_processor(name, prompt.rendered_text, list(rendered.images))
    assert prompt.input_ids == own["input_ids"][0].tolist()
    assert len(prompt.shown) == (2 if way == "full+crop" else 1)
    for key in prompt.shown[0].values:
        torch.testing.assert_close(torch.cat([image.values[key] for image in prompt.shown]), own[key])
    reader = reader_of(model.model, [prompt], 0, store.features(prompt.shown))
    logits = reader(model.model, reader.begin, cache_for(model.model.config))
    torch.testing.assert_close(logits[:, -1], model.model(**own).logits[:, -1], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_kosmos_2_completes_a_description_as_its_card_does() -> None:
    model = loaded("kosmos-2")
    told = model.render(IMAGE, "Describe <region1>.", [BOX])
    begun = "<phrase> It</phrase><object><patch_index_0100><patch_index_0626></object> is"
    assert told.text.endswith(f"<grounding>{begun}") and "Question" not in told.text
    prompt = model.prompt(model.images(), IMAGE, [("user", "describe <region1>")], {1: BOX})
    own = by_its_processor("kosmos-2", f"<grounding>{begun}", [IMAGE])
    assert prompt.input_ids == own["input_ids"][0].tolist()
    assert model.capabilities.free_question and "Question:" in model.render(IMAGE, "What is <region1>?", [BOX]).text
    said = "a<phrase> snowman</phrase><object><patch_index_0044><patch_index_0863></object>  by<phrase> a fire</phrase>"
    assert (
        model.without_boxes(said) == "a snowman by a fire" and loaded("qwen3_vl").without_boxes("a <b> c") == "a <b> c"
    )


@pytest.mark.parametrize(
    ("name", "way"),
    [*((name, None) for name in ("qwen3_vl", "internvl", "kosmos-2", "vipllava", "perception_lm")),
     ("paligemma", "draw"), ("kosmos-2", "draw")],
)  # fmt: skip
def test_what_a_person_types_is_never_a_special_token(name: str, way: str | None) -> None:
    model = loaded(name, way)
    tokenizer = model.processor.tokenizer
    added = {*tokenizer.get_added_vocab().values()}
    places = ("<patch_index_", "<loc", "<seg")  # of these some, since all would fill the prompt
    tokens = [token for token in tokenizer.get_added_vocab() if not token.startswith(places)]
    some = {
        "kosmos-2": ["<patch_index_0000>", "<patch_index_1023>"],
        "paligemma": ["<loc0000>", "<loc1023>", "<seg000>"],
    }
    typed = "".join([*tokens, *some.get(name, [])])
    assert added >= {*tokenizer.convert_tokens_to_ids(some.get(name, []))} and typed

    def special(text: str) -> list[int]:
        ids = model.prompt(model.images(), IMAGE, [("user", text)], {1: BOX}).input_ids
        return [one for one in ids if one in added]

    assert special(f"What is <region1>? {typed}") == special("What is <region1>?")
    letters = model.prompt(model.images(), IMAGE, [("user", f"What is <region1>? {typed}")], {1: BOX}).input_ids
    assert typed in tokenizer.decode(letters)


@torch.inference_mode()
@pytest.mark.parametrize("name", TINY)
def test_likelihoods_are_those_of_full_passes(name: str) -> None:
    model = loaded(name)
    question = question_of(model)
    found = model.likelihoods(IMAGE, question, [BOX], OPTIONS)
    prompt = model.prompt(model.images(), IMAGE, [("user", question)], {1: BOX})
    own = dict(by_its_processor(name, prompt.rendered_text, [model.render(IMAGE, question, [BOX]).images[0]]))
    for option, value in zip(OPTIONS, found, strict=True):
        end = model.answer_format.end_of_turn
        answer = model.processor.tokenizer(f"{' ' * (name == 'vipllava')}{option}{end}", add_special_tokens=False)[
            "input_ids"
        ]
        begins = [model.processor.tokenizer.bos_token_id] if name == "florence2" else []
        ids = torch.tensor([[*begins, *answer]])
        if name == "florence2":
            start = torch.tensor([[model.model.config.text_config.decoder_start_token_id]])
            logits = model.model(**own, decoder_input_ids=torch.cat([start, ids[:, :-1]], dim=1)).logits
        else:
            whole = {**own, "input_ids": torch.cat([own["input_ids"], ids], dim=1)}
            for key in ("attention_mask", "token_type_ids", "mm_token_type_ids", "image_embeds_position_mask"):
                if key in whole:
                    filler = 1 if key in ("attention_mask", "token_type_ids") else 0
                    whole[key] = torch.cat([whole[key], torch.full_like(ids, filler)], dim=1)
            logits = model.model(**whole).logits[:, own["input_ids"].shape[1] - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, ids[..., None]).sum()
        assert value == pytest.approx(float(expected), abs=1e-4)


def test_likelihoods_of_a_gpt4roi_are_those_of_its_labels() -> None:
    gpt4roi = tiny_gpt4roi()
    found = gpt4roi.likelihoods(IMAGE, "What is <region1>?", [BOX], OPTIONS)
    for option, value in zip(OPTIONS, found, strict=True):
        batch = gpt4roi.processor(IMAGE, [("user", "What is <region1>?"), ("assistant", option)], [BOX])
        with torch.inference_mode():
            loss = gpt4roi.model(**batch).loss
        assert value == pytest.approx(-float(loss) * int((batch["labels"][:, 1:] != -100).sum()), abs=1e-4)
    for batch_size in (1, 2):
        again = gpt4roi.likelihoods(IMAGE, "What is <region1>?", [BOX], OPTIONS, batch_size=batch_size)
        assert again == pytest.approx(found, abs=1e-4)
    twice = gpt4roi.likelihoods(IMAGE, "What is <region1>?", [BOX], [OPTIONS[0]] * 2)
    assert twice == pytest.approx(found[:1] * 2, abs=1e-4)
    assert gpt4roi.likelihoods(IMAGE, "What is <region1>?", [BOX], []) == []


@torch.inference_mode()
def test_an_image_is_encoded_once_and_features_of_several_are_those_of_one_call() -> None:
    model = loaded("qwen3_vl", "full+crop")
    store, calls = model.images(), []
    encode = images_module.encode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images_module, "encode", lambda *given: calls.append(1) or encode(*given))
        first = model.prompt(store, IMAGE, [("user", "What is <region1>?")], {1: BOX})
        store.features(first.shown)
        second = model.prompt(store, IMAGE, [("user", "What is <region1>?")], {1: (0.0, 0.0, 70.0, 50.0)})
        joined = store.features(second.shown)
    assert len(calls) == 3  # the whole image once, and each crop
    values = [image.values for image in second.shown]
    alone = model.model.get_image_features(
        pixel_values=torch.cat([one["pixel_values"] for one in values]),
        image_grid_thw=torch.cat([one["image_grid_thw"] for one in values]),
    )
    torch.testing.assert_close(torch.cat(joined.pooler_output), torch.cat(alone.pooler_output))
    for mine, its in zip(joined.deepstack_features, alone.deepstack_features, strict=True):
        torch.testing.assert_close(torch.cat(mine), torch.cat(its))


def test_the_resized_size_is_the_processors() -> None:
    for name, size in (("qwen2_5_vl", (140, 112)), ("qwen3_vl", (140, 112)), ("vipllava", None)):
        _, processor = tiny_family(name)
        assert resized_size(processor, prepare(processor, FAMILIES[name].format, IMAGE)) == size


def test_about_and_capabilities_say_what_is_so() -> None:
    about = loaded("qwen2_5_vl").about
    assert "regions=text (pixels, rounded to the nearest, x before y" in about
    assert "unverified" in about and "encoded once" in about
    assert "every question is read whole" in loaded("paligemma").about
    florence = loaded("florence2").capabilities
    assert not florence.free_question and not florence.several_regions and not florence.follow_ups
    assert florence.likelihood and not florence.roi_features
    qwen = loaded("qwen3_vl").capabilities
    assert qwen.free_question and qwen.several_regions and qwen.follow_ups and qwen.attention
    assert not loaded("vipllava", "crop").capabilities.several_regions
    assert (
        str(florence)
        == "no free question, no several regions, no follow ups, likelihood, attention, no attention map, "
        "no roi features"
    )
    everything = tiny_gpt4roi().capabilities
    assert everything.attention and everything.roi_features and everything.follow_ups


def test_a_gpt4roi_renders_too() -> None:
    rendered = tiny_gpt4roi().render(IMAGE, "What is <region1>?", [BOX])
    assert "region1" in rendered.text and "<bbox>" in rendered.text and rendered.images[0].size == IMAGE.size
    with pytest.raises(ValueError, match="names <region2>"):
        tiny_gpt4roi().render(IMAGE, "What is <region2>?", [BOX])


def test_a_fingerprint_changes_with_one_number() -> None:
    model = loaded("internvl")
    before = model.fingerprint()
    weight = model.model.get_input_embeddings().weight
    with torch.no_grad():
        weight[0, 0] += 1
        changed = model.fingerprint()
        weight[0, 0] -= 1
    assert changed != before and len(before) == 64
    with model.hold_weights(), torch.no_grad():  # which keeps the hash
        assert model.fingerprint() == before
        weight[0, 0] += 1
        assert model.fingerprint() == changed
        weight[0, 0] -= 1


def test_what_cannot_be_asked_is_refused_before_anything_runs() -> None:
    model = loaded("florence2")
    for text, boxes, why in (
        ("Why is <region1> red?", [BOX], "no free question"),
        ("Describe <region1>.", [], "there is no box for it"),
        ("", [], "is empty"),
        ("\ud83d <region1>", [BOX], "lone surrogate"),
    ):
        with pytest.raises(ValueError, match=why):
            model.render(IMAGE, text, boxes)
    with pytest.raises(ValueError, match="a text that is not empty"):
        loaded("qwen3_vl").likelihoods(IMAGE, "What is <region1>?", [BOX], ["a", " "])
    with pytest.raises(ValueError, match="chat template cannot write"):
        _, processor = tiny_family("qwen3_vl")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(processor, "chat_template", "{{ raise_exception('no images') }}")
            build("chat", processor, [("user", [("a", False)])], [[5]])


def test_images_are_forgotten_in_the_order_in_which_they_were_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "KEPT", 2)
    model = loaded("vipllava")
    store = SessionImages(model, "chat")
    shown = [Image.new("RGB", (60, 60), colour) for colour in ("red", "blue", "white")]
    first = store.prepared(shown[0])
    store.prepared(shown[1])
    assert store.prepared(shown[0]) is first
    store.prepared(shown[2])  # the blue one is forgotten
    assert store.prepared(shown[0]) is first and len(store._prepared) == 2
    store.release()
    assert store.prepared(shown[0]) is not first


def test_pointing_is_the_same_for_a_model_and_by_hand() -> None:
    model = loaded("kosmos-2")
    by_hand = point(IMAGE, {1: BOX}, "native", "kosmos-2")
    told = "".join(words for words, _ in pieces_of("What is <region1>?", by_hand, "native", "kosmos-2"))
    assert model.render(IMAGE, "What is <region1>?", [BOX]).text == f"<grounding> Question: {told} Answer:"
