"""Attention of models of transformers: what `output_attentions` says, and what is refused in words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import FAMILIES as TINY
from tiny_families import by_its_processor, tiny_family

from gpt4roi_nb.capture import Attention
from gpt4roi_nb.models import PromptedModel
from gpt4roi_nb.models.attention import eager
from gpt4roi_nb.models.families import default_question
from gpt4roi_nb.session.region_model import Question

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
SQUARE = IMAGE.crop((0, 0, 100, 100))  # which ViP-LLaVA is shown without padding
BOX, OTHER = (20.0, 10.0, 80.0, 60.0), (70.0, 40.0, 130.0, 90.0)


def loaded(name: str, way: str | None = None) -> PromptedModel:
    return PromptedModel(*tiny_family(name), way, "tiny")


@torch.inference_mode()
@pytest.mark.parametrize("name", TINY)
def test_it_is_what_output_attentions_says(name: str) -> None:
    model = loaded(name)
    answer = model.session(IMAGE).ask(default_question(model.way, name), [BOX], max_new_tokens=6)
    attention = answer.attention()
    own = dict(by_its_processor(name, answer.told, [IMAGE]))
    if name == "vipllava":
        own = dict(by_its_processor(name, answer.told, list(model.render(IMAGE, "What is <region1>?", [BOX]).images)))
    replay = answer.recorder
    ids = torch.tensor([list(replay.ids[:-1])], dtype=torch.long)
    with eager(model.model):
        if name == "florence2":
            start = torch.tensor([[model.model.config.text_config.decoder_start_token_id]])
            made = model.model(**own, decoder_input_ids=torch.cat([start, ids], dim=1), output_attentions=True)
            expected, before, length = made.cross_attentions, 0, own["input_ids"].shape[1]
        else:
            length = own["input_ids"].shape[1]
            whole = {**own, "input_ids": torch.cat([own["input_ids"], ids], dim=1)}
            for key in ("attention_mask", "token_type_ids", "mm_token_type_ids", "image_embeds_position_mask"):
                if key in whole:
                    filler = 1 if key in ("attention_mask", "token_type_ids") else 0
                    whole[key] = torch.cat([whole[key], torch.full_like(ids, filler)], dim=1)
            made = model.model(**whole, output_attentions=True)
            expected, before = made.attentions, length - 1
    rows = torch.stack([layer[0] for layer in expected])[:, :, before + replay.first : before + len(replay.ids)]
    torch.testing.assert_close(attention.weights, rows[..., :length], atol=1e-5, rtol=0)
    if name != "florence2":
        torch.testing.assert_close(attention.to_answer, rows[..., length:], atol=1e-5, rtol=0)
    assert attention.weights.shape == (2, 4, len(answer.tokens), length)
    assert attention.logprobs.tolist() == pytest.approx(answer.logprobs, abs=1e-4)
    total = sum(attention.mass().values())
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-4, rtol=0)
    assert model.capabilities.attention


def test_maps_cover_the_image_where_its_tokens_are_a_grid() -> None:
    for name, shape in (("qwen2_5_vl", (4, 5)), ("qwen3_vl", (4, 5)), ("vipllava", (4, 4)), ("paligemma", (4, 4))):
        model = loaded(name)
        shown = SQUARE if name == "vipllava" else IMAGE
        attention = model.session(shown).ask(default_question(model.way, name), [BOX], max_new_tokens=3).attention()
        image = attention.to_image(0)
        assert tuple(image.shape) == shape
        assert float(image.sum()) == pytest.approx(float(attention.mass()["image"][0]), abs=1e-5)
    attention = loaded("kosmos-2").session(IMAGE).ask("What is <region1>?", [BOX], max_new_tokens=3).attention()
    with pytest.raises(ValueError, match="no known grid"):
        attention.to_image(0)


@pytest.mark.parametrize("shape", [(100, 280), (280, 100), (112, 112)])
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "paligemma", "vipllava", "llava"])
def test_a_spike_lands_where_the_patch_lies_or_there_is_no_map(name: str, shape: tuple[int, int]) -> None:
    """One spot of the image is white: its patch is found in the pixels that the processor made, and in the map."""
    height, width = shape
    spot = (0.85 * width, 0.35 * height)
    image = Image.new("RGB", (width, height))
    image.paste((255, 255, 255), tuple(int(side) for side in (spot[0] - 5, spot[1] - 5, spot[0] + 5, spot[1] + 5)))
    model = loaded(name)
    attention = (
        model.session(image).ask(default_question(model.way, name), [(0, 0, 20, 20)], max_new_tokens=2).attention()
    )
    if name in ("vipllava", "llava") and height != width:
        with pytest.raises(ValueError, match="padding beside an image that is not square"):
            attention.to_image(0)
        return
    store = model.images()
    prepared = store.prepared(image)
    values = prepared.values["pixel_values"].float()
    if "image_grid_thw" in prepared.values:  # rows of patches, four that lie together after one another
        brightest = int(values.mean(-1).reshape(-1, 4).mean(-1).argmax())
    else:
        (pixels,) = values.mean(1)
        brightest = int(pixels.unfold(0, 14, 14).unfold(1, 14, 14).mean((-1, -2)).argmax())
    weights = torch.zeros(attention.weights.shape)
    weights[..., attention.spans["image"][brightest]] = 1
    found = replace(attention, weights=weights).to_image(0)
    row, column = divmod(int(found.argmax()), found.shape[1])
    assert (row, column) == (int(spot[1] / height * found.shape[0]), int(spot[0] / width * found.shape[1]))


def test_a_follow_up_names_what_came_before() -> None:
    session = loaded("qwen3_vl", "full+crop").session(IMAGE)
    session.ask("What is <region1>?", [BOX], max_new_tokens=3)
    answer = session.ask("And what is <region2>?", [OTHER], max_new_tokens=3)
    attention = answer.attention(layers=1, heads=[0, 2])
    assert list(attention.spans) == ["first token", "image", "image2", "image3", "earlier turns", "question", "marks"]
    assert all(attention.spans.values()) and set(attention.regions) == {1, 2}
    places = sorted(place for places in attention.spans.values() for place in places)
    assert places == list(range(answer.prompt_tokens))
    assert attention.weights.shape[:2] == (1, 2) and answer.attention_size(layers=1, heads=[0, 2]) > 0


def test_what_else_there_is_to_look_at_is_refused_in_words(tmp_path: Path) -> None:
    model = loaded("vipllava")
    answer = model.session(SQUARE).ask("What is <region1>?", [BOX], max_new_tokens=3)
    attention = answer.attention()
    for look in (attention.rollout, attention.sinks, lambda: attention.relevancy(0)):
        with pytest.raises(
            RuntimeError, match=r"only the attention weights of a vipllava are recorded; .* cannot be computed"
        ):
            look()
    attention.save(tmp_path / "kept.npz")
    again = Attention.load(tmp_path / "kept.npz")
    torch.testing.assert_close(again.weights, attention.weights)
    assert again.grid == 4 and again.only == attention.only
    with pytest.raises(MemoryError, match="narrow it with"):
        answer.attention(limit=10)
    with pytest.raises(ValueError, match="layers must be some of 0 to 1"):
        answer.attention(layers=7)
    with pytest.raises(RuntimeError, match="is not recorded here"):
        model.answers([Question(IMAGE, "What is <region1>?", [BOX])], max_new_tokens=2)[0].attention()
    assert model.model.config._attn_implementation != "eager"
