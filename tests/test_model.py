"""GPT4RoI as a transformers model: batches, padding, generation, precision, errors."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_config, tiny_model, tiny_processor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from gpt4roi_nb import GPT4RoIConfig, GPT4RoIForConditionalGeneration, GPT4RoIProcessor
from gpt4roi_nb.config import GPT4RoIRegionConfig

QUESTIONS = ["What is <region1>?", "How many things are there?", "Is <region2> left of <region1>, or behind <region3>?"]
BOXES = [
    torch.tensor([[0.1, 0.2, 0.6, 0.7]]),
    torch.zeros(0, 4),
    torch.tensor([[0.5, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0], [0.3, 0.3, 0.4, 0.9]]),
]


@pytest.fixture(scope="module")
def model() -> GPT4RoIForConditionalGeneration:
    return tiny_model()


@pytest.fixture(scope="module")
def processor() -> GPT4RoIProcessor:
    return tiny_processor(tiny_config())


@pytest.fixture(scope="module")
def pixel_values() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def batch(processor, pixel_values, rows, side="left"):
    processor.tokenizer.padding_side = side
    padded = processor.pad([processor.prompt([("user", QUESTIONS[row])]) for row in rows])
    padded.pop("labels")
    return {**padded, "pixel_values": pixel_values[list(rows)], "boxes": [BOXES[row] for row in rows]}


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_gives_each_row_what_it_gets_alone(model, processor, pixel_values, side):
    inputs = batch(processor, pixel_values, (0, 1, 2), side)
    with torch.no_grad():
        together = model(**inputs).logits
        for row in range(3):
            alone = model(**batch(processor, pixel_values, (row,))).logits[0]
            kept = together[row][inputs["attention_mask"][row].bool()]
            torch.testing.assert_close(kept, alone, atol=2e-5, rtol=1e-4)


def test_region_vectors_follow_the_order_of_the_boxes(model, processor, pixel_values):
    inputs = batch(processor, pixel_values, (2,))
    with torch.no_grad():
        straight = model(**inputs)
        turned = model(**{**inputs, "boxes": [BOXES[2].flip(0)]})
    torch.testing.assert_close(turned.region_features, straight.region_features.flip(0), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(turned.logits, straight.logits, atol=1e-3)


def test_generate_with_padding_gives_each_row_what_it_gets_alone(model, processor, pixel_values):
    greedy = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6}
    together = model.generate(**batch(processor, pixel_values, (0, 1, 2)), **greedy)
    for row in range(3):
        alone = model.generate(**batch(processor, pixel_values, (row,)), **greedy)
        assert together[row, -6:].tolist() == alone[0, -6:].tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 2, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3},
        {"use_cache": False},
    ],
    ids=["beams", "two of two beams", "three samples", "without a cache"],
)
def test_generate_in_other_ways(model, processor, pixel_values, options):
    inputs = batch(processor, pixel_values, (0, 1, 2))
    generated = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, **options)
    length = inputs["input_ids"].shape[1]
    assert generated.shape == (3 * options.get("num_return_sequences", 1), length + 4)


def test_without_a_cache_the_words_are_the_same(model, processor, pixel_values):
    inputs = batch(processor, pixel_values, (2,))
    greedy = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6}
    cached = model.generate(**inputs, **greedy)
    assert cached.equal(model.generate(**inputs, use_cache=False, **greedy))


def test_beams_encode_each_image_once(model, processor, pixel_values):
    seen = []
    hook = model.vision_tower.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    model.generate(**batch(processor, pixel_values, (0, 2)), num_beams=3, max_new_tokens=3, do_sample=False)
    hook.remove()
    assert seen == [2]


def test_one_beam_search_is_that_of_each_row_alone(model, processor, pixel_values):
    """Boxes are repeated with their rows: a mix-up would give a row another row's regions."""
    options = {"num_beams": 3, "max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    together = model.generate(**batch(processor, pixel_values, (0, 2)), **options)
    for place, row in enumerate((0, 2)):
        alone = model.generate(**batch(processor, pixel_values, (row,)), **options)
        assert together[place, -5:].tolist() == alone[0, -5:].tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_float32(processor, pixel_values, dtype):
    inputs = batch(processor, pixel_values, (0, 1, 2))
    with torch.no_grad():
        exact = tiny_model()(**inputs).region_features
        half = tiny_model().to(dtype)(**{**inputs, "pixel_values": pixel_values.to(dtype)})
    assert half.logits.dtype == dtype and half.logits.isfinite().all()
    similarity = torch.cosine_similarity(half.region_features.float(), exact)
    assert similarity.min() > 0.99


def test_boxes_keep_float32_precision_in_a_half_precision_model():
    """In bfloat16 a coordinate near 200 px would be rounded to whole pixels."""
    model = tiny_model().to(torch.bfloat16)
    maps = [torch.randn(1, 16, size, size, dtype=torch.bfloat16) for size in (8, 4)]
    head = model.region_encoder.head
    near = [head.pool(maps, [torch.tensor([[0.5, 0.5, 0.9, 0.9 + shift]])])[0].float() for shift in (0.0, 0.001)]
    assert not near[0].equal(near[1])


def test_eager_and_sdpa_agree(processor, pixel_values):
    inputs = batch(processor, pixel_values, (0, 1, 2))
    config = tiny_config()
    config._attn_implementation = "eager"
    with torch.no_grad():
        sdpa = tiny_model()(**inputs).logits
        eager_model = tiny_model(config)
        assert eager_model.language_model.config._attn_implementation == "eager"
        eager = eager_model(**inputs, output_attentions=True)
    mask = inputs["attention_mask"].bool()
    torch.testing.assert_close(eager.logits[mask], sdpa[mask], atol=1e-4, rtol=1e-3)
    assert len(eager.attentions) == config.text_config.num_hidden_layers


def test_every_trained_part_gets_a_gradient_also_with_checkpointing(processor, pixel_values):
    turns = [("user", QUESTIONS[0]), ("assistant", "a red cone")]
    conversation = processor.conversation(turns)
    inputs = {
        "input_ids": conversation["input_ids"][None],
        "labels": conversation["labels"][None],
        "pixel_values": pixel_values[:1],
        "boxes": BOXES[:1],
    }
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert all(layer.gradient_checkpointing for layer in model.region_encoder.fusion.rounds)
            assert all(layer.gradient_checkpointing for layer in model.language_model.model.layers)
        model(**inputs).loss.backward()
        without = [
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is None and not name.startswith("vision_tower")
        ]
        assert without == []
        gradients.append(model.region_encoder.head.output_projection.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


def test_checkpointing_keeps_fewer_activations_of_the_fusion(pixel_values):
    def kept(checkpointing: bool) -> int:
        model = tiny_model().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: sizes.append(tensor.numel()), lambda size: size):
            model.encode_image(pixel_values)
        return sum(sizes)

    assert kept(checkpointing=True) < 0.7 * kept(checkpointing=False)


def test_a_new_region_encoder_begins_at_the_fan_in_scale():
    """Not at the language model's `initializer_range`, with which its maps would fade away or blow up."""
    weights = {name: weight for name, weight in tiny_model().region_encoder.named_parameters() if weight.ndim > 1}
    for name, weight in weights.items():
        if weight.numel() > 200:
            assert weight.std().item() == pytest.approx((3 * weight[0].numel()) ** -0.5, rel=0.2), name
    assert len(weights) > 5


def test_encoded_features_stand_for_image_and_boxes(model, processor, pixel_values):
    inputs = batch(processor, pixel_values, (2,))
    with torch.no_grad():
        whole = model(**inputs)
        encoding = model.encode_image(inputs.pop("pixel_values"))
        features = model.encode_regions(encoding.fused_maps, inputs.pop("boxes"))
        split = model(**inputs, image_features=encoding.image_features, region_features=features)
    torch.testing.assert_close(split.logits, whole.logits)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boxes": [BOXES[2][:2]]}, r"\[3\] <bbox> tokens, but \[2\] boxes"),
        ({"boxes": None}, "3 <bbox> tokens, but 0 region features"),
        ({"boxes": None, "region_features": torch.zeros(1, 32)}, "3 <bbox> tokens, but 1 region features"),
        ({"pixel_values": None, "boxes": None}, "16 image tokens, but there are 0 image features"),
        ({"pixel_values": None, "image_features": torch.zeros(1, 9, 32)}, "16 image tokens, but there are 9"),
        ({"pixel_values": None, "image_features": torch.zeros(1, 16, 32)}, "boxes need pixel_values"),
        ({"inputs_embeds": torch.zeros(1, 3, 32)}, "not both"),
        ({"input_ids": None}, "either input_ids or inputs_embeds"),
    ],
)
def test_features_that_do_not_match_the_prompt_are_refused(model, processor, pixel_values, change, words):
    with pytest.raises(ValueError, match=words):
        model(**{**batch(processor, pixel_values, (2,)), **change})


def test_save_and_load_through_the_auto_classes(model, processor, pixel_values, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert isinstance(again, GPT4RoIForConditionalGeneration)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), GPT4RoIConfig)
    reloaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(reloaded, GPT4RoIProcessor)
    assert again.config.region_config.feature_layers == [2, 4]
    assert (again.config.level_sizes, again.config.region_token_id) == (model.config.level_sizes, 1002)
    inputs = batch(processor, pixel_values, (0, 1, 2))
    with torch.no_grad():
        assert again(**inputs).logits.equal(model(**inputs).logits)
    for question in QUESTIONS:
        turns = [("user", question)]
        assert reloaded.conversation(turns)["input_ids"].equal(processor.conversation(turns)["input_ids"])


def test_device_map(model, processor, pixel_values, tmp_path):
    model.save_pretrained(tmp_path)
    inputs = batch(processor, pixel_values, (2,))
    for device_map in ({"": "cpu"}, "auto"):
        placed = GPT4RoIForConditionalGeneration.from_pretrained(tmp_path, device_map=device_map)
        with torch.no_grad():
            assert placed(**inputs).logits.equal(model(**inputs).logits)


@pytest.mark.parametrize(
    ("vision", "region", "sizes"),
    [
        ({"image_size": 40, "patch_size": 8}, {"num_levels": 1, "feature_layers": [4]}, [5]),
        ({"image_size": 36, "patch_size": 12}, {"num_levels": 3, "feature_layers": [0, 2, 3]}, [12, 6, 3]),
        ({"num_hidden_layers": 12}, {"num_levels": 4, "feature_layers": None}, [32, 16, 8, 4]),
        ({"hidden_size": 24, "num_attention_heads": 3}, {"hidden_size": 32, "output_size": 3}, [8, 4]),
    ],
)
def test_every_size_follows_from_the_configuration(vision, region, sizes):
    base = tiny_config()
    config = tiny_config(
        vision_config={**base.vision_config.to_dict(), **vision},
        region_config={**base.region_config.to_dict(), **region},
    )
    assert config.level_sizes == sizes
    model = tiny_model(config)
    side = config.vision_config.image_size
    with torch.no_grad():
        encoding = model.encode_image(torch.zeros(2, 3, side, side))
        features = model.encode_regions(encoding.fused_maps, [BOXES[2], BOXES[0]])
    assert [tuple(maps.shape[-2:]) for maps in encoding.fused_maps] == [(size, size) for size in sizes]
    assert encoding.image_features.shape == (2, config.num_image_tokens, 32)
    assert features.shape == (4, 32)


def test_the_published_levels():
    assert GPT4RoIRegionConfig().layers_of(24) == [14, 17, 20, 23]
    assert GPT4RoIRegionConfig().layers_of(12) == [2, 5, 8, 11]
    defaults = GPT4RoIConfig()
    assert (defaults.num_image_tokens, defaults.level_sizes) == (256, [128, 64, 32, 16])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GPT4RoIRegionConfig(hidden_size=30), "divisible by 4"),
        (lambda: GPT4RoIRegionConfig(num_levels=0), "num_levels must be a whole number from 1 to 10, but is 0"),
        (lambda: GPT4RoIRegionConfig(num_levels=2, feature_layers=[1]), "names 1 feature_layers"),
        (lambda: GPT4RoIRegionConfig(num_levels=1, feature_layers=[9]).layers_of(4), "hidden states 0 to 4"),
        (lambda: GPT4RoIRegionConfig().layers_of(4), "deeper tower"),
        (lambda: tiny_config(vision_config={"image_size": 30, "patch_size": 8}), "multiple of patch_size"),
    ],
)
def test_impossible_sizes_are_refused_in_words(make, words):
    with pytest.raises(ValueError, match=words):
        make()
