"""Memory is estimated before work begins; batches are as large as it allows, and halved if it runs out."""

from __future__ import annotations

import warnings

import pytest
import torch
from living import Living
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb import GPT4RoIConfig, memory
from gpt4roi_nb.batches import BatchSize, check_room, less_memory
from gpt4roi_nb.capture import faithfulness
from gpt4roi_nb.capture.ablation import occlusion_bytes
from gpt4roi_nb.capture.flow import relevancy_bytes
from gpt4roi_nb.capture.recording import attention_modules, capture_attention, eager_attention
from gpt4roi_nb.session import describe

BOXES = [(3, 4, 30, 40), (20, 8, 60, 44), (1, 1, 20, 20), (5, 9, 33, 41)]


@pytest.fixture(scope="module")
def gpt4roi():
    return tiny_gpt4roi(seed=1)


@pytest.fixture
def session(gpt4roi):
    return gpt4roi.session(tiny_image())


@pytest.fixture
def free(monkeypatch):
    """Set the free memory, in place of the machine's."""
    return lambda size: monkeypatch.setattr(memory, "free_bytes", lambda device: int(size))


def real_model() -> torch.nn.Module:
    """GPT4RoI-7B in float16, without its numbers."""
    return memory.skeleton(GPT4RoIConfig()).to(torch.float16)


def test_work_at_the_size_of_the_real_model():
    """By hand: a token has 32 layers × 2 × 4096 numbers of keys and values, and 32,006 logits of 2 + 4 + 4 bytes."""
    found = memory.work_bytes(real_model(), rows=16, images=4, tokens=600, cached=10_000, logits=3)
    assert found == 10_000 * 524_288 + 16 * 3 * 32_006 * 10 + 16 * 280_000_000
    # Longer than the prompt that the headroom was measured on, of 256 + 96 + 64 × 6 tokens.
    longer = memory.work_bytes(real_model(), rows=1, images=1, tokens=2 * 736, cached=0, logits=0)
    assert longer == 2 * 280_000_000
    one = memory.work_bytes(real_model(), tokens=614, cached=614, logits=0)
    assert one == memory.session_bytes(real_model(), torch.float16)  # a session is work of one prompt


def test_relevancy_at_the_size_of_the_real_model():
    # By hand, 700 tokens in float16: 32 layers with 32 maps of 700² in 4 + 2 bytes and gradients of 2, and 700 tokens
    # of 16 × 4096 + 5 × 11008 numbers; and two layers' maps more.
    maps, tokens = 32 * 700**2, 700 * (16 * 4096 + 5 * 11008) * 2
    assert memory.graph_bytes(real_model(), 700) == 32 * (maps * (6 + 2) + tokens) + 2 * maps * 6


def relevancy_peak(model, tokens: int) -> int:
    """Bytes that a pass keeps for gradients, and the gradients of all attention weights."""
    maps = []
    modules = attention_modules(model)
    with (
        Living(model) as living,
        eager_attention(model),
        capture_attention(modules, lambda layer, weights: maps.append(weights)),
    ):
        device = model.multi_modal_projector.weight.device
        width = model.config.text_config.hidden_size
        embeddings = torch.empty(1, tokens, width, dtype=model.dtype, device=device).requires_grad_()
        # A mask of its own: to make one, transformers would look at numbers, which the meta device has not.
        mask = torch.zeros(1, 1, tokens, tokens, dtype=model.dtype, device=device)
        logits = model.language_model(
            inputs_embeds=embeddings, attention_mask=mask, use_cache=False, logits_to_keep=8
        ).logits[0]
        torch.autograd.grad(logits[3, 5], maps)
        return living.peak


@pytest.mark.parametrize("tokens", [320, 1400])
def test_gradients_of_the_real_model_take_what_is_computed(tokens):
    """On the meta device, where tensors have shapes only."""
    model = real_model().eval()
    peak = relevancy_peak(model, tokens)
    assert 0.6 * memory.graph_bytes(model, tokens) < peak < memory.graph_bytes(model, tokens)


def test_capture_takes_no_more_than_is_computed(gpt4roi, session):
    answer = session.ask("Is <region1> like <region2>?", BOXES[:2], max_new_tokens=5)
    attention = answer.attention()
    with Living(gpt4roi.model) as living:
        attention.relevancy(0)
    assert relevancy_bytes(answer.replay) / 4 < living.peak < relevancy_bytes(answer.replay)
    for batch_size in (1, 4):
        with Living(gpt4roi.model) as living:
            answer.occlusion(2, batch_size=batch_size)
        assert living.peak < occlusion_bytes(answer.replay, batch_size)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_describe_takes_no_more_than_is_computed(gpt4roi, session, batch_size):
    prompt = gpt4roi.processor.prompt([("user", "What is <region1>?")])
    with Living(gpt4roi.model) as living:
        session.describe(BOXES, "What is <region1>?", batch_size=batch_size, max_new_tokens=40)
    assert living.peak < describe.batch_bytes(session._encoded, prompt, batch_size, 40)


def test_what_does_not_fit_is_refused_before_it_begins(gpt4roi, session, free):
    answer = session.ask("What is <region1>?", BOXES[:1], max_new_tokens=3)
    attention, replay = answer.attention(), answer.replay
    handle = gpt4roi.model.language_model.register_forward_pre_hook(lambda *_: pytest.fail("it has begun"))
    try:
        free(relevancy_bytes(replay) - 1)
        with pytest.raises(MemoryError, match=r"relevancy, .*, needs .* free on cpu: look at rollout\(\) and"):
            attention.relevancy(0)
        free(1000)
        for look in (answer.attention, attention.rollout):
            with pytest.raises(MemoryError, match=r"(attention|rollout) needs .*, but 1\.00 kB are free on cpu: load "):
                look()
        with pytest.raises(MemoryError, match="the covered images, even one at a time, need"):
            answer.occlusion(2)
        with pytest.raises(MemoryError, match="the regions, even one at a time, need"):
            session.describe(BOXES)
    finally:
        handle.remove()
    free(relevancy_bytes(replay))
    assert attention.relevancy(0).shape == (answer.prompt_tokens,)
    free(1e15)
    assert answer.occlusion(4).shape == (1, 1)


def rows_of(module) -> tuple[list[int], object]:
    rows = []
    hook = module.register_forward_pre_hook(
        lambda _, args, named: rows.append(len(named["inputs_embeds"])), with_kwargs=True
    )
    return rows, hook


def test_little_memory_makes_batches_smaller(gpt4roi, session, free):
    prompt = gpt4roi.processor.prompt([("user", "What is <region1>?")])
    whole = session.describe(BOXES, "What is <region1>?", max_new_tokens=3)
    answer = whole[0]
    drops = answer.occlusion(2)
    free(describe.batch_bytes(session._encoded, prompt, 3, 3))
    rows, hook = rows_of(gpt4roi.model.language_model)
    with hook, pytest.warns(UserWarning, match=r"^4 regions at a time need .*; continuing with 3 at a time$"):
        found = session.describe(BOXES, "What is <region1>?", max_new_tokens=3)
    assert max(rows) == 3
    assert [answer.token_ids for answer in found] == [answer.token_ids for answer in whole]
    free(occlusion_bytes(answer.replay, 2))
    rows, hook = rows_of(gpt4roi.model.language_model)
    with hook, pytest.warns(UserWarning, match="4 covered images at a time .* with 2 at a time"):
        torch.testing.assert_close(answer.occlusion(2), drops, atol=1e-4, rtol=1e-4)
    assert max(rows) == 2


def test_where_memory_runs_out_the_batch_is_halved(gpt4roi, session):
    whole = session.describe(BOXES, max_new_tokens=3)
    drops = whole[0].occlusion(2)
    few = {"steps": 3, "random_maps": 1, "batch_size": 8}

    def scores(answer, tokens):
        return torch.arange(answer.prompt_tokens)

    plain = faithfulness({"first": scores}, whole[:2], **few)

    def runs_out(module, args, named):
        if len(named["inputs_embeds"]) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with gpt4roi.model.language_model.register_forward_pre_hook(runs_out, with_kwargs=True):
        with pytest.warns(UserWarning, match="memory ran out; continuing with 2 regions") as warned:
            found = session.describe(BOXES, max_new_tokens=3)
        assert len(warned) == 1  # from four to two to one, and said once
        with pytest.warns(UserWarning, match="memory ran out; continuing with 2 covered images"):
            torch.testing.assert_close(whole[0].occlusion(2), drops, atol=1e-4, rtol=1e-4)
        with pytest.warns(UserWarning, match="memory ran out; continuing with 4 prompts") as warned:
            curves = faithfulness({"first": scores}, whole[:2], **few)
        assert len(warned) == 1
    torch.testing.assert_close(curves.deletion["first"], plain.deletion["first"], atol=1e-4, rtol=1e-4)
    assert [answer.token_ids for answer in found] == [answer.token_ids for answer in whole]
    assert [answer.replay.boxes for answer in found] == [answer.replay.boxes for answer in whole]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    ],
)
def test_whatever_says_that_memory_ran_out_halves(error):
    batch = BatchSize(5, "things", "buy some")
    with pytest.warns(UserWarning, match="memory ran out; continuing with 2 things at a time"):
        batch.halve(error)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch.halve(error)
    assert batch.size == 1
    with pytest.raises(MemoryError, match="ran out with the things one at a time: buy some; load the model") as raised:
        batch.halve(error)
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("out of luck"), ValueError("can't allocate memory")])
def test_another_error_is_raised_as_it_is(error):
    with pytest.raises(type(error)) as raised:
        BatchSize(4, "things").halve(error)
    assert raised.value is error


@pytest.mark.parametrize(("size", "fitting"), [(100, 8), (130, 8), (140, 9), (1000, 8)])
def test_the_largest_batch_that_fits_is_chosen(gpt4roi, free, size, fitting):
    free(94 if fitting == 9 else 89)
    batch = BatchSize(size, "things")
    with pytest.warns(UserWarning, match=f"{size} things at a time need .*; continuing with {fitting} at a time"):
        batch.fit(gpt4roi, lambda count: 4 + 10 * count)
    assert batch.size == fitting


def test_where_nobody_says_what_is_free_nothing_is_changed(gpt4roi, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    batch = BatchSize(4, "things")
    batch.fit(gpt4roi, lambda count: 10**18)
    assert batch.size == 4
    assert check_room(gpt4roi, 10**18, "it needs") is None


def test_a_model_that_was_loaded_without_the_comparison_is_never_refused(gpt4roi, free, monkeypatch):
    free(1)
    with pytest.raises(MemoryError, match="loaded with check_free_memory=False tries it all the same"):
        check_room(gpt4roi, 10**18, "it needs")
    monkeypatch.setattr(gpt4roi, "check_free_memory", False)
    assert check_room(gpt4roi, 10**18, "it needs") is None


def test_what_helps_leaves_out_what_a_model_has(gpt4roi):
    assert 'dtype="bfloat16"' in less_memory(gpt4roi.model) and "device=" not in less_memory(gpt4roi.model)
    half = tiny_gpt4roi(seed=1).model.to(torch.bfloat16)
    half.is_quantized = True
    assert less_memory(half) == "free memory (gpt4roi.unload(), other notebooks)"
