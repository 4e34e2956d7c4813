"""What a step of training takes is estimated as measured, and what does not fit is said before the first."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from learnable import OPTIONS, copy_of, records
from living import Living
from tiny import tiny_gpt4roi

from gpt4roi_nb import GPT4RoIConfig, memory
from gpt4roi_nb.train import cost, train
from gpt4roi_nb.train.parts import STAGES, choose_parts

CPU = torch.device("cpu")


def step_peak(model, rows: int, tokens: int) -> int:
    """Bytes that a step on the meta device holds at one time: its gradients, and what is kept for them."""
    device, dtype, config = torch.device("meta"), model.language_model.dtype, model.config
    size, width = config.vision_config.image_size, config.text_config.hidden_size
    with device, Living(model) as living:
        encoding = model.encode_image(torch.empty(rows, 3, size, size))
        regions = model.encode_regions(encoding.fused_maps, [torch.empty(1, 4)] * rows)
        words = torch.empty(rows, tokens - 1 - config.num_image_tokens, width, dtype=dtype)
        prompt = torch.cat([encoding.image_features, regions.view(rows, 1, width).to(dtype), words], dim=1)
        # A mask of its own: to make one, transformers would look at numbers, which the meta device has not.
        mask = torch.zeros(1, 1, tokens, tokens, dtype=dtype)
        logits = model.language_model(inputs_embeds=prompt, attention_mask=mask, use_cache=False).logits
        targets = torch.zeros(rows * tokens, dtype=torch.long)
        F.cross_entropy(logits.float().flatten(0, 1), targets, reduction="none").sum().backward()
        return living.peak


@pytest.mark.parametrize(
    ("stage", "dtype", "rows", "tokens", "checkpointing"),
    [
        (1, torch.float16, 2, 800, False),
        (1, torch.float16, 1, 400, True),
        (2, torch.float32, 1, 400, False),
    ],
)
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
def test_a_step_of_the_real_model_takes_no_more_than_is_computed(stage, dtype, rows, tokens, checkpointing):
    model = memory.skeleton(GPT4RoIConfig()).to(dtype).train()
    choose_parts(model, STAGES[stage], None)
    if checkpointing:
        model.gradient_checkpointing_enable()
    step = cost.step_bytes(model, rows, tokens, itemsize=dtype.itemsize, checkpointing=checkpointing)
    without_moments = step - cost.MOMENTS * cost.trained_bytes(model)
    assert 0.6 < step_peak(model, rows, tokens) / without_moments < 1


def test_what_trains_takes_twelve_bytes_a_parameter_beside_its_weights():
    """As docs/training.md says: float32 gradients and two moments."""
    model = memory.skeleton(GPT4RoIConfig())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("region_encoder"))
    trained = sum(parameter.numel() for parameter in model.region_encoder.parameters())
    assert cost.step_bytes(model, 0, 1, itemsize=4, checkpointing=False) == 12 * trained


@pytest.fixture
def model():
    return tiny_gpt4roi().model


def check(model, batch_size, **options):
    cost.check_step(model, CPU, batch_size, 2048, **{"half": False, "checkpointing": False, **options})


def needed(model, rows, checkpointing=False):
    tokens = memory.prompt_tokens(model.config)
    return cost.step_bytes(model, rows, tokens, itemsize=4, checkpointing=checkpointing)


def test_what_fits_is_let_through(model, monkeypatch):
    monkeypatch.setattr(cost, "free_bytes", lambda device: needed(model, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(model, 8)
        check(model, 8, half=True)


def test_a_batch_that_is_too_large_is_told_with_what_would_fit(model, monkeypatch):
    free = needed(model, 8, True)
    fitting = max(rows for rows in range(9) if needed(model, rows) <= free)
    assert 1 < fitting < 8
    monkeypatch.setattr(cost, "free_bytes", lambda device: free)
    words = rf"batch_size=8 takes about .* fit: batch_size={fitting}, .*accumulation.*, or gradient_checkpointing=True$"
    with pytest.warns(UserWarning, match=words):
        check(model, 8)
    monkeypatch.setattr(cost, "free_bytes", lambda device: 3 * cost.trained_bytes(model))
    with pytest.warns(UserWarning, match="what would fit: batch_size=1 with gradient_checkpointing=True comes nearest"):
        check(model, 8, checkpointing=True)


def test_what_can_never_fit_is_refused(model, monkeypatch):
    monkeypatch.setattr(cost, "free_bytes", lambda device: 3 * cost.trained_bytes(model) - 1)
    with pytest.raises(MemoryError, match=r"gradients of what trains and Adam's moments need .*lora=\{\}, train fewer"):
        check(model, 1)


def test_training_says_so_before_the_first_step(tmp_path, monkeypatch):
    gpt4roi = tiny_gpt4roi(seed=1)
    before = copy_of(gpt4roi)
    monkeypatch.setattr(cost, "free_bytes", lambda device: 1000)
    with pytest.raises(MemoryError, match=r"but 1\.00 kB are free on cpu: train the language model by lora"):
        train(gpt4roi, records(tmp_path), tmp_path, tmp_path / "out", **OPTIONS)
    after = gpt4roi.model.state_dict()
    assert all(torch.equal(after[name], values) for name, values in before.items())
