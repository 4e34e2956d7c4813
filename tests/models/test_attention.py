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
# Rows and columns of the tokens of IMAGE: of the resized image, or of a square.
GRIDS = {
    "qwen2_vl": (4, 5),
    "qwen2_5_vl": (4, 5),
    "qwen3_vl": (4, 5),
    "video_llama_3": (6, 9),
    "vipllava": (4, 4),
    "llava": (4, 4),
    "paligemma": (4, 4),
}
PADDED = (0, -20, 140, 120)  # the square around IMAGE


def loaded(name: str, way: str | None = None) -> PromptedModel:
    return PromptedModel(*tiny_family(name), way, "tiny")


@torch.inference_mode()
@pytest.mark.parametrize("name", [*TINY, "llava"])
def test_it_is_what_output_attentions_says(name: str) -> None:
    model = loaded(name)
    answer = model.session(IMAGE).ask(default_question(model.way, name), [BOX], max_new_tokens=6)
    attention = answer.attention()
    own = dict(by_its_processor(name, answer.told, [IMAGE]))
    if name in ("vipllava", "llava"):
        own = dict(by_its_processor(name, answer.told, list(model.render(IMAGE, "What is <region1>?", [BOX]).images)))
    replay = answer.replay
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
    assert model.capabilities.attention_map == (name in GRIDS or name == "kosmos-2")
    if name in GRIDS:
        places = own["input_ids"][0, :length] == model.model.config.image_token_id
        maps = rows[..., :length][..., places].unflatten(-1, GRIDS[name])
        shown = torch.stack([attention.to_image(token) for token in range(len(answer.tokens))])
        torch.testing.assert_close(shown, maps.mean(dim=(0, 1)), atol=1e-5, rtol=0)
        torch.testing.assert_close(attention.to_image(0, 1, 2), maps[1, 2, 0], atol=1e-5, rtol=0)
        assert attention.frame == (PADDED if name in ("vipllava", "llava") else (0, 0, 140, 100))
    elif name == "kosmos-2":
        queries = own["image_embeds_position_mask"][0, :length].bool()
        read = made.projection_attentions[0].mean(dim=0)[:, 1:17]  # a query's attention to each of 4 × 4 patches
        on_queries = rows[..., :length][..., queries]
        maps = (on_queries.mean(dim=(0, 1)) @ read).unflatten(-1, (4, 4))
        torch.testing.assert_close(attention.to_image(1), maps[1], atol=1e-5, rtol=0)
        assert attention.mass()["image"][1] == pytest.approx(float(on_queries[:, :, 1].sum(-1).mean()), abs=1e-5)
        assert float(attention.to_image(1).sum()) < float(attention.mass()["image"][1])
    else:
        with pytest.raises(ValueError, match="not known where the image's tokens"):
            attention.to_image(0)


@pytest.mark.parametrize("shape", [(100, 280), (280, 100), (112, 112)])
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "paligemma", "vipllava", "llava", "llava_next"])
def test_a_spike_lands_where_the_patch_lies(name: str, shape: tuple[int, int]) -> None:
    """One spot of the image is white: its patch is found in the pixels that the processor made, and in the map."""
    height, width = shape
    spot = (0.85 * width, 0.35 * height)
    image = Image.new("RGB", (width, height))
    image.paste((255, 255, 255), tuple(int(side) for side in (spot[0] - 5, spot[1] - 5, spot[0] + 5, spot[1] + 5)))
    model = loaded(name)
    attention = (
        model.session(image).ask(default_question(model.way, name), [(0, 0, 20, 20)], max_new_tokens=2).attention()
    )
    store = model.images()
    prepared = store.prepared(image)
    values = prepared.values["pixel_values"].float()
    if "image_grid_thw" in prepared.values:  # rows of patches, four that lie together after one another
        brightest = int(values.mean(-1).reshape(-1, 4).mean(-1).argmax())
    else:  # of several tiles the first is the whole image in small
        pixels = values.flatten(0, -4)[0].mean(0)
        brightest = int(pixels.unfold(0, 14, 14).unfold(1, 14, 14).amax((-1, -2)).argmax())
    weights = torch.zeros(attention.weights.shape)
    weights[..., attention.spans["image"][brightest]] = 1
    found = replace(attention, weights=weights).to_image(0)
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    rows, columns = (found > found.max() / 2).nonzero().T  # of tiles, all cells that a patch of the whole covers
    x1, y1, x2, y2 = attention.frame
    down, across = (y2 - y1) / found.shape[0], (x2 - x1) / found.shape[1]
    assert y1 + int(rows.min()) * down <= spot[1] + 5 and spot[1] - 5 <= y1 + (int(rows.max()) + 1) * down
    assert x1 + int(columns.min()) * across <= spot[0] + 5 and spot[0] - 5 <= x1 + (int(columns.max()) + 1) * across
    assert len(rows) <= 9 and len(rows) * down * across <= (x2 - x1) * (y2 - y1) / 6


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision"])
def test_of_tiles_the_rows_are_placed_and_the_marks_between_them_are_not(name: str) -> None:
    """16 tokens of the whole image in small, then rows of the tiles' patches, each with a mark at its end."""
    attention = loaded(name).session(IMAGE).ask("What is <region1>?", [BOX], max_new_tokens=2).attention()
    rows, columns = attention.grid, attention.columns
    tokens = attention.spans["image"]
    assert len(tokens) == 16 + rows * (columns + 1) and rows > 4 and columns > 4

    def placed(token: int) -> torch.Tensor:
        weights = torch.zeros(attention.weights.shape)
        weights[..., tokens[token]] = 1
        return replace(attention, weights=weights).to_image(0)

    third = placed(16 + 2 * (columns + 1) + 1)
    assert third[2, 1] == 1 and third.sum() == 1
    assert placed(16 + columns).sum() == 0  # a mark
    small = placed(15)  # the lower right sixteenth of the image
    assert small.sum() == pytest.approx(1, abs=1e-5)
    assert small[: int(rows * 3 / 4)].sum() == 0 and small[:, : int(columns * 3 / 4)].sum() == 0


@pytest.mark.parametrize(("way", "frame"), [("crop", (20, 10, 80, 60)), ("full+crop", (0, 0, 140, 100))])
def test_a_map_of_a_crop_covers_what_was_cut_out(way: str, frame: tuple[int, ...]) -> None:
    attention = loaded("qwen3_vl", way).session(IMAGE).ask("What is <region1>?", [BOX], max_new_tokens=2).attention()
    assert attention.frame == frame
    assert float(attention.to_image(0).sum()) == pytest.approx(float(attention.mass()["image"][0]), abs=1e-5)


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
    assert again.grid == 4 and again.only == attention.only and again.frame == attention.frame == (0, 0, 100, 100)
    resampled = loaded("kosmos-2").session(IMAGE).ask("What is <region1>?", [BOX], max_new_tokens=2).attention()
    resampled.save(tmp_path / "resampled.safetensors")
    again = Attention.load(tmp_path / "resampled.safetensors")
    torch.testing.assert_close(again.to_image(0), resampled.to_image(0))
    with pytest.raises(MemoryError, match="narrow it with"):
        answer.attention(limit=10)
    with pytest.raises(ValueError, match="layers must be some of 0 to 1"):
        answer.attention(layers=7)
    with pytest.raises(RuntimeError, match="an answer from a batch keeps nothing of its image"):
        model.answers([Question(IMAGE, "What is <region1>?", [BOX])], max_new_tokens=2)[0].attention()
    assert model.model.config._attn_implementation != "eager"
