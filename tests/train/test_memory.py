"""A training's memory is known before it begins: computed by hand for GPT4RoI-7B, and as PyTorch uses it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from learnable import OPTIONS, copy_of, records
from tiny import tiny_config, tiny_gpt4roi, tiny_model

from gpt4roi_nb import GPT4RoIConfig
from gpt4roi_nb.memory import skeleton
from gpt4roi_nb.train import memory, train
from gpt4roi_nb.train.memory import Settings, TrainingMemory, check_training_memory, training_memory
from gpt4roi_nb.train.parts import LORA_MARK, STAGES, adapter_numbers, choose_parts

GB = 1e9
CUDA = torch.device("cuda")
TOWER, PROJECTOR, ENCODER, LANGUAGE = 303_179_776, 4_198_400, 299_142_912, 6_738_464_768
# Of 16: four matrices of 4096 × 4096 and three of 4096 × 11008 in each of 32 layers.
ADAPTERS = 32 * 16 * (4 * (4096 + 4096) + 3 * (4096 + 11008))


@pytest.fixture(scope="module")
def seven():
    """GPT4RoI-7B in bfloat16, without its weights' values."""
    return skeleton(GPT4RoIConfig()).to(torch.bfloat16)


def test_the_second_stage_of_7b_takes_16_bytes_a_parameter_and_its_copies(seven):
    needed = training_memory(seven, Settings(STAGES[2], batch_size=2, tokens=600, half=False))
    trained = PROJECTOR + ENCODER + LANGUAGE
    assert needed.weights == 4 * trained + 2 * TOWER
    assert needed.gradients == 4 * trained and needed.optimizer == 8 * trained
    assert needed.total - needed.activations == pytest.approx(113.3 * GB, rel=1e-3)
    half = training_memory(seven, Settings(STAGES[2], batch_size=2, tokens=600, half=True))
    # The word embeddings are looked up, and so have no copy.
    assert half.weights - needed.weights == pytest.approx(2 * (trained - 32006 * 4096), rel=1e-3)
    # Eight GPUs hold an eighth each.
    eighth = training_memory(seven, Settings(STAGES[2], half=True, shards=8))
    assert eighth.total - eighth.activations == pytest.approx(113.3 * GB / 8, rel=1e-3)


def test_adapters_and_the_first_stage_of_7b(seven):
    needed = training_memory(seven, Settings(STAGES[2], rank=16, batch_size=2, tokens=600, checkpointing=True))
    trained = PROJECTOR + ENCODER + ADAPTERS
    assert needed.gradients == 4 * trained and needed.optimizer == 8 * trained
    first = training_memory(seven, Settings(STAGES[1], half=False))
    assert first.weights == 4 * ENCODER + 2 * (TOWER + PROJECTOR + LANGUAGE)
    assert first.gradients + first.optimizer == 12 * ENCODER


def test_on_one_card_of_80_gb_the_second_stage_of_7b_needs_adapters_or_company(seven, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(80 * GB))
    settings = Settings(STAGES[2], batch_size=2, tokens=600, checkpointing=True)
    with pytest.raises(MemoryError) as refusal:
        check_training_memory(seven, settings, CUDA)
    said = str(refusal.value)
    assert "28.2 GB for gradients, 56.3 GB for the optimizer" in said and "80.0 GB are free for it" in said
    assert "the smallest change that fits: lora={}, which needs" in said
    assert "2 such GPUs by FSDP" in said
    check_training_memory(seven, Settings(STAGES[2], rank=16, batch_size=2, tokens=600), CUDA)
    check_training_memory(seven, Settings(STAGES[2], batch_size=2, tokens=600, checkpointing=True, shards=8), CUDA)
    check_training_memory(seven, Settings(STAGES[1], tokens=600), CUDA)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"checkpointing": True}, "fits: gradient_checkpointing=True, which needs"),
        (
            {"checkpointing": True, "batch_size": 1},
            "fits: gradient_checkpointing=True, batch_size=1, gradient_accumulation_steps=24, which needs",
        ),
        ({"rank": 16, "checkpointing": True}, r"fits: lora=\{\}, gradient_checkpointing=True, which needs"),
        (None, "nothing smaller fits either"),
    ],
)
def test_the_smallest_change_that_fits_is_named(seven, monkeypatch, change, words):
    """8 records of 2000 tokens, of which three batches make a step."""
    settings = Settings(STAGES[2], batch_size=8, tokens=2000)
    enough = GB if change is None else training_memory(seven, replace(settings, **change)).total
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(enough))
    with pytest.raises(MemoryError, match=words):
        check_training_memory(seven, settings, torch.device("mps"), accumulation=3)


def test_what_does_not_fit_is_refused_before_anything_is_changed(tmp_path, monkeypatch):
    gpt4roi = tiny_gpt4roi(seed=1)
    gpt4roi.model.to(torch.bfloat16)
    before = copy_of(gpt4roi)
    there = sum(weight.numel() * weight.element_size() for weight in gpt4roi.model.parameters())
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    with pytest.raises(MemoryError, match=r"needs at least .* on cpu .*, but only 2\d\d kB are free for it; nothing"):
        train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **OPTIONS)
    assert there + 1000 < 300_000 and not (tmp_path / "out").exists()
    assert all(
        value.dtype == torch.bfloat16 and value.equal(before[n]) for n, value in gpt4roi.model.state_dict().items()
    )
    assert all(weight.requires_grad for weight in gpt4roi.model.parameters())
    done = train(
        gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **{**OPTIONS, "max_steps": 1}, check_free_memory=False
    )
    assert done.state == "done"


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"target_modules": ["q_proj"]}, 32 * 16 * 2 * 4096),
        ({"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [0, 1], "r": 8}, 2 * 8 * 2 * 2 * 4096),
        ({"target_modules": r".*\.mlp\.\w+_proj"}, 32 * 16 * 3 * (4096 + 11008)),
        ({"target_modules": "all-linear"}, ADAPTERS),
        ({"init_lora_weights": "pissa"}, ADAPTERS),
    ],
)
def test_adapters_are_counted_of_the_matrices_that_peft_would_choose(seven, options, numbers):
    assert adapter_numbers(seven, options) == numbers
    needed = training_memory(seven, Settings(STAGES[2], rank=options.get("r", 16), adapters=numbers))
    assert needed.gradients == 4 * (PROJECTOR + ENCODER + numbers)
    every = training_memory(seven, Settings(STAGES[2], rank=options.get("r", 16)))
    assert (needed.activations < every.activations) == (numbers < ADAPTERS)
    assert not any(LORA_MARK in name for name, _ in seven.named_parameters())


def test_a_training_of_few_adapters_is_not_refused_for_what_all_would_need(tmp_path, monkeypatch):
    gpt4roi = tiny_gpt4roi(seed=1)
    counted = []
    monkeypatch.setattr(
        "gpt4roi_nb.train.checks.check_training_memory", lambda _, settings, *__: counted.append(settings)
    )
    lora = {"target_modules": ["q_proj"], "r": 2}
    done = train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **{**OPTIONS, "max_steps": 1, "lora": lora})
    trained = {part.name: part.trained for part in done.parts}
    assert counted[0].adapters == trained["language_model"] > 0


@pytest.mark.parametrize(
    ("there", "device", "counts"),
    [
        ("cuda:0", "cuda:0", True),
        ("cuda:1", "cuda:0", False),
        ("cuda:1", "cuda", True),  # the current one
        ("cuda:0", "cuda", False),
        ("mps:0", "mps", True),
        ("cpu", "cuda:0", False),
    ],
)
def test_weights_are_room_for_a_training_on_their_own_device(monkeypatch, there, device, counts):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 100)
    monkeypatch.setattr(memory, "training_memory", lambda *_: TrainingMemory(150, 0, 0, 0))
    weight = SimpleNamespace(device=torch.device(there), numel=lambda: 20, element_size=lambda: 4)
    model = SimpleNamespace(parameters=lambda: [weight])
    if counts:
        check_training_memory(model, Settings(STAGES[1]), torch.device(device))
    else:
        with pytest.raises(MemoryError, match=r"but only 0\.10 kB are free for it"):
            check_training_memory(model, Settings(STAGES[1]), torch.device(device))


def kept_bytes(compute, model) -> int:
    """The bytes that autograd keeps of a forward pass, besides the weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor, so that its address is not given away
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compute()
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize(
    ("way", "parts", "lora"),
    [("whole", STAGES[2], None), ("adapters", STAGES[2], {}), ("frozen", STAGES[1], None)],
)
def test_a_layer_keeps_what_is_counted_for_it(way, parts, lora, half):
    """A model that is frozen but for its adapters is in bfloat16, as a large one is loaded."""
    text = {**tiny_config().text_config.to_dict(), "hidden_size": 256, "num_key_value_heads": 4, "head_dim": 64}
    dtype = torch.float32 if way == "whole" else torch.bfloat16
    for wide in (512, 1024):
        model = tiny_model(tiny_config(text_config={**text, "intermediate_size": wide})).to(dtype)
        choose_parts(model, parts, lora)
        model.train()
        layer = model.language_model.model

        def compute(tokens: int, model=model, layer=layer) -> None:
            embeds = torch.zeros(1, tokens, 256, dtype=torch.float32 if half else dtype, requires_grad=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                layer(inputs_embeds=embeds)

        grown = kept_bytes(lambda: compute(128), model) - kept_bytes(lambda: compute(64), model)
        width, feed_forward = memory.LAYER_BYTES[way, half]
        assert grown / (64 * 2) == pytest.approx(width * 256 + feed_forward * wide, rel=0.05)


@pytest.mark.parametrize("half", [True, False])
def test_the_fusion_keeps_what_is_counted_for_it(half):
    tiny = tiny_config()
    config = tiny_config(
        vision_config={**tiny.vision_config.to_dict(), "num_hidden_layers": 12, "image_size": 64},
        region_config={
            **tiny.region_config.to_dict(),
            "num_levels": 4,
            "feature_layers": None,
            "hidden_size": 64,
            "num_fusion_rounds": 5,
        },
    )
    model = tiny_model(config)
    levels = [torch.zeros(1, config.num_image_tokens, config.vision_config.hidden_size) for _ in config.level_sizes]

    def compute() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            model.region_encoder.fusion(levels)

    region = config.region_config
    places = sum(size**2 for size in config.level_sizes) * region.hidden_size * region.num_fusion_rounds
    assert kept_bytes(compute, model) == pytest.approx(memory.FUSION_BYTES[half] * places, rel=0.05)
