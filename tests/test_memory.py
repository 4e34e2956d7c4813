"""The memory computed from a configuration is what a model and a session take; what does not fit raises an error."""

from __future__ import annotations

import sys
import time
import traceback
import weakref

import pytest
import torch
from living import Living
from tiny import tiny_config, tiny_gpt4roi, tiny_image, tiny_model
from transformers.cache_utils import Cache

from gpt4roi_nb import GPT4RoI, GPT4RoIConfig, GPT4RoIForConditionalGeneration, memory
from gpt4roi_nb.inference.cache import ROOM, new_cache

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
DTYPES = (torch.float32, torch.float16)
GB = 10**9


def taken_by(cache: Cache) -> int:
    rooms = [room for layer in cache.layers for room in (layer._key_room, layer._value_room)]
    return sum(room.untyped_storage().nbytes() for room in rooms)


def tokens_of(config: GPT4RoIConfig, regions: int) -> int:
    """Tokens of the assumed question and its answer."""
    text = memory.TEXT_TOKENS + regions * memory.TOKENS_PER_REGION
    return config.num_image_tokens + text + memory.ANSWER_TOKENS


def traced(config: GPT4RoIConfig, dtype: torch.dtype, regions: int) -> dict[str, int]:
    """What a session takes, part by part: its computations on the meta device, where tensors have shapes only."""
    model = memory.skeleton(config).to(dtype).eval()
    tokens = tokens_of(config, regions) - memory.ANSWER_TOKENS
    size = config.vision_config.image_size
    with torch.inference_mode(), torch.device("meta"), Living(model) as living:
        encoding = model.encode_image(torch.empty(1, 3, size, size))
        taken = {"encoding": living.peak, "image": living.now}
        living.peak = 0
        region_tokens = model.encode_regions(encoding.fused_maps, [torch.empty(regions, 4)])
        taken["pooling"] = living.peak - taken["image"]
        cache = new_cache()
        embeddings = torch.empty(1, tokens, config.text_config.hidden_size, dtype=dtype)
        living.peak = 0
        before = living.now
        model.language_model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True, logits_to_keep=1)
        taken["reading"] = living.peak - before - taken_by(cache)
        for _ in range(memory.ANSWER_TOKENS):
            for layer, like in enumerate(list(cache.layers)):
                step = torch.empty(*like.keys.shape[:2], 1, like.keys.shape[-1], dtype=dtype)
                cache.update(step, step, layer)
        taken["cache"] = taken_by(cache)
        taken["regions"] = region_tokens.untyped_storage().nbytes()
    return taken


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_gpt4roi(seed=1).save_pretrained(folder)
    return folder


def asked(gpt4roi: GPT4RoI) -> str:
    return str(gpt4roi.session(tiny_image()).ask("What is <region1>?", [(3, 4, 30, 40)], max_new_tokens=4))


SIZES = {"tiny": tiny_config, "real": GPT4RoIConfig}  # real: the computations of GPT4RoI-7B, without its numbers


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "regions"), [("tiny", 1), ("tiny", 8), ("real", 1), ("real", 64)])
def test_a_session_takes_no_more_than_is_computed(size, dtype, regions):
    config = SIZES[size]()
    taken, computed = traced(config, dtype, regions), memory.cache_bytes(config, dtype, regions)
    # A cache has room for up to 64 tokens more than it holds.
    room = ROOM * computed / tokens_of(config, regions)
    assert computed <= taken["cache"] <= computed + room
    kept = taken["image"] + taken["regions"] + taken["cache"]
    peak = max(taken["encoding"], kept + max(taken["pooling"], taken["reading"]))
    assert peak <= memory.session_bytes(memory.skeleton(config), dtype, regions)


@pytest.mark.slow
def test_the_headroom_is_what_was_measured():
    """Neither too little for the largest session in the tables, nor twice what it needs."""
    taken = traced(GPT4RoIConfig(), torch.float32, 64)
    beside_cache = taken["image"] + taken["regions"] + max(taken["pooling"], taken["reading"])
    beside_cache += taken["cache"] - memory.cache_bytes(GPT4RoIConfig(), torch.float32, 64)
    assert 0.5 < beside_cache / (memory.HEADROOM * torch.float32.itemsize) < 1


def test_a_small_model_needs_no_more_headroom_than_it_weighs():
    model = memory.skeleton(tiny_config())
    headroom = memory.session_bytes(model, torch.float32) - memory.cache_bytes(tiny_config(), torch.float32)
    assert headroom == memory.weight_bytes(model, torch.float32)


def test_a_real_session_keeps_no_more_than_these_bytes():
    gpt4roi = tiny_gpt4roi()
    session = gpt4roi.session(tiny_image())
    answer = session.ask("What is <region1>?", [(3, 4, 30, 40)], max_new_tokens=memory.ANSWER_TOKENS)
    config = gpt4roi.model.config
    encoding = session._encoded.encoding
    kept = {
        tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes()
        for tensor in (encoding.image_features, *encoding.levels, *encoding.fused_maps)
    }
    region_tokens = session._encoded.region_tokens([(3, 4, 30, 40)]).nbytes
    assert answer.prompt_tokens <= tokens_of(config, 1) - memory.ANSWER_TOKENS
    total = sum(kept.values()) + region_tokens + taken_by(session._cache)
    assert total <= memory.session_bytes(gpt4roi.model, torch.float32)


@pytest.mark.parametrize("regions", [1, 8, 64])
def test_a_question_about_so_many_regions_is_as_long_as_assumed(regions):
    processor = tiny_gpt4roi().processor
    names = ", ".join(f"<region{number}>" for number in range(1, regions + 1))
    prompt = processor.prompt([("user", f"Describe each of these in detail, and how they differ: {names}.")])
    text = len(prompt.input_ids) - processor.num_image_tokens
    assert text <= memory.TEXT_TOKENS + regions * memory.TOKENS_PER_REGION


def tied(**text_config) -> GPT4RoIConfig:
    return tiny_config(text_config={**tiny_config().text_config.to_dict(), "tie_word_embeddings": True, **text_config})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [tiny_config, tied])
def test_the_weights_take_what_is_computed(config, dtype):
    model = tiny_model(config()).to(dtype)
    actual = sum(parameter.nbytes for parameter in model.parameters())
    assert memory.weight_bytes(memory.skeleton(config()), dtype) == actual
    assert memory.weight_bytes(model, dtype) == actual


def test_the_real_model_takes_what_its_authors_files_take():
    # 7,344,985,856 numbers: LLaMA-7B with six rows more, CLIP ViT-L/14 and the region module.
    assert memory.weight_bytes(memory.skeleton(GPT4RoIConfig()), torch.float16) == 2 * 7_344_985_856


def test_a_skeleton_leaves_the_configuration_alone():
    config = tiny_config()
    before = config.to_dict()
    assert {parameter.device.type for parameter in memory.skeleton(config).parameters()} == {"meta"}
    assert config.to_dict() == before


@pytest.fixture
def free(monkeypatch):
    """Set the free memory, by type of device, in place of the machine's."""

    def say(**sizes: float) -> None:
        monkeypatch.setattr(memory, "free_bytes", lambda device: sizes.get(device.type))

    return say


def check(*devices, dtype=torch.float16, quantization=None, config=None, compiled=False):
    memory.check_memory(config or GPT4RoIConfig(), devices, dtype, quantization, "big", compiled=compiled)


def test_what_fits_is_let_through(free):
    free(cpu=40 * GB, cuda=16 * GB)
    check(GPU)
    check(CPU, dtype=torch.float32)
    free(cuda=6 * GB)
    check(GPU, quantization="4bit")


@pytest.mark.parametrize(
    ("gpu", "cpu", "advice"),
    [
        (12, 8, 'the smallest change that fits: quantization="8bit", dtype="float16", which needs 8.82 GB'),
        (7, 8, 'the smallest change that fits: quantization="4bit", dtype="float16", which needs 5.98 GB'),
        (4, 20, 'the smallest change that fits: device="cpu", dtype="bfloat16", which needs 15.3 GB'),
        (4, 10, 'the smallest change that fits: device="cpu", quantization="8bit", dtype="bfloat16", which needs 8.82'),
        (4, 4, r'nothing smaller fits either \(quantization="4bit", dtype="float16" needs 5.98 GB\): free memory'),
    ],
)
def test_the_smallest_change_that_fits_a_gpu_is_named(free, gpu, cpu, advice):
    free(cpu=cpu * GB, cuda=gpu * GB)
    begin = r"'big' needs 15.3 GB \(14.7 GB for the weights as float16 and 602 MB for a session\), but "
    with pytest.raises(MemoryError, match=f"{begin}{memory.in_words(gpu * GB)} are free on cuda:0; {advice}"):
        check(GPU)


def test_compiled_steps_need_a_cache_more(saved, free):
    """It has 1024 tokens, for the 614 of a question with one region and its answer."""
    config = GPT4RoIConfig()
    more = memory.fixed_cache_bytes(config, torch.float16)
    assert more == 1024 * memory.token_bytes(config, torch.float16)
    least = memory._needed(memory.skeleton(config), torch.float16, None, "cuda")
    free(cuda=least + more)
    check(GPU, compiled=True)
    free(cuda=least + more - 1)
    check(GPU)
    with pytest.raises(
        MemoryError, match=r"for a compiled session.*the smallest change that fits: compile=False, which"
    ):
        check(GPU, compiled=True)
    free(cuda=12 * GB)
    with pytest.raises(
        MemoryError, match=r'fits: compile=False, quantization="8bit", dtype="float16", which needs 8\.82'
    ):
        check(GPU, compiled=True)
    tiny = memory.skeleton(tiny_config())
    free(cpu=memory._needed(tiny, torch.float32, None, "cpu"))
    with pytest.raises(MemoryError, match="compile=False"):
        GPT4RoI.from_pretrained(saved, device="cpu", compile=True)
    GPT4RoI.from_pretrained(saved, device="cpu")


def test_the_smallest_change_that_fits_a_cpu_is_named(free):
    free(cpu=20 * GB)
    with pytest.raises(MemoryError, match='free on cpu; the smallest change that fits: dtype="bfloat16", which needs'):
        check(CPU, dtype=torch.float32)
    free(cpu=10 * GB)
    with pytest.raises(MemoryError, match='fits: quantization="8bit", dtype="bfloat16", which needs'):
        check(CPU, dtype=torch.float32)
    with pytest.raises(MemoryError, match=r"5.38 GB for the weights in 4 bits .*nothing smaller fits either"):
        free(cpu=3 * GB)
        check(CPU, dtype=torch.bfloat16, quantization="4bit")


def test_devices_count_together(free):
    free(cpu=10 * GB, cuda=6 * GB)
    check(GPU, CPU)
    with pytest.raises(MemoryError, match=r"but 12\.0 GB are free on cuda:0 and cuda:1"):
        check(GPU, torch.device("cuda", 1))


def test_a_device_that_does_not_say_is_let_through(free):
    free(cpu=GB)
    check(torch.device("xpu"))


def test_too_little_memory_is_said_before_weights_are_read(saved, free, monkeypatch):
    free(cpu=100_000)
    monkeypatch.setattr(GPT4RoIForConditionalGeneration, "from_pretrained", None)
    with pytest.raises(MemoryError, match=r"tiny' needs \d+ kB .* but 100 kB are free on cpu; "):
        GPT4RoI.from_pretrained(saved)
    with pytest.raises(MemoryError, match="are free on cpu"):
        GPT4RoI.from_pretrained(saved, device_map="auto")


def test_the_comparison_can_be_left_out(saved, free):
    free(cpu=0)
    assert asked(GPT4RoI.from_pretrained(saved, device="cpu", check_free_memory=False))
    assert asked(GPT4RoI.from_pretrained(saved, device_map={"": "cpu"}, check_free_memory=False))


def test_a_place_on_disk_is_no_want_of_memory(saved, free, tmp_path):
    free(cpu=0)
    assert asked(GPT4RoI.from_pretrained(saved, device_map="auto", offload_folder=tmp_path, dtype=torch.float32))


def test_the_comparison_costs_little():
    config, started = GPT4RoIConfig(), time.process_time()
    for _ in range(3):
        memory.check_memory(config, [torch.device("xpu")], torch.float16)
    assert (time.process_time() - started) / 3 < 0.5  # a twentieth of that, on an idle machine


def test_the_memory_of_this_machine_is_known():
    assert 10**8 < memory.free_bytes(CPU) < 10**14


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """A container's control groups, as files; returns the function that writes them."""
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "OWN_CGROUP", tmp_path / "self")

    def write(own: str, files: dict[str, object]) -> None:
        (tmp_path / "self").write_text(own)
        for name, content in files.items():
            file = tmp_path / "cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{content}\n")

    return write


STAT = "anon 5\nfile 30\ninactive_file 10\nactive_file 20"


def test_the_limit_of_a_container_counts(cgroup):
    cgroup("0::/\n", {"memory.max": 1000, "memory.current": 600, "memory.stat": STAT})
    assert memory.free_bytes(CPU) == 1000 - 600 + 30  # what was read from files is given up


def test_the_limit_of_an_outer_group_counts(cgroup):
    cgroup(
        "1:name=systemd:/\n0::/user.slice/hub.service\n",
        {
            "user.slice/hub.service/memory.max": "max",
            "user.slice/hub.service/memory.current": 7,
            "user.slice/memory.max": 500,
            "user.slice/memory.current": 700,
            "user.slice/memory.stat": STAT,
        },
    )
    assert memory.free_bytes(CPU) == 0


def test_the_limit_of_an_old_container_counts(cgroup):
    stat = STAT.replace("inactive", "total_inactive").replace("\nactive", "\ntotal_active")
    cgroup(
        "3:cpu,memory:/docker/1234\n2:pids:/docker/1234\n",
        {
            "memory/memory.limit_in_bytes": 1000,
            "memory/memory.usage_in_bytes": 600,
            "memory/memory.stat": stat,
        },
    )
    assert memory.free_bytes(CPU) == 430


def test_without_a_limit_the_machine_counts(cgroup):
    cgroup("0::/\n", {"memory.max": "max", "memory.current": 600, "memory.stat": STAT})
    assert memory.free_bytes(CPU) > 10**8


def failing_model() -> tuple[GPT4RoI, list[weakref.ref]]:
    gpt4roi = tiny_gpt4roi()
    return gpt4roi, [weakref.ref(parameter) for parameter in gpt4roi.model.parameters()]


def fail(gpt4roi: GPT4RoI) -> None:
    """An error deep inside, whose frames hold the model."""

    def deep(*_: object) -> None:
        raise ZeroDivisionError

    gpt4roi.model.language_model.model.layers[1].mlp.forward = deep
    gpt4roi.session(tiny_image()).ask("What is <region1>?", [(3, 4, 30, 40)])


def test_an_error_that_is_kept_does_not_keep_the_memory():
    gpt4roi, weights = failing_model()
    kept = None
    try:
        with gpt4roi:
            fail(gpt4roi)
    except ZeroDivisionError as error:
        kept = error
    assert not any(weight() is not None for weight in weights)
    assert "deep" in "".join(traceback.format_exception(kept))  # where it happened can still be read


def test_unload_gives_back_what_the_last_error_of_a_notebook_holds(monkeypatch):
    gpt4roi, weights = failing_model()
    try:
        fail(gpt4roi)
    except ZeroDivisionError as error:
        monkeypatch.setattr(sys, "last_value", error, raising=False)  # as IPython does
    gpt4roi.unload()
    assert not any(weight() is not None for weight in weights)


def test_running_out_while_loading_gives_back_what_was_loaded(saved, monkeypatch):
    held = []

    def run_out(*_: object, **__: object) -> None:
        half_a_model = torch.empty(1000)
        held.append(weakref.ref(half_a_model))
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(GPT4RoIForConditionalGeneration, "from_pretrained", run_out)
    with pytest.raises(torch.OutOfMemoryError):
        GPT4RoI.from_pretrained(saved)
    assert held[0]() is None
