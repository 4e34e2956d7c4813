"""Damaged checkpoints: whichever file of one is changed, it loads, or its reader raises an error that names it."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from authors import cut, parts, sizes_of, tiny_original, write_authors, write_base, write_tower, write_weights
from mutations import ODD, cases, ends_well, garbled, mutated, written
from safetensors.torch import save_file
from tiny import TOKENIZER, tiny_gpt4roi
from tiny_families import saved_family
from tiny_parts import REGION, save_language_model, save_siglip
from transformers.utils import logging

from gpt4roi_nb import GPT4RoI, load_model
from gpt4roi_nb.checkpoint import convert_original, load_checkpoint
from gpt4roi_nb.checkpoint.shards import Shards
from gpt4roi_nb.checkpoint.start import read_projector

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Entries that files of JSON do not have here, and that their readers know.
MORE = (
    "added_tokens_decoder", "attn_implementation", "auto_map", "chat_template", "dtype", "eos_token_id",
    "extra_special_tokens", "image_processor", "image_std", "model_max_length", "quantization_config",
    "rope_parameters", "rope_scaling", "tie_word_embeddings", "tokenizer_class", "torch_dtype", "transformers_version",
    "use_cache",
)  # fmt: skip


@pytest.fixture(autouse=True)
def silent():
    """Without the libraries' thousand lines about what they find odd."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.set_verbosity(before)


def damaged(file: Path, rng: random.Random) -> bytes:
    """The file's content with some damage that leaves most of its structure."""
    whole = file.read_bytes()
    if file.suffix == ".json":
        return _json(json.loads(whole), rng)
    if file.suffix == ".safetensors" and rng.random() < 0.7:
        length = int.from_bytes(whole[:8], "little")
        header = _json(json.loads(whole[8 : 8 + length]), rng)
        return len(header).to_bytes(8, "little") + header + whole[8 + length :]
    return garbled(whole, rng)


def _json(content: dict[str, Any], rng: random.Random) -> bytes:
    if rng.random() < 0.2:
        content[rng.choice(MORE)] = rng.choice(ODD)
    return written(mutated(content, rng), rng)


def each_file(folder: Path, read: Callable[[], object], but: tuple[str, ...] = ()) -> None:
    """Read a folder again and again, each time with damage to another file of it; later ones are of no effect."""
    files = [file for file in sorted(folder.iterdir()) if file.name not in but]

    @cases
    def case(rng: random.Random) -> None:
        file = rng.choice(files)
        whole = file.read_bytes()
        file.write_bytes(damaged(file, rng))
        try:
            with ends_well():
                read()
        finally:
            file.write_bytes(whole)

    case()


@pytest.mark.slow
@pytest.mark.parametrize("shards", [False, True])
def test_a_damaged_gpt4roi(tmp_path: Path, shards: bool) -> None:
    gpt4roi = tiny_gpt4roi()
    gpt4roi.model.save_pretrained(tmp_path, max_shard_size="200KB" if shards else "1GB")
    gpt4roi.processor.save_pretrained(tmp_path)
    each_file(tmp_path, lambda: load_checkpoint(tmp_path, device="cpu", check_free_memory=False))


@pytest.mark.slow
def test_another_damaged_model(tmp_path: Path) -> None:
    saved_family(tmp_path, "vipllava")
    each_file(tmp_path, lambda: load_model(tmp_path, device="cpu", check_free_memory=False))


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("damaged", ["language", "tower"])
def test_a_damaged_part(tmp_path: Path, damaged: str, pieces: bool) -> None:
    language = save_language_model(tmp_path / "language", "llama")
    tower = save_siglip(tmp_path / "tower")
    if pieces:
        if damaged == "tower":
            return
        shutil.copy(TOKENIZER, language)
        (language / "added_tokens.json").write_text('{"[PAD]": 1000}')
        (language / "chat_template.jinja").unlink()
    each_file(tmp_path / damaged, lambda: GPT4RoI.from_parts(language, tower, region_config=REGION, device="cpu"))


@pytest.fixture(scope="module")
def authors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authors' files, their delta, its base and a tower."""
    folder = tmp_path_factory.mktemp("authors")
    theirs = tiny_original()
    state, tower = parts(theirs)
    delta, base = cut(state)
    sizes = sizes_of(theirs)
    write_authors(folder / "source", state, sizes)
    write_authors(folder / "delta", delta, sizes, shards=2)
    write_base(folder / "base", base, sizes)
    write_tower(folder / "tower", tower, theirs.model.config.vision_config.to_dict())
    for name in ("source", "delta"):
        (folder / name / "added_tokens.json").write_text('{"[PAD]": 1000, "<bbox>": 1002}')
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["source", "tower", "delta", "base"])
def test_damaged_files_of_the_authors(authors: Path, tmp_path: Path, damaged: str) -> None:
    given = authors / ("delta" if damaged == "base" else damaged if damaged != "tower" else "source")
    base = authors / "base" if damaged in ("delta", "base") else None

    def convert() -> None:
        shutil.rmtree(tmp_path / "target", ignore_errors=True)
        shutil.rmtree(tmp_path / "target.partial", ignore_errors=True)
        convert_original(given, tmp_path / "target", base=base, vision=authors / "tower", progress=False)

    each_file(authors / damaged, convert)


def interrupt(_: Path) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("name", ["progress.json", "conversion.json"])
def test_damaged_notes_of_a_conversion(authors: Path, tmp_path: Path, name: str, monkeypatch) -> None:
    target, partial = tmp_path / "target", tmp_path / "target.partial"
    if name == "progress.json":
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("gpt4roi_nb.checkpoint.convert.check_checkpoint", interrupt)
            convert_original(authors / "source", target, vision=authors / "tower", progress=False)
        kept = shutil.copytree(partial, tmp_path / "kept")
    else:
        convert_original(authors / "source", target, vision=authors / "tower", progress=False)
        kept = shutil.copytree(target, tmp_path / "kept")
        monkeypatch.setattr("gpt4roi_nb.checkpoint.convert.greedy_answer", lambda *_: "yes")

    @cases
    def case(rng: random.Random) -> None:
        for place in (target, partial):
            shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(kept, partial if name == "progress.json" else target)
        file = (partial if name == "progress.json" else target) / name
        file.write_bytes(damaged(file, rng))
        with ends_well():
            convert_original(
                authors / "source", target, vision=authors / "tower", verify=name != "progress.json", progress=False
            )

    case()


@pytest.mark.parametrize("layout", ["zip", "old", "safetensors"])
def test_damaged_weights(tmp_path: Path, layout: str) -> None:
    tensors = {"a.weight": torch.rand(3, 4), "b.bias": torch.rand(5).half(), "c": torch.arange(3)}
    if layout == "old":
        torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    else:
        write_weights(tmp_path, tensors, layout="bin" if layout == "zip" else layout)

    def read() -> None:
        shards = Shards(tmp_path)
        for name in shards.tensors:
            shards.read(name)

    each_file(tmp_path, read)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_damaged_projector(tmp_path: Path, suffix: str) -> None:
    tensors = {
        "model.embed_tokens.weight": torch.rand(2, 4),
        "model.mm_projector.weight": torch.rand(4, 3),
        "model.mm_projector.bias": torch.rand(4),
    }
    file = tmp_path / f"projector{suffix}"
    torch.save(tensors, file) if suffix == ".bin" else save_file(tensors, file)
    each_file(tmp_path, lambda: read_projector(file))
