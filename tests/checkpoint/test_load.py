"""A checkpoint survives saving and loading, and a broken one raises an error that names what is wrong."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import set_in_config, tiny_gpt4roi, tiny_image
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from gpt4roi_nb import GPT4RoI, GPT4RoIConfig, GPT4RoIForConditionalGeneration, GPT4RoIProcessor

BOX = (3, 4, 30, 40)
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def gpt4roi():
    return tiny_gpt4roi(seed=1)


@pytest.fixture(scope="module")
def saved(gpt4roi, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    gpt4roi.model.save_pretrained(folder)
    gpt4roi.processor.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    """A checkpoint that a test may break."""
    return shutil.copytree(saved, tmp_path / "tiny")


def load(path) -> GPT4RoI:
    return GPT4RoI.from_pretrained(path, device="cpu")


def asked(gpt4roi):
    return gpt4roi.session(tiny_image()).ask("What is <region1>?", [BOX], max_new_tokens=8)


def test_a_checkpoint_comes_back_whole(gpt4roi, saved):
    loaded = load(saved)
    ours, theirs = gpt4roi.model.state_dict(), loaded.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert loaded.source == str(saved) and not loaded.is_demo and not loaded.model.training
    assert asked(loaded).token_ids == asked(gpt4roi).token_ids
    assert asked(loaded).logprobs == pytest.approx(asked(gpt4roi).logprobs, abs=1e-6)


def test_a_small_model_is_loaded_and_saved_without_a_progress_bar(gpt4roi, tmp_path, monkeypatch, capfd):
    gpt4roi.save_pretrained(tmp_path / "small")
    load(tmp_path / "small").model.save_pretrained(tmp_path / "again")
    assert "%|" not in capfd.readouterr().err
    with monkeypatch.context() as large:  # of a large one the bars stay
        large.setattr("gpt4roi_nb.logs.MOMENT_BYTES", 0)
        load(tmp_path / "small")
    assert "%|" in capfd.readouterr().err


def test_a_processor_comes_back_whole(gpt4roi, saved):
    loaded, ours = load(saved).processor, gpt4roi.processor
    assert isinstance(loaded, GPT4RoIProcessor)
    assert (loaded.num_image_tokens, loaded.closing, loaded.system) == (16, ours.closing, ours.system)
    one, other = (each(tiny_image(), "What is <region1>, 🦊?", [BOX]) for each in (ours, loaded))
    assert one["input_ids"].tolist() == other["input_ids"].tolist()
    assert torch.equal(one["pixel_values"], other["pixel_values"])


def test_a_processor_keeps_its_own_closing(gpt4roi, tmp_path):
    own = GPT4RoIProcessor(
        gpt4roi.processor.image_processor,
        gpt4roi.processor.tokenizer,
        num_image_tokens=16,
        closing="### Assistant:",
        system="",
    )
    own.save_pretrained(tmp_path)
    loaded = GPT4RoIProcessor.from_pretrained(tmp_path)
    assert (loaded.closing, loaded.system, loaded.num_image_tokens) == ("### Assistant:", "", 16)


def test_the_auto_classes_know_it(saved):
    assert type(AutoConfig.from_pretrained(saved)) is GPT4RoIConfig
    assert type(AutoModelForImageTextToText.from_pretrained(saved)) is GPT4RoIForConditionalGeneration
    assert type(AutoModel.from_pretrained(saved)) is GPT4RoIForConditionalGeneration
    assert type(AutoProcessor.from_pretrained(saved)) is GPT4RoIProcessor
    assert AutoTokenizer.from_pretrained(saved).convert_tokens_to_ids("<bbox>") == 1002


def test_a_checkpoint_in_shards_is_the_same(gpt4roi, tmp_path):
    gpt4roi.model.save_pretrained(tmp_path, max_shard_size="100KB")
    gpt4roi.processor.save_pretrained(tmp_path)
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    assert asked(load(tmp_path)).token_ids == asked(gpt4roi).token_ids
    shards[1].unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks its weights file {shards[1].name}"):
        load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_is_as_asked_for(saved, dtype):
    assert {parameter.dtype for parameter in GPT4RoI.from_pretrained(saved, dtype=dtype).model.parameters()} == {dtype}


def test_a_cpu_gets_float32_by_default(gpt4roi, saved, tmp_path):
    half = load(saved)
    half.model.to(torch.bfloat16).save_pretrained(tmp_path)
    half.processor.save_pretrained(tmp_path)
    assert load(tmp_path).model.dtype == torch.float32


def test_the_attention_is_as_asked_for(saved):
    assert load(saved).model.config._attn_implementation == "sdpa"
    eager = GPT4RoI.from_pretrained(saved, device="cpu", attn_implementation="eager")
    assert eager.model.language_model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    "name", ["config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS]
)
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"tiny' lacks (its weights file )?{name}"):
        load(copied)


@pytest.mark.parametrize("content", ['{"a": ', "", "not JSON", "[]", '"text"', "\udcff"])
@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_file_that_is_no_json_object_is_named(copied, name, content):
    (copied / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=rf"{name}' (is truncated or not a JSON file|must hold a JSON object)"):
        load(copied)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_a_byte_order_mark_is_told(copied, name):
    """transformers would not read the file, and take what generation_config.json says from config.json."""
    (copied / name).write_bytes(b"\xef\xbb\xbf" + (copied / name).read_bytes())
    with pytest.raises(ValueError, match=rf"{name}' begins with a byte order mark"):
        load(copied)


@pytest.mark.parametrize("name", ["processor_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_foreign_json_file_is_named(copied, name):
    (copied / name).write_text('{"foreign": true}')
    with pytest.raises(ValueError, match=rf"{name}' has no '\w+'; expected the file that this package saved"):
        load(copied)


@pytest.mark.parametrize("kept", [0, 4, 5000, -100])
def test_truncated_weights_are_named(copied, kept):
    (copied / WEIGHTS).write_bytes((copied / WEIGHTS).read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"{WEIGHTS}' is truncated or not a safetensors file .*; copy it again"):
        load(copied)


def test_foreign_weights_are_named(copied):
    (copied / WEIGHTS).write_bytes(b"\x89PNG\r\n\x1a\n" * 100)
    with pytest.raises(ValueError, match="is truncated or not a safetensors file"):
        load(copied)


def with_tensors(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def test_a_missing_tensor_is_named(copied):
    name = "region_encoder.head.output_projection.weight"
    with_tensors(copied, lambda tensors: tensors.pop(name))
    with pytest.raises(ValueError, match=f"1 tensors are missing: {name}"):
        load(copied)


def test_an_unknown_tensor_is_named(copied):
    with_tensors(copied, lambda tensors: tensors.update({"foreign.weight": torch.zeros(3)}))
    with pytest.raises(ValueError, match=r"1 tensors are unknown to this model: foreign\.weight"):
        load(copied)


def test_a_tensor_of_another_shape_is_named(copied):
    name = "multi_modal_projector.weight"
    with_tensors(copied, lambda tensors: tensors.update({name: torch.zeros(3, 5)}))
    with pytest.raises(ValueError, match=rf"first {name}: expected \(32, 16\), got \(3, 5\)"):
        load(copied)


def test_all_that_is_wrong_is_told_at_once(copied):
    def change(tensors):
        for name in [name for name in tensors if name.startswith("vision_tower")]:
            tensors[f"other.{name}"] = tensors.pop(name)

    with_tensors(copied, change)
    with pytest.raises(ValueError, match=r"tensors are missing: vision_tower.* …; \d+ tensors are unknown.*: other"):
        load(copied)


def with_config(folder, name="config.json", **changes):
    config = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**config, **changes}))


def test_a_config_of_a_larger_model_is_noticed_before_memory_is_taken(copied):
    config = json.loads((copied / "config.json").read_text())
    del config["text_config"], config["region_config"]  # then it is that of the 7B
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"do not fit their config\.json: \d+ tensors .* got \("):
        load(copied)


@pytest.mark.parametrize("change", [{"text_config": 5}, {"vision_config": {"model_type": "unknown"}}])
def test_a_config_that_describes_nothing_is_named(copied, change):
    with_config(copied, **change)
    with pytest.raises(ValueError, match=r"config\.json of .* does not describe a GPT4RoI"):
        load(copied)


def test_a_config_that_transformers_cannot_build_is_named(copied):
    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["rope_parameters"] = {"rope_type": "wobble", "rope_theta": 10_000.0}
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json of .* does not describe a GPT4RoI \(KeyError: 'wobble'\)"):
        load(copied)


@pytest.fixture
def nothing_built(monkeypatch):
    """Make the test fail if it builds the model, which may take hours or all memory."""

    def fail(*args, **kwargs):
        pytest.fail("the model was built")

    monkeypatch.setattr(GPT4RoIForConditionalGeneration, "__init__", fail)


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("text_config.num_attention_heads", 0, "must be a whole number from 1 to"),
        ("text_config.num_attention_heads", 5, r"text_config does not fit together: .*not a multiple of"),
        ("text_config.num_attention_heads", 4.0, "must be a whole number, but is 4.0"),
        ("text_config.num_attention_heads", True, "must be a whole number, but is True"),
        ("text_config.num_key_value_heads", 0, "must be a whole number from 1 to"),
        ("text_config.head_dim", 0, "must be a whole number from 1 to"),
        ("text_config.hidden_act", "wobble", "must be an activation .* such as gelu or silu, but is 'wobble'"),
        ("text_config.max_position_embeddings", None, "text_config must give max_position_embeddings"),
        ("text_config.max_position_embeddings", 0, "must be a whole number from 1 to"),
        ("text_config.num_hidden_layers", 100_000, "must be a whole number from 1 to 1000, but is 100000"),
        ("text_config.vocab_size", 10**18, "must be a whole number from 1 to"),
        ("text_config.hidden_size", -32, "must be a whole number from 1 to"),
        ("text_config.rms_norm_eps", NAN, "rms_norm_eps must be a number from 0 to 1, but is nan"),
        ("text_config.rms_norm_eps", -1.0, "rms_norm_eps must be a number from 0 to 1"),
        ("text_config.rms_norm_eps", INFINITY, "rms_norm_eps must be a number from 0 to 1"),
        ("text_config.rms_norm_eps", 1e30, "rms_norm_eps must be a number from 0 to 1"),
        ("text_config.rms_norm_eps", 10**99, "rms_norm_eps must be a number from 0 to 1"),
        ("text_config.rope_parameters.rope_theta", NAN, r"rope_parameters\.rope_theta must be a finite number"),
        ("vision_config.patch_size", 0, "must be a whole number from 1 to"),
        ("vision_config.image_size", [32, 32], "must be a whole number, but is"),
        ("vision_config.num_attention_heads", 0, "must be a whole number from 1 to"),
        ("vision_config.num_hidden_layers", 100_000, "must be a whole number from 1 to 1000"),
        ("vision_config.num_channels", 1, "num_channels must be 3, but is 1"),
        ("vision_config.layer_norm_eps", NAN, "layer_norm_eps must be a number from 0 to 1"),
        ("vision_feature_layer", 99, "one of the tower's 5 hidden states, from -5 to 4, but is 99"),
        ("vision_feature_layer", -6, "one of the tower's 5 hidden states, from -5 to 4, but is -6"),
        ("vision_feature_layer", 1.5, "must be a whole number"),
        ("region_config.num_groups", 0, "must be a whole number from 1 to"),
        ("region_config.num_levels", 40, "must be a whole number from 1 to 10"),
        ("region_config.num_fusion_rounds", 10**5, "must be a whole number from 0 to 1000"),
        ("region_config.sampling_ratio", 10**9, "must be a whole number from 1 to 64"),
        ("region_config.feature_layers", [1.5, 2], "must be a whole number, but is 1.5"),
        ("region_config.norm_eps", NAN, "norm_eps must be a number from 0 to 1"),
        ("image_token_id", -1, "image_token_id must be at least 0"),
        ("about", "9" * 5000, None),
    ],
)
def test_a_config_of_impossible_values_names_the_value(copied, nothing_built, name, value, words):
    set_in_config(copied, name, value)
    if words is None:
        with pytest.raises(pytest.fail.Exception, match="the model was built"):  # a long text is no number
            load(copied)
        return
    with pytest.raises(ValueError, match=rf"(?s)config\.json of .* does not describe a GPT4RoI .*{words}"):
        load(copied)


def test_more_layers_than_tensors_are_noticed_before_they_are_built(copied, nothing_built):
    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 900
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"it says 904 layers, but there are only \d+ tensors"):
        load(copied)


@pytest.mark.parametrize(
    "name",
    ["config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"],
)
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("9" * 5000, "holds a whole number of 5000 digits"),
        ("[" * 5000 + "]" * 5000, "nests lists or objects more than"),
    ],
    ids=["digits", "nesting"],
)
def test_json_that_no_reader_takes_is_named(copied, name, value, words):
    text = (copied / name).read_text()
    (copied / name).write_text(text.replace("{", f'{{"strange": {value}, ', 1))
    with pytest.raises(ValueError, match=rf"{name}' {words}"):
        load(copied)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("closing", None, "has no 'closing'"),
        ("system", None, "has no 'system'"),
        ("chat_format", None, "has no 'chat_format'"),
        ("closing", 5, "closing must be a string, but is 5"),
        ("num_image_tokens", 0, "num_image_tokens must be at least 1"),
        ("image_processor.image_std", [0, 0, 0], "image_std must be above 0 for each channel"),
        ("image_processor.image_std", [NAN, 1, 1], "image_std must be finite numbers"),
        ("image_processor.image_std", [1, 1], "image_std must be three numbers"),
        ("image_processor.image_mean", "abc", "image_mean must be three numbers"),
        ("image_processor.image_mean", [0, 0, "0"], "each of image_mean must be a number"),
    ],
)
def test_a_processor_of_impossible_values_names_the_value(copied, name, value, words):
    config = json.loads((copied / "processor_config.json").read_text())
    *path, last = name.split(".")
    part = config[path[0]] if path else config
    if value is None:
        del part[last]
    else:
        part[last] = value
    (copied / "processor_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        load(copied)


def test_a_tokenizer_that_cannot_be_read_is_named(copied):
    (copied / "tokenizer.json").write_text('{"added_tokens": []}')
    with pytest.raises(ValueError, match=r"the processor of .* cannot be read .*tokenizer\.json"):
        load(copied)


def test_an_index_without_a_map_is_named(copied):
    (copied / WEIGHTS).unlink()
    (copied / "model.safetensors.index.json").write_text('{"weight_map": []}')
    with pytest.raises(ValueError, match=r"index\.json' has no weight_map"):
        load(copied)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [({"metadata": 5}, "the metadata in .* must be an object"), ({}, "cannot be put into the model")],
)
def test_an_index_without_what_transformers_reads_of_it_is_named(copied, metadata, words):
    (copied / WEIGHTS).rename(copied / "part.safetensors")
    names = dict.fromkeys(load_file(copied / "part.safetensors"), "part.safetensors")
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names, **metadata}))
    with pytest.raises(ValueError, match=words):
        load(copied)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "sub/other.safetensors", "..", "", 5, None])
def test_an_index_that_leads_out_of_its_folder_is_refused(copied, name):
    (copied / WEIGHTS).unlink()
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match=r"index\.json' names .*; expected files in its own folder"):
        load(copied)


def test_an_index_beside_the_whole_file_is_not_read(copied):
    """As transformers takes the whole file."""
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    load(copied)


@pytest.mark.parametrize(
    ("file", "entry", "value", "words"),
    [
        ("config.json", "transformers_weights", "../other.safetensors", "its own weights file"),
        ("config.json", "configuration_files", ["config.4.0.0.json"], "other configurations"),
        ("config.json", "configuration_files", 5, "other configurations"),
        ("tokenizer_config.json", "fast_tokenizer_files", ["../../x/tokenizer.4.0.0.json"], "other tokenizers"),
        ("processor_config.json", "audio_tokenizer", {"audio_tokenizer_name_or_path": "x"}, "another model"),
    ],
)
def test_a_file_that_makes_transformers_read_others_is_refused(copied, file, entry, value, words):
    with_config(copied, file, **{entry: value})
    with pytest.raises(ValueError, match=rf"{file}' names {words} \({entry}\); remove the entry, and "):
        load(copied)


@pytest.mark.parametrize("name", ["attn_implementation", "text_config._attn_implementation"])
@pytest.mark.parametrize("value", ["some/kernel", {"": "some/kernel:flash"}, "wobble", [1]])
def test_code_that_is_not_of_transformers_is_not_run(copied, name, value):
    set_in_config(copied, name, value)
    with pytest.raises(ValueError, match=r"config\.json' names other code for attention than transformers' own"):
        load(copied)


def test_another_model_that_is_named_in_a_file_of_its_own_is_refused(copied):
    (copied / "audio_tokenizer_config.json").write_text('{"audio_tokenizer_name_or_path": "x"}')
    with pytest.raises(ValueError, match=r"audio_tokenizer_config\.json' names another model"):
        load(copied)


@pytest.mark.parametrize("part", ["", "text_config."])
@pytest.mark.parametrize(
    "value",
    ["8bit", ["8bit"], {"bits": 8}, {"quant_method": "wobble"}, {"load_in_8bit": True, "llm_int8_threshold": []}],
)
def test_a_quantisation_that_transformers_does_not_know_is_refused(copied, part, value):
    set_in_config(copied, f"{part}quantization_config", value)
    with pytest.raises(ValueError, match=r"the quantization_config in .*config\.json' describes no quantisation that"):
        load(copied)


@pytest.mark.parametrize("value", [1.5, [[1]], "abc", -1, 1006, True, [2, 10**30], {"a": 1}])
def test_what_ends_an_answer_must_be_a_token(copied, value):
    with_config(copied, "generation_config.json", eos_token_id=value)
    with pytest.raises(ValueError, match=r"eos_token_id in .* must be the id of a token below 1006 or a list of ids"):
        load(copied)


@pytest.mark.parametrize(
    "changes",
    [{"max_new_tokens": "abc"}, {"early_stopping": []}, {"cache_implementation": "wobble"}, {"pad_token_id": "abc"}],
    ids=str,
)
def test_a_generation_config_that_cannot_be_used_is_named(copied, changes):
    with_config(copied, "generation_config.json", **changes)
    with pytest.raises(ValueError, match=r"generation_config\.json' does not say how to generate \("):
        load(copied)


def test_a_download_of_an_older_hub_is_followed(copied, tmp_path):
    blobs = tmp_path / "hub" / "models--name--model" / "blobs"
    blobs.mkdir(parents=True)
    (copied / WEIGHTS).rename(blobs / "4a5b")
    (copied / WEIGHTS).symlink_to(blobs / "4a5b")
    load(copied)


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_link_out_of_the_folder_is_refused(copied, tmp_path, name):
    (tmp_path / "elsewhere").write_bytes((copied / name).read_bytes() if (copied / name).exists() else b"")
    (copied / name).unlink(missing_ok=True)
    (copied / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=rf"{name} in .* is a link out of the folder, to .*elsewhere"):
        load(copied)


def test_a_folder_of_templates_that_is_a_link_out_is_refused(copied, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.jinja").touch()
    (copied / "additional_chat_templates").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"additional_chat_templates/other\.jinja in .* is a link out of the folder"):
        load(copied)


def test_code_beside_the_files_is_not_asked_about(copied, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("it asked"))
    with_config(copied, "tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", None]})
    for read in (load, GPT4RoIProcessor.from_pretrained):
        with pytest.raises(ValueError, match="custom code"):
            read(copied)


def test_links_within_the_folder_and_to_the_folder_are_followed(copied, tmp_path):
    (copied / WEIGHTS).rename(copied / "weights")
    (copied / WEIGHTS).symlink_to("weights")
    (tmp_path / "link").symlink_to(copied)
    assert asked(load(tmp_path / "link"))


def test_the_hubs_cache_whose_files_are_links_is_read(copied, tmp_path):
    repository = tmp_path / "models--some--model"
    snapshot, blobs = repository / "snapshots" / "0123abcd", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(copied.iterdir())):
        file.rename(blobs / f"{number:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    assert asked(load(snapshot))


def test_an_adapter_beside_the_weights_is_not_applied_in_silence(copied):
    (copied / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "elsewhere/model"}')
    with pytest.raises(ValueError, match=r"holds an adapter \(adapter_config\.json\), .* merge it"):
        load(copied)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.uint8, torch.bool])
def test_whole_numbers_are_no_weights(copied, dtype):
    name = "multi_modal_projector.weight"
    with_tensors(copied, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    with pytest.raises(ValueError, match=rf"1 weights of .* are not floating-point numbers, first {name}, stored as"):
        load(copied)


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
def test_weights_that_are_no_numbers_are_named(copied, value):
    name = "language_model.model.layers.1.mlp.up_proj.weight"

    def change(tensors):
        tensors[name][3, 5] = value

    with_tensors(copied, change)
    with pytest.raises(
        ValueError, match=rf"weights of .* hold NaN or infinity in 1 tensors, first {name}: the file is"
    ):
        load(copied)


def test_weights_that_are_too_large_for_float16_are_told_so(copied):
    with_tensors(copied, lambda tensors: tensors["multi_modal_projector.weight"].fill_(70_000.0))
    assert load(copied)
    with pytest.raises(ValueError, match=r"first multi_modal_projector\.weight: .* float16 ends at 65,504; load"):
        GPT4RoI.from_pretrained(copied, device="cpu", dtype="float16")


def test_another_model_is_named(copied):
    with_config(copied, model_type="llava")
    with pytest.raises(ValueError, match="holds a model of type 'llava', not 'gpt4roi'"):
        load(copied)


def test_a_foreign_tokenizer_is_told(copied):
    with_config(copied, region_token_id=7)
    with pytest.raises(ValueError, match=r"another model: the id of <bbox> is 7 in config\.json, but 1002 in"):
        load(copied)


def test_a_foreign_processor_is_told(copied):
    with_config(copied, "processor_config.json", num_image_tokens=256)
    with pytest.raises(ValueError, match=r"the number of image tokens is 16 in config\.json, but 256 in"):
        load(copied)


@pytest.mark.parametrize(
    "path", ["./absent", "/absent/folder", "~/absent/folder", "absent", "absent/folder", "a/b/c", ""]
)
def test_a_path_that_does_not_exist_is_named(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no checkpoint at '{path}'"):
        load(path)


def test_a_file_is_no_folder(copied):
    with pytest.raises(ValueError, match=r"is a file; expected a folder, or a hub id"):
        load(copied / "config.json")


def test_an_empty_folder_lacks_its_config(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"lacks config\.json"):
        load(tmp_path)


def test_quantisation_says_what_it_needs(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    for quantization in ("8bit", "4bit"):
        with pytest.raises(ImportError, match="pip install bitsandbytes"):
            GPT4RoI.from_pretrained(saved, quantization=quantization)
    with pytest.raises(ValueError, match='quantization must be None, "8bit" or "4bit", but is \'3bit\''):
        GPT4RoI.from_pretrained(saved, quantization="3bit")


def test_device_and_device_map_exclude_each_other(saved):
    with pytest.raises(ValueError, match="either device or device_map"):
        GPT4RoI.from_pretrained(saved, device="cpu", device_map="auto")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device_map": "autoo"}, "device_map takes a GPU.*as a whole \"auto\".*got 'autoo'"),
        ({"device_map": {"": 1.5}}, "device_map takes a GPU's number.* but got 1.5"),
        ({"device_map": {"": "disk"}}, "say in which folder, by offload_folder="),
        ({"device_map": "auto", "max_memory": "lots"}, "max_memory must be sizes by device, such as .* but is 'lots'"),
        ({"device_map": "auto", "max_memory": {"cpu": "lots"}}, "must be bytes or a size.* but is 'lots'"),
        ({"device_map": "auto", "max_memory": {"cpu": None}}, "max_memory\\['cpu'\\] must be bytes or .* but is None"),
        ({"device_map": "auto", "max_memory": {"ram": "1GB"}}, "max_memory takes a GPU's number.*got 'ram'"),
    ],
)  # fmt: skip
def test_what_is_no_device_map_is_said(saved, options, words):
    with pytest.raises(ValueError, match=words):
        GPT4RoI.from_pretrained(saved, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
@pytest.mark.parametrize(
    "options",
    [
        {"device_map": "cuda"},
        {"device_map": 0},
        {"device_map": {"": "cuda:1"}},
        {"device_map": "auto", "max_memory": {0: "9GB"}},
    ],
)
def test_a_map_to_a_gpu_that_is_not_there_is_refused(saved, options):
    with pytest.raises(ValueError, match="needs a GPU that PyTorch can use, and there is none"):
        GPT4RoI.from_pretrained(saved, **options)


def test_max_memory_is_a_limit(saved):
    assert asked(GPT4RoI.from_pretrained(saved, device_map="auto", max_memory={"cpu": "1GB"}))
    with pytest.raises(MemoryError, match=r"but 10\.0 kB are free on cpu, within max_memory"):
        GPT4RoI.from_pretrained(saved, device_map="auto", max_memory={"cpu": "10KB"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_without_a_gpu_any_device_map_means_float32(gpt4roi, saved, tmp_path):
    half = load(saved)
    half.model.to(torch.float16).save_pretrained(tmp_path)
    half.processor.save_pretrained(tmp_path)
    assert GPT4RoI.from_pretrained(tmp_path, device_map="auto").model.dtype == torch.float32


def test_a_device_map_is_followed(gpt4roi, saved):
    loaded = GPT4RoI.from_pretrained(saved, device_map={"": "cpu"}, dtype=torch.float32)
    assert asked(loaded).token_ids == asked(gpt4roi).token_ids


def test_flash_attention_is_refused_before_anything_is_loaded(saved, monkeypatch):
    flash = {"attn_implementation": "flash_attention_2"}
    with pytest.raises(ImportError, match="'flash_attention_2' needs the package flash_attn"):
        GPT4RoI.from_pretrained(saved, device="cpu", dtype="bfloat16", **flash)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # as if it were installed
    for dtype in ("bfloat16", "float32"):
        with pytest.raises(ValueError, match=f"needs a GPU and dtype=.*the model is torch.{dtype} on cpu"):
            GPT4RoI.from_pretrained(saved, device="cpu", dtype=dtype, **flash)
