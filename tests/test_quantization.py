"""The language model in 8 and 4 bits, on the CPU: what is quantised, what is not, and what it answers."""

from __future__ import annotations

import bitsandbytes
import pytest
import torch
from bitsandbytes import functional
from PIL import Image
from tiny import tiny_config, tiny_gpt4roi, tiny_image
from torch import nn

from gpt4roi_nb import GPT4RoI, GPT4RoIConfig, memory
from gpt4roi_nb.checkpoint.device import dtype_of_weights
from gpt4roi_nb.data.scenes.scene import make_scene
from gpt4roi_nb.quantization import QUANTIZATIONS, quantised_linears

BOX = (3, 4, 30, 40)
KINDS = {"8bit": bitsandbytes.nn.Linear8bitLt, "4bit": bitsandbytes.nn.Linear4bit}


def wide_config() -> GPT4RoIConfig:
    """Tiny, but with widths that 4 bits allow on every processor, and a bias, as in some language models."""
    text = {**tiny_config().text_config.to_dict(), "hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    return tiny_config(text_config={**text, "attention_bias": True, "initializer_range": 0.05})


@pytest.fixture(scope="module")
def gpt4roi():
    config = wide_config()
    return tiny_gpt4roi(seed=1, text_config=config.text_config.to_dict())


@pytest.fixture(scope="module")
def saved(gpt4roi, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "wide"
    gpt4roi.save_pretrained(folder)
    return folder


def load(path, quantization, **options) -> GPT4RoI:
    return GPT4RoI.from_pretrained(path, device="cpu", quantization=quantization, **options)


def quantised(model: nn.Module, quantization: str) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, KINDS[quantization])}


@pytest.mark.parametrize("dtype", [None, "float16", torch.float32])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_matrices_of_the_language_model_are_quantised_and_nothing_else(gpt4roi, saved, quantization, dtype):
    model = load(saved, quantization, dtype=dtype).model
    names = quantised(model, quantization)
    assert names.keys() == quantised_linears(gpt4roi.model).keys()
    assert len(names) == 14  # seven in each of two layers
    assert all(name.startswith("language_model.model.layers.") for name in names)
    kept = {"float16": torch.float16, None: torch.bfloat16}.get(dtype, dtype)
    weights = {f"{name}.weight" for name in names}
    assert {parameter.dtype for name, parameter in model.named_parameters() if name not in weights} == {kept}


def actual_bytes(model: nn.Module, quantization: str) -> int:
    total = sum(parameter.nbytes for parameter in model.parameters())
    for module in quantised(model, quantization).values():
        if quantization == "8bit":
            total += module.weight.SCB.nbytes
        else:
            total += module.weight.quant_state.absmax.nbytes + module.weight.quant_state.code.nbytes
    return total


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_quantised_weights_take_what_is_computed(gpt4roi, saved, quantization, dtype):
    computed = memory.weight_bytes(memory.skeleton(wide_config()), dtype, quantization)
    assert actual_bytes(load(saved, quantization, dtype=dtype).model, quantization) == computed
    assert computed < memory.weight_bytes(memory.skeleton(wide_config()), dtype)


@pytest.mark.parametrize(("quantization", "close"), [("8bit", 0.999), ("4bit", 0.98)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_quantised_logits_stay_near(gpt4roi, saved, quantization, close, dtype):
    inputs = gpt4roi.processor(tiny_image(), "What is <region1>?", [BOX])
    with torch.inference_mode():
        exact = gpt4roi.model(**inputs).logits.flatten()
        near = load(saved, quantization, dtype=dtype).model(**inputs).logits.float().flatten()
    assert torch.cosine_similarity(exact, near, dim=0) > close


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_demo_answers_the_same(quantization, caplog):
    scene = make_scene(seed=5)
    boxes = [thing.box for thing in scene.objects]
    image = Image.fromarray(scene.image)
    exact = GPT4RoI.from_pretrained(device="cpu").session(image).describe(boxes)
    near = load(None, quantization).session(image).describe(boxes)
    assert [str(answer) for answer in near] == [str(answer) for answer in exact]
    for one, other in zip(near, exact, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=0.3)
    assert not caplog.records  # bitsandbytes would tell of a cast for every layer and token


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_quantised_answer_can_be_looked_into(saved, quantization):
    """Relevancy is close to that of the exact model, since these kernels have a backward pass."""
    exact, near = (
        load(saved, kind).session(tiny_image()).ask("What is <region1>?", [BOX], max_new_tokens=3)
        for kind in (None, quantization)
    )
    assert near.attention().logprobs.tolist() == pytest.approx(near.logprobs, abs=0.02)
    assert near.ablate(1).change.isfinite().all()
    relevancy = near.attention().relevancy(0)
    assert relevancy.isfinite().all() and relevancy.max() > 0
    if near.token_ids[0] == exact.token_ids[0]:
        assert torch.cosine_similarity(relevancy, exact.attention().relevancy(0), dim=0) > 0.9


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_quantised_session_goes_on(saved, quantization):
    session = load(saved, quantization).session(tiny_image())
    first = session.ask("What is <region1>?", [BOX], max_new_tokens=4)
    second = session.ask("And <region2>?", [(20, 10, 60, 40)], max_new_tokens=4)
    assert len(first.token_ids) > 0
    assert second.reused_tokens >= first.prompt_tokens - 2


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_checkpoint_saved_quantised_comes_back_so(saved, quantization, tmp_path):
    gpt4roi = load(saved, quantization)
    gpt4roi.save_pretrained(tmp_path)
    loaded = load(tmp_path, None)
    assert quantised(loaded.model, quantization).keys() == quantised(gpt4roi.model, quantization).keys()
    assert loaded.model.dtype == torch.bfloat16
    ids = [
        each.session(tiny_image()).ask("What is <region1>?", [BOX], max_new_tokens=4).token_ids
        for each in (gpt4roi, loaded)
    ]
    assert ids[0] == ids[1]


def test_a_device_map_takes_quantisation(saved):
    model = GPT4RoI.from_pretrained(saved, quantization="8bit", device_map={"": "cpu"}, dtype="bfloat16").model
    assert len(quantised(model, "8bit")) == 14


def test_widths_that_a_processor_cannot_take_in_4_bits_are_told(tmp_path, monkeypatch):
    tiny_gpt4roi().save_pretrained(tmp_path)
    monkeypatch.setattr(functional, "has_avx512bf16", lambda: True)
    with pytest.raises(ValueError, match=r"multiples of 64 .* but language_model\S+ has 32 and 32; use .*8bit"):
        load(tmp_path, "4bit")
    assert load(tmp_path, "8bit")
    monkeypatch.setattr(functional, "has_avx512bf16", lambda: False)
    assert load(tmp_path, "4bit")


@pytest.mark.parametrize(
    ("given", "own", "quantization", "loaded"),
    [
        (None, torch.float32, "8bit", torch.float16),
        (None, torch.bfloat16, "4bit", torch.bfloat16),
        (None, torch.float32, None, torch.float32),
        ("auto", torch.float32, "8bit", torch.float32),
        ("bfloat16", torch.float32, None, torch.bfloat16),
        (torch.float16, torch.float32, "4bit", torch.float16),
        (None, None, None, torch.float32),
    ],
)
def test_the_dtype_of_what_is_not_quantised(given, own, quantization, loaded):
    config = wide_config()
    config.dtype = own
    assert dtype_of_weights(given, config, quantization, on_cpu=False) == loaded


@pytest.mark.parametrize(
    ("given", "quantization", "loaded"),
    [(None, None, torch.float32), (None, "4bit", torch.bfloat16), ("auto", None, torch.float16)],
)
def test_the_dtype_on_a_cpu(given, quantization, loaded):
    config = wide_config()
    config.dtype = torch.float16
    assert dtype_of_weights(given, config, quantization, on_cpu=True) == loaded


@pytest.mark.parametrize("dtype", ["float17", "Tensor", {"": "float16"}])
def test_an_unknown_dtype_is_told(saved, dtype):
    with pytest.raises(ValueError, match='dtype must be "auto", "float32", "bfloat16" or "float16", but is'):
        load(saved, None, dtype=dtype)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what is missing here")
def test_a_missing_gpu_is_told(saved):
    with pytest.raises(ValueError, match="device='cuda' needs a GPU that PyTorch can use, and there is none"):
        GPT4RoI.from_pretrained(saved, device="cuda")
