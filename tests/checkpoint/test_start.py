"""The published start of training: a SentencePiece folder like Vicuna's, and LLaVA's projector with its two rows."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_parts import REGION, save_clip
from transformers import LlamaConfig, LlamaForCausalLM

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.checkpoint import start
from gpt4roi_nb.checkpoint.__main__ import main
from gpt4roi_nb.checkpoint.start import start_checkpoint
from gpt4roi_nb.prompt import build_prompt
from gpt4roi_nb.tokenizer import ADDED_TOKENS

WIDTH, TOWER_WIDTH, PIECES = 32, 16, 1000


@pytest.fixture(scope="module")
def vicuna(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like Vicuna-7B-v0's folder: tokenizer.model, `[PAD]` with its own row, wrong ids in config.json, float16."""
    folder = tmp_path_factory.mktemp("start") / "vicuna"
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=PIECES + 1, bos_token_id=0, eos_token_id=1, **sizes)
    LlamaForCausalLM(config).half().save_pretrained(folder)
    shutil.copy(golden / "tokenizer" / "tokenizer.model", folder)
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": PIECES}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("tower") / "clip")


def projector(rows: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(rows)
    return {
        "model.embed_tokens.weight": torch.randn(rows, WIDTH).half(),
        "model.mm_projector.weight": torch.randn(WIDTH, TOWER_WIDTH).half(),
        "model.mm_projector.bias": torch.randn(WIDTH).half(),
    }


@pytest.mark.parametrize("rows", [2, PIECES + 4])  # the two alone, or LLaVA's whole matrix
def test_one_command_makes_what_the_first_stage_begins_with(
    rows, vicuna, clip, golden, canonical, tmp_path, monkeypatch
):
    file, target = tmp_path / "projector.bin", tmp_path / "checkpoints" / "begun"
    stored = projector(rows)
    torch.save(stored, file)
    assemble = start.assemble_from_parts
    monkeypatch.setattr(start, "assemble_from_parts", lambda *a, **k: assemble(*a, **{**k, "region_config": REGION}))
    command = ["start", str(target), "--language", str(vicuna), "--vision", str(clip), "--projector", str(file)]
    assert main(command) == 0
    assert main(command) == 2  # it is there

    gpt4roi = GPT4RoI.from_pretrained(target, device="cpu", dtype="auto")
    model, tokenizer = gpt4roi.model, gpt4roi.processor.tokenizer
    assert model.dtype == torch.float16
    ids = tokenizer.convert_tokens_to_ids(list(ADDED_TOKENS))
    assert ids == [PIECES + k for k in range(6)]
    assert model.multi_modal_projector.weight.equal(stored["model.mm_projector.weight"])
    assert model.multi_modal_projector.bias.equal(stored["model.mm_projector.bias"])
    theirs = LlamaForCausalLM.from_pretrained(vicuna, dtype=torch.float16)
    embeddings, before = model.language_model.get_input_embeddings().weight, theirs.get_input_embeddings().weight
    assert embeddings[ids[-2:]].equal(stored["model.embed_tokens.weight"][-2:])
    assert embeddings[: PIECES + 1].equal(before)  # [PAD]'s row too
    mean = before.float().mean(0)
    torch.testing.assert_close(embeddings[ids[1:4]].float(), mean.expand(3, -1), atol=1e-3, rtol=0)
    output = model.language_model.get_output_embeddings().weight
    mean = theirs.get_output_embeddings().weight.float().mean(0)
    torch.testing.assert_close(output[ids[1:]].float(), mean.expand(5, -1), atol=1e-3, rtol=0)
    generation = model.generation_config
    assert generation.eos_token_id == [tokenizer.eos_token_id] and tokenizer.eos_token == "</s>"

    turns = [("user", "What is <region1>?\nAnd why?"), ("assistant", "A  dog, 3 years old.")]
    assert gpt4roi.processor.prompt(turns).input_ids == build_prompt(turns, canonical, 16).input_ids


def test_the_region_encoder_follows_from_the_seed(vicuna, clip, tmp_path):
    save_file(projector(), tmp_path / "projector.safetensors")
    made = [
        start_checkpoint(
            vicuna, clip, tmp_path / "projector.safetensors", tmp_path / name, seed=seed, region_config=REGION
        )
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    a, b, c = ((folder / "model.safetensors").read_bytes() for folder in made)
    assert a == b != c


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.embed_tokens.weight": None}, "must contain one embed_tokens.weight.*no_im_token"),
        ({"model.mm_projector.bias": None}, r"must contain one mm_projector\.bias"),
        ({"model.embed_tokens.weight": torch.zeros(1, WIDTH)}, "2 or more, D"),
        ({"model.mm_projector.weight": torch.zeros(WIDTH, 8)}, "maps 8 to 32 channels, but the tower has 16"),
        ({"model.mm_projector.bias": torch.full((WIDTH,), torch.nan)}, "the projector's weights"),
        ({"model.embed_tokens.weight": torch.full((2, WIDTH), torch.inf)}, "the projector's rows"),
    ],
)
def test_a_projector_that_does_not_fit_is_refused(change, words, vicuna, clip, tmp_path):
    stored = {name: tensor for name, tensor in (projector() | change).items() if tensor is not None}
    torch.save(stored, tmp_path / "projector.bin")
    with pytest.raises(ValueError, match=words):
        start_checkpoint(vicuna, clip, tmp_path / "projector.bin", tmp_path / "out", region_config=REGION)
    assert not list(tmp_path.glob("out*"))


def test_a_disk_that_is_full_is_told_in_words(vicuna, clip, tmp_path, monkeypatch):
    save_file(projector(), tmp_path / "projector.safetensors")

    def begin() -> None:
        start_checkpoint(vicuna, clip, tmp_path / "projector.safetensors", tmp_path / "out", region_config=REGION)

    usage, limits = shutil.disk_usage(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="the checkpoint does not fit into"):
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
        begin()
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # no file may grow beyond that in this process
    try:
        with pytest.raises(OSError, match=r"the checkpoint could not be written to .* were free. Free some space"):
            begin()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "out").exists()
    begin()
    assert (tmp_path / "out").is_dir()


def test_tokens_of_its_own_or_a_template_leave_a_folders_tokenizer_as_it_is(vicuna, clip, canonical, tmp_path):
    def ids(folder: Path, **options: str) -> list[int]:
        gpt4roi = GPT4RoI.from_parts(folder, clip, region_config=REGION, device="cpu", **options)
        return gpt4roi.processor.tokenizer("<im_start> a dog\n<im_end>").input_ids

    ours = canonical("<im_start> a dog\n<im_end>").input_ids
    assert ids(vicuna) == ours
    other = tmp_path / "other"
    shutil.copytree(vicuna, other)
    (other / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert ids(other, chat_format="gpt4roi") == ours
    with pytest.raises(FileNotFoundError, match="no projector file"):
        start_checkpoint(vicuna, clip, tmp_path / "absent.bin", tmp_path / "out")
