"""`load_model` checks the files of any model as those of a GPT4RoI, in a folder as in a hub's cache."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hub_cache import NAME, publish
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import set_in_config
from tiny_families import FAMILIES as TINY
from tiny_families import LATER, OTHERS, saved_family, tiny_family

from gpt4roi_nb import load_model
from gpt4roi_nb.checkpoint.hub import Source
from gpt4roi_nb.checkpoint.load import load_weights
from gpt4roi_nb.models import PromptedModel

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MATRIX = "language_model.model.layers.0.self_attn.q_proj.weight"  # as it is saved
LOADED = f"model.{MATRIX.replace('.model.', '.')}"  # as transformers calls it now
ENDLESS = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"
NAN, INFINITY = float("nan"), float("inf")
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_family(tmp_path_factory.mktemp("vipllava"), "vipllava")


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may break."""
    return shutil.copytree(saved, tmp_path / "tiny")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def with_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return rewrite


def with_config(name: str, value: object) -> Change:
    def rewrite(folder: Path) -> None:
        set_in_config(folder, name, value)

    return rewrite


def with_entry(file: str, name: str, value: object) -> Change:
    def rewrite(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**content, name: value}))

    return rewrite


def with_text(name: str, text: str) -> Change:
    def rewrite(folder: Path) -> None:
        content = (folder / name).read_text()
        (folder / name).write_text(content.replace("{", f'{{"strange": {text}, ', 1))

    return rewrite


def written(name: str, content: bytes | str) -> Change:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def without(name: str, then: Change | None = None) -> Change:
    def remove(folder: Path) -> None:
        (folder / name).unlink()
        if then is not None:
            then(folder)

    return remove


def piped(name: str) -> Change:
    return without(name, lambda folder: os.mkfifo(folder / name))


def indexed(file: object) -> Change:
    return without(WEIGHTS, written(INDEX, json.dumps({"weight_map": {MATRIX: file}})))


def cut(kept: int) -> Change:
    return lambda folder: written(WEIGHTS, (folder / WEIGHTS).read_bytes()[:kept])(folder)


def linked(name: str) -> Change:
    def link(folder: Path) -> None:
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return link


def set_first(value: float) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[MATRIX][0, 0] = value

    return with_tensors(change)


DESCRIBES_NONE = r"config\.json of .* does not describe a vipllava "
DAMAGED = rf"{WEIGHTS}' is truncated or not a safetensors file .*; copy it again"
CASES: dict[str, tuple[Change, str]] = {
    # the weights that are read
    "index-out": (indexed("../other.safetensors"), r"index\.json' names .*; expected files in its own folder"),
    "index-number": (indexed(5), r"index\.json' names 5; expected files in its own folder"),
    "index-lacks-map": (without(WEIGHTS, written(INDEX, '{"weight_map": []}')), r"index\.json' has no weight_map"),
    "index-lacks-file": (indexed("gone.safetensors"), r"lacks its weights file gone\.safetensors"),
    "link-out": (linked(WEIGHTS), r"model\.safetensors in .* is a link out of the folder, to .*elsewhere"),
    "no-weights": (without(WEIGHTS), rf"lacks its weights file {WEIGHTS}"),
    "pipe-weights": (piped(WEIGHTS), rf"lacks its weights file {WEIGHTS}|expected a regular file"),
    "cut-0": (cut(0), DAMAGED),
    "cut-1000": (cut(1000), DAMAGED),
    "cut-end": (cut(-100), DAMAGED),
    "no-safetensors": (written(WEIGHTS, b"\x89PNG\r\n\x1a\n" * 100), DAMAGED),
    "own-weights-file": (with_config("transformers_weights", "../other.safetensors"), "names its own weights file"),
    "configurations": (with_config("configuration_files", ["config.4.json"]), "names other configurations"),
    "tokenizers": (
        with_entry("tokenizer_config.json", "fast_tokenizer_files", ["../x/tokenizer.4.0.json"]),
        r"tokenizer_config\.json' names other tokenizers",
    ),
    "audio": (
        with_entry("processor_config.json", "audio_tokenizer", {"audio_tokenizer_name_or_path": "x"}),
        r"processor_config\.json' names another model",
    ),
    "link-config": (linked("config.json"), r"config\.json in .* is a link out of the folder, to .*elsewhere"),
    "link-tokenizer": (linked("tokenizer.json"), r"tokenizer\.json in .* is a link out of the folder, to .*elsewhere"),
    "link-template": (
        linked("chat_template.jinja"),
        r"chat_template\.jinja in .* is a link out of the folder, to .*elsewhere",
    ),
    "quantization-text": (with_config("quantization_config", "8bit"), r"quantization_config .* describes no quantis"),
    "quantization-list": (with_config("quantization_config", ["8bit"]), r"quantization_config .* describes no quantis"),
    "end-text": (with_entry("generation_config.json", "eos_token_id", "abc"), "must be the id of a token below"),
    "end-list": (with_entry("generation_config.json", "eos_token_id", [[1]]), "must be the id of a token below"),
    "end-beyond": (with_entry("generation_config.json", "eos_token_id", 10**6), "must be the id of a token below"),
    "tokens": (with_entry("generation_config.json", "max_new_tokens", "x"), "' does not say how to generate"),
    "adapter": (written("adapter_config.json", '{"peft_type": "LORA"}'), r"holds an adapter .*merge it"),
    # their values
    "missing": (with_tensors(lambda all: all.pop(MATRIX)), f"1 tensors are missing: {LOADED}. Copy both again"),
    "unknown": (with_tensors(lambda all: all.update(foo=torch.zeros(2))), "1 tensors are unknown to this model: foo"),
    "shape": (
        with_tensors(lambda all: all.update({MATRIX: torch.zeros(3, 5)})),
        rf"1 tensors have another shape .* first {LOADED}: expected \(32, 32\), got \(3, 5\)",
    ),
    **{
        str(dtype): (
            with_tensors(lambda all, dtype=dtype: all.update({MATRIX: all[MATRIX].to(dtype)})),
            rf"1 weights of .* are not floating-point numbers, first {MATRIX}, stored as .*; expected one of F64, F32",
        )
        for dtype in (torch.int8, torch.int64, torch.uint8, torch.bool)
    },
    "nan": (set_first(NAN), f"hold NaN or infinity in 1 tensors, first {LOADED}: the file is damaged"),
    "infinity": (set_first(-INFINITY), f"hold NaN or infinity in 1 tensors, first {LOADED}: the file is damaged"),
    # config.json
    "no-config": (without("config.json"), r"lacks config\.json"),
    "no-kind": (written("config.json", "{}"), r"not 'gpt4roi'|does not say what kind of model"),
    "no-heads": (with_config("text_config.num_attention_heads", 0), f"{DESCRIBES_NONE}.ZeroDivisionError"),
    "5-heads": (with_config("text_config.num_attention_heads", 5), rf"(?s){DESCRIBES_NONE}.*not a multiple of"),
    "float-heads": (with_config("text_config.num_attention_heads", 4.5), rf"(?s){DESCRIBES_NONE}.*expected int"),
    "epsilon": (with_config("text_config.rms_norm_eps", 1e30), f"{DESCRIBES_NONE}.*must be a number from 0 to 1"),
    "no-patch": (with_config("vision_config.patch_size", 0), f"{DESCRIBES_NONE}.ZeroDivisionError"),
    "activation": (with_config("text_config.hidden_act", "wobble"), f"{DESCRIBES_NONE}.KeyError: 'wobble'"),
    "no-context": (with_config("text_config.max_position_embeddings", None), f"(?s){DESCRIBES_NONE}"),
    "width": (with_config("text_config.hidden_size", 64), "tensors have another shape than config.json says"),
    "tower-layer": (with_config("vision_feature_layers", [99]), "tensors have another shape than config.json says"),
    "text-config": (with_config("text_config", 5), DESCRIBES_NONE),
    "no-tower": (with_config("vision_config", None), r"a model of 30\d,\d{3},\d{3} numbers, but there are only"),
    "tower": (with_config("vision_config", {"model_type": "unknown"}), DESCRIBES_NONE),
    "100,000-layers": (with_config("text_config.num_hidden_layers", 100_000), r"it says 100,003 layers, but "),
    # files that no reader takes
    **{
        f"{name}-{what}": (with_text(name, text), rf"{name}' {words}")
        for name in ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
                     "generation_config.json")
        for what, text, words in (("digits", "9" * 5000, "holds a whole number of 5000 digits"),
                                  ("nesting", "[" * 5000 + "]" * 5000, "nests lists or objects more than"))
    },
    **{
        f"{name}-{kind}": (written(name, text), rf"{name}' (is truncated or not a JSON file|must hold a JSON object)")
        for name in ("config.json", "processor_config.json", "tokenizer.json")
        for kind, text in (("cut", '{"a": '), ("list", "[]"), ("binary", b"\xff"))
    },
    "pipe-config": (piped("config.json"), "expected a regular file, but .*is a pipe"),
    "pipe-template": (piped("chat_template.jinja"), "expected a regular file, but .*is a pipe"),
    "no-processor": (
        with_entry("processor_config.json", "processor_class", "Own"),
        "give a .*Tokeniz.*, and no processor of images and text",
    ),
    "image-size": (
        with_entry("processor_config.json", "image_processor", {"size": {"height": 10**5, "width": 10**5}}),
        r"makes images of 10,000,000,000 pixels \(size\), expected at most",
    ),
    "crop-size": (
        with_entry("processor_config.json", "image_processor", {"crop_size": {"height": 56_000, "width": 56_000}}),
        r"makes images of 3,136,000,000 pixels \(crop_size\), expected at most",
    ),
    "no-number": (
        with_entry("tokenizer_config.json", "image_std", "x"),
        "own processor cannot prepare an image of 64 × 48 pixels .StrictDataclass",
    ),
    "processor-size": (
        with_entry("processor_config.json", "num_additional_image_tokens", [1]),
        "own processor cannot prepare an image of 64 × 48 pixels .TypeError",
    ),
    "tokenizer": (written("tokenizer.json", '{"added_tokens": []}'), "the processor of .* cannot be read"),
    # the chat template
    "endless-template": (written("chat_template.jinja", ENDLESS), r"cannot write messages .* may never end"),
    "power-template": (written("chat_template.jinja", "{{ 9**9**9 }}"), r"cannot write messages .* it multiplies"),
    "damaged-template": (written("chat_template.jinja", "{% for %}"), "chat template cannot write messages"),
}  # fmt: skip
# A pipe has no place in a hub's cache, and a link there would lead to a blob.
FOLDER_ONLY = {"pipe-weights", "pipe-config", "pipe-template"}


@pytest.mark.parametrize(
    ("case", "place"),
    [(case, place) for case in CASES for place in ("folder", "hub") if place == "folder" or case not in FOLDER_ONLY],
)
def test_what_is_wrong_is_named(copied: Path, cache: Path, case: str, place: str) -> None:
    change, words = CASES[case]
    change(copied)
    if place == "hub":
        publish(copied, cache, NAME)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load_model(copied if place == "folder" else NAME, device="cpu").session(Image.new("RGB", (60, 40)))


@pytest.mark.parametrize("case", ["adapter", "no-heads", "activation", "100,000-layers", "tokenizer"])
def test_a_hubs_weights_are_fetched_after_all_that_can_be_checked_without(
    copied: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    change, words = CASES[case]
    change(copied)
    (copied / WEIGHTS).unlink()
    publish(copied, cache, NAME)
    monkeypatch.setattr(Source, "get_weights", None)
    with pytest.raises(ValueError, match=words):
        load_model(NAME, device="cpu")


@pytest.mark.parametrize("option", ["variant", "gguf_file", "transformers_weights"])
def test_other_weights_than_those_that_are_checked_are_refused(saved: Path, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}='other' would load other weights .* leave it out"):
        load_model(saved, device="cpu", **{option: "other"})
    assert load_model(saved, device="cpu", use_safetensors=True)


@pytest.mark.parametrize("name", [*TINY, *LATER, *OTHERS])
def test_every_class_passes(name: str, tmp_path: Path, cache: Path) -> None:
    """What a class ties or leaves out when it is saved is not missed; a hub id gives what its folder does."""
    model, processor = tiny_family(name)
    model.save_pretrained(tmp_path / "tiny", max_shard_size="100KB")
    processor.save_pretrained(tmp_path / "tiny")
    again = load_model(tmp_path / "tiny", device="cpu")
    assert isinstance(again, PromptedModel)
    weights = again.model.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    publish(tmp_path / "tiny", cache, NAME)
    published = load_model(NAME, device="cpu")
    assert isinstance(published, PromptedModel) and published.model.name_or_path == NAME
    assert published.fingerprint() == again.fingerprint()


def test_tied_weights_may_be_left_out(saved: Path, copied: Path) -> None:
    with_config("tie_word_embeddings", True)(copied)
    with_config("text_config.tie_word_embeddings", True)(copied)
    with_tensors(lambda all: all.pop("language_model.lm_head.weight"))(copied)
    loaded = load_model(copied, device="cpu").model
    assert torch.equal(loaded.get_output_embeddings().weight, loaded.get_input_embeddings().weight)
    head = {"language_model.lm_head.weight"}
    tensors = {name: tensor for name, tensor in load_file(saved / WEIGHTS).items() if name not in head}
    shutil.copy(saved / "config.json", copied)
    save_file(tensors, copied / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 tensors are missing: lm_head\.weight"):  # nothing to tie it to
        load_model(copied, device="cpu")


def test_a_model_that_was_saved_quantised_is_loaded(saved: Path, tmp_path: Path) -> None:
    quantised = load_model(saved, device="cpu", quantization="8bit")
    quantised.model.save_pretrained(tmp_path)
    quantised.processor.save_pretrained(tmp_path)
    again = load_model(tmp_path, device="cpu")
    asked = [
        one.session(Image.new("RGB", (60, 40))).ask("What is this?", max_new_tokens=3) for one in (quantised, again)
    ]
    assert asked[0].token_ids == asked[1].token_ids


def test_a_downloaded_folder_of_links_is_followed(copied: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "hub" / "models--name--model" / "blobs"
    blobs.mkdir(parents=True)
    (copied / WEIGHTS).rename(blobs / "4a5b")
    (copied / WEIGHTS).symlink_to(blobs / "4a5b")
    assert load_model(copied, device="cpu")


@pytest.mark.parametrize("name", ["qwen3_vl_moe", "qwen3_5_moe"])
def test_experts_that_do_not_fit_together_are_refused(name: str, tmp_path: Path) -> None:
    """transformers joins their matrices into one when it loads them."""
    model, processor = tiny_family(name)
    processor.save_pretrained(tmp_path)
    for change, words in (
        (lambda all, expert: all.pop(expert), "do not fit their config.json: 1 tensors "),
        (lambda all, expert: all.update({expert: torch.zeros(3, 5)}), "cannot be put into the model .* copy both"),
    ):
        model.save_pretrained(tmp_path)
        expert = next(name for name in sorted(load_file(tmp_path / WEIGHTS)) if "experts" in name)
        with_tensors(lambda all, change=change, expert=expert: change(all, expert))(tmp_path)
        with pytest.raises(ValueError, match=words):
            load_model(tmp_path, device="cpu")


def test_beside_weights_that_another_library_quantised_its_own_tensors_may_lie(saved: Path) -> None:
    """It cannot be judged here which of them it needs; but no weight that is not quantised may be missing."""
    model = tiny_family("vipllava")[0]
    info = {"missing_keys": {"a.scale"}, "unexpected_keys": {"a.zeros"}, "mismatched_keys": {("a.q", (1,), (2,))}}

    def load(missing: set[str]) -> object:
        known = {**info, "missing_keys": info["missing_keys"] | missing}
        return load_weights(lambda folder, **options: (model, known), Source("it", saved), {"a.weight", "b.weight"})

    assert load(set()) is model
    with pytest.raises(ValueError, match=r"the weights of 'it' .* 1 tensors are missing: b\.weight"):
        load({"b.weight"})
