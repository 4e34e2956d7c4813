"""The authors' layout is converted to ours with every tensor accounted for; impossible input raises a clear error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from authors import cut, parts, sizes_of, tiny_original, write_authors, write_base, write_tower
from safetensors import safe_open
from tiny import tiny_image

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.checkpoint import convert as convert_module
from gpt4roi_nb.checkpoint import convert_original, work
from gpt4roi_nb.checkpoint.__main__ import main
from gpt4roi_nb.checkpoint.delta import WrongBaseWarning
from gpt4roi_nb.checkpoint.keys import to_original

BOX = (3, 4, 30, 40)
EMBEDDINGS = "model.embed_tokens.weight"
PROJECTION = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def theirs():
    return tiny_original()


@pytest.fixture(scope="module")
def state(theirs):
    return parts(theirs)[0]


@pytest.fixture(scope="module")
def sizes(theirs):
    return sizes_of(theirs)


@pytest.fixture(scope="module")
def clip(theirs, tmp_path_factory):
    vision = theirs.model.config.vision_config.to_dict()
    return write_tower(tmp_path_factory.mktemp("clip"), parts(theirs)[1], vision)


@pytest.fixture
def source(state, sizes, tmp_path):
    return write_authors(tmp_path / "source", state, sizes, shards=3)


def convert(source: Path, target: Path, clip: Path, **options):
    return convert_original(source, target, **{"vision": clip, "progress": False, **options})


def asked(gpt4roi):
    return gpt4roi.session(tiny_image()).ask("What is <region1>?", [BOX], max_new_tokens=8)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            tensors.update({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
    return tensors


# ------------------------------------------------------------------------------------------------- a checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["bin", "safetensors"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_converted_checkpoint_answers_as_the_model_did(theirs, state, sizes, clip, tmp_path, layout, shards):
    source = write_authors(tmp_path / "source", state, sizes, shards=shards, layout=layout)
    convert(source, tmp_path / "target", clip)
    loaded = GPT4RoI.from_pretrained(tmp_path / "target", device="cpu")
    assert asked(loaded).token_ids == asked(theirs).token_ids
    assert asked(loaded).logprobs == pytest.approx(asked(theirs).logprobs, abs=1e-5)
    assert loaded.model.generation_config.eos_token_id == 2
    ours = theirs.model.state_dict()
    assert {name: tensor.tolist() for name, tensor in tensors_of(tmp_path / "target").items()} == {
        name: tensor.tolist() for name, tensor in ours.items()
    }


def test_every_tensor_is_in_the_report(theirs, state, clip, source, tmp_path):
    report = convert(source, tmp_path / "target", clip)
    fates = {fate.original: fate for fate in report.fates}
    assert {fate.name for fate in report.fates if fate.name} == set(theirs.model.state_dict())
    assert set(state) <= set(fates)
    assert fates[PROJECTION].what == "copied"
    assert fates[PROJECTION].name == "language_model.model.layers.0.self_attn.q_proj.weight"
    assert fates[PROJECTION].shape == (32, 32)
    ignored = {fate.original: fate.why for fate in report.fates if fate.what == "ignored"}
    assert "recomputed" in ignored["model.layers.1.self_attn.rotary_emb.inv_freq"]
    assert "only counts" in ignored["vision_model.embeddings.position_ids"]
    assert "part of CLIP" in ignored["logit_scale"]
    assert report.table().count("\n") == len(report.fates) - 1
    assert "49 copied" in str(report)
    written = json.loads((tmp_path / "target" / "conversion.json").read_text())
    assert len(written["fates"]) == len(report.fates)


@pytest.mark.slow
def test_the_tower_may_come_from_the_folder_that_the_configuration_names(state, sizes, clip, tmp_path):
    source = write_authors(tmp_path / "source", state, sizes, tower=str(clip))
    assert convert_original(source, tmp_path / "target", progress=False).vision == str(clip)


@pytest.mark.slow
def test_the_tower_may_lie_among_the_other_tensors(theirs, state, sizes, clip, tmp_path):
    tower = {f"model.vision_tower.{name}": tensor for name, tensor in parts(theirs)[1].items() if "vision" in name}
    vision = write_tower(tmp_path / "apart", {"unused": torch.ones(1)}, theirs.model.config.vision_config.to_dict())
    source = write_authors(tmp_path / "source", {**state, **tower}, sizes)
    with pytest.raises(ValueError, match=r"missing.*unknown, first unused"):
        convert(source, tmp_path / "target", vision)
    report = convert(source, tmp_path / "target", clip)
    assert "the tower comes from elsewhere" in {fate.why for fate in report.fates}


def test_a_tower_is_not_fetched_unasked(source, tmp_path):
    with pytest.raises(ValueError, match=r"nothing is downloaded unasked.*--vision"):
        convert_original(source, tmp_path / "target")


@pytest.mark.slow
def test_hub_ids_come_from_the_hubs_cache_when_offline(source, clip, tmp_path):
    """The cache as huggingface_hub lays it out; nothing is requested from the network."""
    for name, folder in (("some/delta", source), ("some/clip", clip)):
        repository = tmp_path / "cache" / f"models--{name.replace('/', '--')}"
        shutil.copytree(folder, repository / "snapshots" / ("a" * 40))
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("a" * 40)
    command = [sys.executable, "-m", "gpt4roi_nb.checkpoint", "convert", "some/delta", str(tmp_path / "target")]
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [*command, "--vision", "some/clip"], check=False, capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert "49 copied" in result.stdout
    result = subprocess.run(
        [*command[:-1], str(tmp_path / "second"), "--vision", "some/other"],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 2
    assert "no vision tower at 'some/other'" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "expected"), [(None, torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_dtype_is_the_sources_or_as_asked_for(source, clip, tmp_path, dtype, expected):
    report = convert(source, tmp_path / "target", clip, dtype=dtype)
    assert {tensor.dtype for tensor in tensors_of(tmp_path / "target").values()} == {expected}
    assert report.dtype == str(expected).removeprefix("torch.")
    assert GPT4RoI.from_pretrained(tmp_path / "target", device="cpu", dtype="auto").model.dtype == expected


def test_files_are_cut_at_the_limit(source, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "MAX_SHARD_BYTES", 100_000)
    convert(source, tmp_path / "target", clip)
    files = list((tmp_path / "target").glob("model-*.safetensors"))
    largest = max(tensor.numel() * 4 for tensor in tensors_of(tmp_path / "target").values())
    assert len(files) > 3 and max(file.stat().st_size for file in files) < max(100_000, largest) + 10_000
    GPT4RoI.from_pretrained(tmp_path / "target", device="cpu")


def test_a_mean_of_its_own_is_kept(theirs, source, clip, tmp_path):
    own = shutil.copytree(clip, tmp_path / "own")
    (own / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3]}')
    convert(source, tmp_path / "target", own)
    assert GPT4RoI.from_pretrained(tmp_path / "target").processor.image_processor.image_mean == [0.1, 0.2, 0.3]


def test_a_tokenizer_json_serves_as_well(canonical, source, clip, tmp_path):
    (source / "tokenizer.model").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks tokenizer\.model, and tokenizer\.json as well"):
        convert(source, tmp_path / "target", clip)
    canonical.save_pretrained(tmp_path / "json")
    shutil.copy(tmp_path / "json" / "tokenizer.json", source)
    convert(source, tmp_path / "target", clip)
    text = "What is it? 🦊 ### <bbox>"
    loaded = GPT4RoI.from_pretrained(tmp_path / "target").processor.tokenizer
    assert loaded(text)["input_ids"] == canonical(text)["input_ids"]


@pytest.mark.slow
def test_verify_lets_it_answer(source, clip, tmp_path):
    report = convert(source, tmp_path / "target", clip, verify=True)
    assert isinstance(report.verified, str) and "verified: it loads" in str(report)


@pytest.mark.slow
def test_what_could_not_be_verified_is_whole_and_can_be_verified_later(source, clip, tmp_path, monkeypatch):
    def too_small(*_, **__):
        raise MemoryError("needs 15 GB")

    monkeypatch.setattr(convert_module, "load_checkpoint", too_small)
    with pytest.raises(RuntimeError, match="is converted, but could not be verified: needs 15 GB"):
        convert(source, tmp_path / "target", clip, verify=True)
    monkeypatch.undo()
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "target").glob("*.safetensors")}
    report = convert(source, tmp_path / "target", clip, verify=True)
    assert report.verified is not None and len(report.fates) > 100
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "target").glob("*.safetensors")} == before


def test_a_link_to_another_disk_is_followed(source, clip, tmp_path):
    (tmp_path / "disk" / "folder").mkdir(parents=True)
    (tmp_path / "target").symlink_to(tmp_path / "disk" / "folder")
    convert(source, tmp_path / "target", clip)
    assert (tmp_path / "disk" / "folder" / "config.json").is_file() and (tmp_path / "target").is_symlink()


def test_two_conversions_do_not_write_to_one_folder(source, clip, tmp_path):
    partial = tmp_path / "target.partial"
    with work.begun(partial, {}, {}), pytest.raises(FileExistsError, match="another conversion is writing to"):
        convert(source, tmp_path / "target", clip)
    convert(source, tmp_path / "target", clip)


# ------------------------------------------------------------------------------------------------------ a delta


@pytest.fixture
def delta(state, sizes, tmp_path):
    """(delta folder, base folder)"""
    halves = cut(state)
    return (
        write_authors(tmp_path / "delta", halves[0], sizes, shards=2),
        write_base(tmp_path / "base", halves[1], {**sizes, "vocab_size": 1000}, shards=2),
    )


def test_a_delta_and_its_base_give_the_model_again(state, delta, clip, tmp_path):
    difference, base = cut(state)
    report = convert(delta[0], tmp_path / "target", clip, base=delta[1])
    fates = {fate.original: fate for fate in report.fates}
    assert fates[PROJECTION].what == "added"
    assert (fates[EMBEDDINGS].what, fates[EMBEDDINGS].why) == ("rows added", "rows from 1000 on come from the delta")
    assert fates["model.mm_projector.weight"].why == "not in the base"
    for name, tensor in tensors_of(tmp_path / "target").items():
        if not name.startswith("vision_tower."):
            theirs = to_original(name)
            assert tensor.dtype == torch.float16
            expected = difference[theirs].clone()
            if theirs in base:
                expected[: len(base[theirs])] += base[theirs]
            assert tensor.equal(expected), name
            torch.testing.assert_close(tensor.float(), state[theirs], atol=1e-3, rtol=1e-3)


def test_a_delta_without_its_base_is_noticed(delta, clip, tmp_path):
    with pytest.raises(ValueError, match=r"is a delta.*give its base with `base`"):
        convert(delta[0], tmp_path / "target", clip)


@pytest.mark.slow
@pytest.mark.parametrize("moved", [0.005, 0.05])
def test_a_base_that_was_trained_on_is_refused(delta, state, sizes, clip, tmp_path, moved):
    """As Vicuna is LLaMA, moved a little."""
    base = cut(state)[1]
    generator = torch.Generator().manual_seed(5)
    for name, tensor in base.items():
        step = torch.randn(tensor.shape, generator=generator) * tensor.float().std() * moved
        base[name] = (tensor.float() + (step if tensor.dim() > 1 else 0)).to(tensor.dtype)
    folder = write_base(tmp_path / "vicuna", base, {**sizes, "vocab_size": 1000})
    with pytest.raises(ValueError, match="was computed from another base"):
        convert(delta[0], tmp_path / "target", clip, base=folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", [PROJECTION, "model.layers.1.mlp.down_proj.weight", "lm_head.weight"])
def test_one_matrix_of_another_model_is_enough(delta, state, sizes, clip, tmp_path, name):
    base = cut(state)[1]
    base[name] = base[name].flip(0)
    folder = write_base(tmp_path / "mixed", base, {**sizes, "vocab_size": 1000})
    with pytest.raises(ValueError, match="was computed from another base"):
        convert(delta[0], tmp_path / "target", clip, base=folder)


def test_a_base_in_bfloat16_has_lost_what_is_needed(delta, state, sizes, clip, tmp_path):
    base = {name: tensor.bfloat16() for name, tensor in cut(state)[1].items()}
    folder = write_base(tmp_path / "bf16", base, {**sizes, "vocab_size": 1000})
    with pytest.raises(ValueError, match=r"the base is stored as bfloat16.*get LLaMA-7B in float16"):
        convert(delta[0], tmp_path / "target", clip, base=folder)


@pytest.mark.slow
def test_a_delta_in_float32_is_checked_all_the_same(delta, state, sizes, clip, tmp_path):
    difference, _ = cut(state)
    widened = write_authors(tmp_path / "wide", {name: tensor.float() for name, tensor in difference.items()}, sizes)
    assert convert(widened, tmp_path / "target", clip, base=delta[1]).base_checked > 10
    finer = {name: tensor + 1e-6 if tensor.is_floating_point() else tensor for name, tensor in difference.items()}
    folder = write_authors(tmp_path / "finer", {name: tensor.float() + 1e-7 for name, tensor in finer.items()}, sizes)
    report = convert(folder, tmp_path / "other", clip, base=delta[1])
    assert report.base_checked == 0 and "could NOT be checked" in str(report)


def test_a_base_with_too_few_rows_is_refused(delta, state, sizes, clip, tmp_path):
    base = cut(state)[1]
    base["lm_head.weight"] = base["lm_head.weight"][:900]
    folder = write_base(tmp_path / "rows", base, {**sizes, "vocab_size": 1000})
    with pytest.raises(ValueError, match=r"lm_head\.weight: the delta has \[1000, 32\], the base has \[900, 32\]"):
        convert(delta[0], tmp_path / "target", clip, base=folder)


def test_a_base_of_the_right_shapes_that_is_another_model_is_refused(delta, sizes, clip, tmp_path):
    other = cut(parts(tiny_original(seed=9))[0])[1]
    base = write_base(tmp_path / "other", other, {**sizes, "vocab_size": 1000})
    with pytest.raises(ValueError, match="was computed from another base"):
        convert(delta[0], tmp_path / "target", clip, base=base)
    assert not (tmp_path / "target").exists()


@pytest.fixture
def wrong_base(sizes, tmp_path):
    """Another model's base, with a configuration that looks like Llama 2's."""
    other = cut(parts(tiny_original(seed=9))[0])[1]
    return write_base(tmp_path / "wrong", other, {**sizes, "vocab_size": 1000, "rms_norm_eps": 1e-5})


def test_a_wrong_base_can_be_forced_and_the_report_says_so(delta, wrong_base, clip, tmp_path, capsys):
    arguments = ["convert", str(delta[0]), str(tmp_path / "target"), "--vision", str(clip), "--base", str(wrong_base)]
    assert main(arguments) == 2
    assert "this looks like Llama 2" in (said := capsys.readouterr().err) and "--force (force=True)" in said
    with pytest.warns(WrongBaseWarning, match="THE BASE DOES NOT LOOK LIKE THIS DELTA'S.*looks like Llama 2") as told:
        assert main([*arguments, "--force"]) == 0
    assert len([one for one in told if one.category is WrongBaseWarning]) == 1
    said = capsys.readouterr().out
    assert "FORCED: the base does NOT look like the delta's" in said and "looks like Llama 2" in said
    doubts = json.loads((tmp_path / "target" / "conversion.json").read_text())["doubts"]
    assert len(doubts) > 10 and sum("was computed from another base" in doubt for doubt in doubts) > 5
    GPT4RoI.from_pretrained(tmp_path / "target", device="cpu")


def test_shapes_cannot_be_forced(delta, state, sizes, clip, tmp_path):
    base = cut(state)[1]
    base[EMBEDDINGS] = torch.cat([base[EMBEDDINGS], base[EMBEDDINGS][:1]])
    folder = write_base(tmp_path / "vicuna", base, sizes)
    with (
        pytest.warns(WrongBaseWarning, match="has 1001 tokens"),
        pytest.raises(ValueError, match=r"the delta has \[1000, 32\], the base has \[1001, 32\]"),
    ):
        convert(delta[0], tmp_path / "target", clip, base=folder, force=True)


def test_what_was_forced_is_known_after_an_interruption(delta, wrong_base, clip, tmp_path, monkeypatch):
    def stop(folder):
        raise KeyboardInterrupt

    options = {"base": wrong_base, "force": True}
    monkeypatch.setattr(convert_module, "check_checkpoint", stop)
    with pytest.warns(WrongBaseWarning), pytest.raises(KeyboardInterrupt):
        convert(delta[0], tmp_path / "target", clip, **options)
    monkeypatch.undo()
    written = json.loads((tmp_path / "target.partial" / work.PROGRESS_FILE).read_text())
    with pytest.raises(ValueError, match="is not the base of this delta"):
        convert(delta[0], tmp_path / "target", clip, base=wrong_base)
    with pytest.warns(WrongBaseWarning):
        report = convert(delta[0], tmp_path / "target", clip, **options)
    assert report.resumed_files == 1 and sorted(report.doubts) == sorted(written["doubts"])


def test_what_was_found_of_the_base_is_known_after_an_interruption(delta, clip, tmp_path, monkeypatch):
    def stop(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(convert_module, "check_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(delta[0], tmp_path / "target", clip, base=delta[1])
    monkeypatch.undo()
    report = convert(delta[0], tmp_path / "target", clip, base=delta[1])
    assert report.resumed_files == 1 and report.base_checked > 10 and report.doubts == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3, expected 2"),
        ({"hidden_size": 64}, "hidden_size is 64, expected 32"),
        ({"rms_norm_eps": 1e-5}, r"this looks like Llama 2.*rms_norm_eps is 1e-05, expected 1e-06"),
        ({"max_position_embeddings": 4096}, r"this looks like Llama 2.*max_position_embeddings is 4096"),
    ],
)
def test_a_base_of_other_sizes_is_refused(delta, sizes, clip, tmp_path, change, words):
    (delta[1] / "config.json").write_text(json.dumps({"model_type": "llama", **sizes, **change}))
    with pytest.raises(ValueError, match=rf"is not the base of this delta.*{words}.*the first version of LLaMA-7B"):
        convert(delta[0], tmp_path / "target", clip, base=delta[1])


def test_a_base_of_another_vocabulary_is_refused(state, delta, sizes, clip, tmp_path):
    base = cut(state)[1]
    base[EMBEDDINGS] = torch.cat([base[EMBEDDINGS], base[EMBEDDINGS][:1]])
    folder = write_base(tmp_path / "vicuna", base, sizes)
    with pytest.raises(ValueError, match="its vocabulary has 1001 tokens, expected 1000"):
        convert(delta[0], tmp_path / "target", clip, base=folder)


def test_an_old_name_of_the_context_is_understood(delta, sizes, clip, tmp_path):
    old = {**sizes, "vocab_size": 1000, "max_sequence_length": sizes["max_position_embeddings"]}
    del old["max_position_embeddings"]
    (delta[1] / "config.json").write_text(json.dumps({"model_type": "llama", **old}))
    convert(delta[0], tmp_path / "target", clip, base=delta[1])


# -------------------------------------------------------------------------------------------- what cannot be right


def broken(state, change):
    copy = dict(state)
    change(copy)
    return copy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop(PROJECTION), rf"1 tensor missing, first {PROJECTION}"),
        (lambda s: s.update(extra=torch.ones(3)), "1 tensor unknown, first extra in"),
        (
            lambda s: s.update({"model.renamed.weight": s.pop(PROJECTION)}),
            rf"missing, first {PROJECTION}.*unknown, first model\.renamed\.weight",
        ),
        (
            lambda s: s.update({PROJECTION: torch.zeros(32, 31)}),
            rf"{PROJECTION}: expected \[32, 32\] by config\.json, got \[32, 31\]",
        ),
        (
            lambda s: s.update({PROJECTION: torch.full((32, 32), torch.nan)}),
            rf"{PROJECTION}.*1024 values that are NaN or infinite, the first at \[0, 0\]",
        ),
        (
            lambda s: s.update({"model.mm_projector.bias": torch.tensor([0.0] * 31 + [torch.inf])}),
            r"mm_projector\.bias.*1 values that are NaN or infinite, the first at \[31\]",
        ),
        (lambda s: s.pop(EMBEDDINGS), f"has no {EMBEDDINGS}"),
        (lambda s: s.update({EMBEDDINGS: s[EMBEDDINGS][:1000]}), "1006 tokens, but .* has 1000 rows"),
        (lambda s: s.pop("model.spi_module.roi_align.flatten_linear.weight"), "lack model.spi_module.*flatten_linear"),
    ],
)
def test_tensors_that_cannot_be_right_are_named(state, sizes, clip, tmp_path, change, words):
    source = write_authors(tmp_path / "source", broken(state, change), sizes, shards=2)
    with pytest.raises(ValueError, match=words):
        convert(source, tmp_path / "target", clip)
    assert not (tmp_path / "target").exists()


def test_values_too_large_for_the_dtype_are_refused(state, sizes, clip, tmp_path):
    large = broken(state, lambda s: s.update({"model.norm.weight": torch.full((32,), 1e6)}))
    source = write_authors(tmp_path / "source", large, sizes)
    with pytest.raises(ValueError, match=r"model\.norm\.weight.*torch\.float16.*convert to bfloat16 or float32"):
        convert(source, tmp_path / "target", clip, dtype="float16")


def test_a_missing_shard_is_named(source, clip, tmp_path):
    (source / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks its weights file pytorch_model-00002-of-00003\.bin.*17 tensors.*hf download"
    ):
        convert(source, tmp_path / "target", clip)


def test_of_several_layouts_the_one_that_is_whole_is_read(source, state, sizes, clip, tmp_path):
    """As in some releases: indices of shards that do not exist, and a file beside an index."""
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        (source / index).write_text(json.dumps({"weight_map": dict.fromkeys(state, "absent.bin")}))
    with pytest.raises(FileNotFoundError, match=r"lacks its weights file absent\.bin"):
        convert(source, tmp_path / "target", clip)
    torch.save(state, source / "pytorch_model.bin")
    convert(source, tmp_path / "target", clip)


@pytest.mark.parametrize("name", ["../outside.bin", "/outside.bin", "inner/shard.bin", 5])
def test_an_index_that_leads_elsewhere_is_refused(source, state, clip, tmp_path, name):
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(state, name)}))
    with pytest.raises(ValueError, match="expected files in its own folder"):
        convert(source, tmp_path / "target", clip)


def test_whole_numbers_are_no_weights(state, sizes, clip, tmp_path):
    quantised = broken(state, lambda s: s.update({PROJECTION: torch.ones(32, 32, dtype=torch.int8)}))
    with pytest.raises(ValueError, match=r"is stored as integers \(torch\.int8\)"):
        convert(write_authors(tmp_path / "source", quantised, sizes), tmp_path / "target", clip)


def test_tensors_that_lie_apart_in_a_file_are_copied(theirs, state, sizes, clip, tmp_path):
    turned = broken(state, lambda s: s.update({PROJECTION: s[PROJECTION].t().contiguous().t()}))
    source = write_authors(tmp_path / "source", {}, sizes)
    torch.save(turned, source / "pytorch_model.bin")
    convert(source, tmp_path / "target", clip)
    assert asked(GPT4RoI.from_pretrained(tmp_path / "target", device="cpu")).token_ids == asked(theirs).token_ids


@pytest.mark.parametrize("change", [{"hidden_size": "many"}, {"num_attention_heads": 5}, {"hidden_size": None}])
def test_sizes_that_are_none_are_refused_in_words(source, clip, tmp_path, change):
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=r"config\.json|another shape"):
        convert(source, tmp_path / "target", clip)


@pytest.mark.parametrize("change", [{"patch_size": 0}, {"num_attention_heads": 0}, {"hidden_act": "wobble"}])
def test_a_tower_of_impossible_sizes_is_refused(source, clip, tmp_path, change):
    tower = shutil.copytree(clip, tmp_path / "tower")
    config = json.loads((tower / "config.json").read_text())
    config.get("vision_config", config).update(change)
    (tower / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json of .* does not describe a vision tower"):
        convert(source, tmp_path / "target", tower)


@pytest.mark.parametrize("which", ["source", "tower"])
@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", {"configuration_files": ["config.4.0.0.json"]}, "names other configurations"),
        ("config.json", {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}, "custom code"),
        ("preprocessor_config.json", {"image_mean": ["a"] * 3}, "each of image_mean must be a number"),
        ("generation_config.json", [], "must hold a JSON object"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(source, clip, tmp_path, monkeypatch, which, file, content, words):
    if which == "source" and words in ("custom code", "each of image_mean must be a number"):
        return  # the authors' files always name code that is not used, and have no preprocessor_config.json
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("it asked"))
    tower = shutil.copytree(clip, tmp_path / "tower")
    path = {"source": source, "tower": tower}[which] / file
    if isinstance(content, dict) and path.exists():
        content = {**json.loads(path.read_text()), **content}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        convert(source, tmp_path / "target", tower)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model"])
def test_a_link_out_of_the_source_is_refused(source, clip, tmp_path, name):
    (source / name).rename(tmp_path / "elsewhere")
    (source / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=rf"{name} in .* is a link out of the folder"):
        convert(source, tmp_path / "target", clip)


@pytest.mark.parametrize("finished", [5, {"a": "b"}, None])
def test_a_note_of_progress_that_cannot_be_used_is_named(source, clip, tmp_path, monkeypatch, finished):
    def fail(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(convert_module, "check_checkpoint", fail)
        convert(source, tmp_path / "target", clip)
    file = tmp_path / "target.partial" / "progress.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "finished": finished}))
    with pytest.raises(ValueError, match=r"'finished' of .*progress\.json.* must be an object|'a' of 'finished' of"):
        convert(source, tmp_path / "target", clip)


@pytest.mark.parametrize(
    "change", [{"fates": 5}, {"fates": [{"name": 1}]}, {"seconds": "x"}, {"strange": 1}, {"dtype": "int8"}], ids=str
)
def test_a_report_that_cannot_be_read_is_named(source, clip, tmp_path, change):
    convert(source, tmp_path / "target", clip)
    file = tmp_path / "target" / "conversion.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ValueError, match=r"conversion\.json"):
        convert(source, tmp_path / "target", clip, verify=True)


def test_a_tower_for_larger_images_is_refused(source, clip, tmp_path):
    large = shutil.copytree(clip, tmp_path / "large")
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    }
    (large / "config.json").write_text(json.dumps(vision))
    with pytest.raises(ValueError, match="makes 576 tokens per image, but GPT4RoI was trained with 256"):
        convert(source, tmp_path / "target", large)


@pytest.mark.parametrize("kept", [0, 100, -300])
@pytest.mark.parametrize("layout", ["bin", "safetensors"])
def test_a_truncated_shard_is_named(state, sizes, clip, tmp_path, layout, kept):
    source = write_authors(tmp_path / "source", state, sizes, shards=2, layout=layout)
    shard = sorted(source.glob(f"*2-of-00002.{layout}"))[0]
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(
        ValueError, match=rf"{shard.name}' (is truncated|contains more than tensors, or is not a weights file)"
    ):
        convert(source, tmp_path / "target", clip)


class Foreign:
    """Unpickling it would run code."""

    def __reduce__(self):
        return (Path("/tmp/unpickled").touch, ())


def test_a_pickle_that_could_run_code_is_refused(state, sizes, clip, tmp_path):
    source = write_authors(tmp_path / "source", state, sizes)
    torch.save({**state, "extra": Foreign()}, source / "pytorch_model.bin")
    with pytest.raises(ValueError, match="not loaded, since reading it could run code"):
        convert(source, tmp_path / "target", clip)


def test_a_foreign_added_token_is_noticed(source, clip, tmp_path):
    (source / "added_tokens.json").write_text('{"<bbox>": 1001}')
    with pytest.raises(ValueError, match="gives <bbox> the id 1001, but after the vocabulary it is 1002"):
        convert(source, tmp_path / "target", clip)


@pytest.mark.parametrize("name", ["./absent", "/absent", "absent", "some/model"])
def test_a_source_that_does_not_exist_is_named(clip, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no source at '{name}'") as raised:
        convert(Path(name) if name.startswith("/") else name, tmp_path / "target", clip)
    assert ("`hf download some/model`: complete files" in str(raised.value)) == (name == "some/model")


def test_a_target_that_exists_is_left_alone(source, clip, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already; remove it"):
        convert(source, tmp_path / "target", clip)
    (tmp_path / "other.partial").mkdir()
    (tmp_path / "other.partial" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not an unfinished conversion"):
        convert(source, tmp_path / "other", clip)


# ----------------------------------------------------------------------------------------- stopped and continued


@pytest.mark.slow
def test_a_conversion_that_was_killed_goes_on_where_it_was(source, clip, tmp_path):
    """A real process, really killed while it works."""
    killed = tmp_path / "killed"
    script = f"""
import os, signal
from gpt4roi_nb.checkpoint import work
from gpt4roi_nb.checkpoint import convert_original
work.MAX_SHARD_BYTES = 100_000
real, written = work.save_file, []
def save_file(tensors, file, metadata):
    written.append(file)
    if len(written) == 4:
        for name in (file, file.with_name(".tmpAbCdEf")):  # safetensors writes under a name of its own
            name.write_bytes(b"half a file")
        os.kill(os.getpid(), signal.SIGKILL)
    real(tensors, file, metadata=metadata)
work.save_file = save_file
convert_original({str(source)!r}, {str(killed)!r}, vision={str(clip)!r}, progress=False)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert not killed.exists()
    before = {file.name: file.stat().st_mtime_ns for file in killed.with_name("killed.partial").glob("*.safetensors")}
    assert len(before) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "MAX_SHARD_BYTES", 100_000)
        report = convert(source, killed, clip)
        convert(source, tmp_path / "whole", clip)
    assert report.resumed_files == 3
    assert {name: (killed / name).stat().st_mtime_ns for name in before} == before
    assert not killed.with_name("killed.partial").exists()
    files = {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir() if file.name != "conversion.json"}
    assert {name: (killed / name).read_bytes() for name in files} == files
    assert {file.name for file in killed.iterdir()} == {*files, "conversion.json"}


@pytest.mark.slow
def test_what_another_conversion_left_is_not_continued(source, clip, tmp_path, monkeypatch):
    def fail(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(convert_module, "check_checkpoint", fail)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "target", clip)
    monkeypatch.undo()
    report = convert(source, tmp_path / "target", clip, dtype="float16")
    assert report.resumed_files == 0
    assert {tensor.dtype for tensor in tensors_of(tmp_path / "target").values()} == {torch.float16}


def test_a_disk_that_is_too_small_is_noticed_before_it_begins(source, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(work.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10_000))
    with pytest.raises(OSError, match=r"needs 0\.05 GB more .* but only 0\.00 GB are free"):
        convert(source, tmp_path / "target", clip)
    assert not list(tmp_path.glob("**/*.safetensors*"))


@pytest.mark.slow
@pytest.mark.tmpfs
def test_on_a_real_disk_that_is_full_it_says_so_and_goes_on_later(source, clip, tmp_path):
    """A tmpfs of 51 MB in its own namespace: too small at first, then freed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    convert_it = f"{sys.executable} -m gpt4roi_nb.checkpoint convert {source} {disk}/target --vision {clip}"
    script = f"mount -t tmpfs -o size=53m tmpfs {disk} && head -c 20000000 /dev/zero > {disk}/other && "
    script += f"{{ {convert_it}; echo first $?; rm {disk}/other; {convert_it}; echo second $?; ls {disk}; }}"
    result = subprocess.run(["unshare", "-rm", "sh", "-c", script], check=False, capture_output=True, text=True)
    if "first" not in result.stdout:
        pytest.skip(f"this kernel lets nobody mount a tmpfs: {result.stderr.strip()}")
    assert "first 2" in result.stdout and "second 0" in result.stdout, result.stderr
    assert "GB more in" in result.stderr and result.stdout.split()[-1] == "target"


@pytest.mark.slow
def test_a_disk_that_fills_meanwhile_loses_nothing(source, clip, tmp_path):
    """No file may grow beyond 400 kB in this process, as on a disk that is full."""
    target = tmp_path / "target"
    script = f"""
import resource, signal, sys
from gpt4roi_nb.checkpoint.__main__ import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from gpt4roi_nb.checkpoint import work
work.MAX_SHARD_BYTES = 300_000
real, written = work._write_file, []
def write(file, tensors):
    written.append(file)
    if len(written) == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    return real(file, tensors)
work._write_file = write
sys.exit(main(["convert", {str(source)!r}, {str(target)!r}, "--vision", {str(clip)!r}]))
"""
    result = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert result.returncode == 2
    assert "could not be written" in result.stderr and "run the same command again" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(list(tmp_path.glob("target.partial/*.safetensors"))) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "MAX_SHARD_BYTES", 300_000)
        assert convert(source, target, clip).resumed_files == 2


# -------------------------------------------------------------------------------------------------- the command


@pytest.mark.slow
def test_the_command_reports_and_writes(source, clip, tmp_path, capsys):
    arguments = ["convert", str(source), str(tmp_path / "target"), "--vision", str(clip), "--dtype", "bfloat16"]
    assert main([*arguments, "--verify", "--table"]) == 0
    said = capsys.readouterr().out
    assert "49 copied" in said and "verified: it loads" in said
    assert "language_model.lm_head.weight" in said
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_is_a_module(tmp_path):
    command = [sys.executable, "-m", "gpt4roi_nb.checkpoint", "convert", str(tmp_path / "absent"), str(tmp_path / "t")]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 2
    assert "no source at" in result.stderr and "Traceback" not in result.stderr
