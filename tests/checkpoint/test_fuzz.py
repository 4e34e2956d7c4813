"""Damaged checkpoints: whichever file of one is changed, it loads, or its reader raises an error that names it."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable
from functools import partial
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


def each_file(*readers: tuple[Path, Callable[[], object]]) -> None:
    """Read again and again with one of several readers, each time with damage to another file of its folder."""

    @cases
    def case(rng: random.Random) -> None:
        folder, read = rng.choice(readers)
        file = rng.choice(sorted(folder.iterdir()))
        whole = file.read_bytes()
        file.write_bytes(damaged(file, rng))
        try:
            with ends_well():
                read()
        finally:
            file.write_bytes(whole)

    case()


@pytest.mark.slow
def test_a_damaged_gpt4roi(tmp_path: Path) -> None:
    gpt4roi, readers = tiny_gpt4roi(), []
    for size in ("1GB", "200KB"):  # one file, and several with an index
        folder = tmp_path / size
        gpt4roi.model.save_pretrained(folder, max_shard_size=size)
        gpt4roi.processor.save_pretrained(folder)
        readers.append((folder, partial(load_checkpoint, folder, device="cpu", check_free_memory=False)))
    each_file(*readers)


@pytest.mark.slow
def test_another_damaged_model(tmp_path: Path) -> None:
    saved_family(tmp_path, "vipllava")
    each_file((tmp_path, lambda: load_model(tmp_path, device="cpu", check_free_memory=False)))


@pytest.mark.slow
def test_damaged_parts(tmp_path: Path) -> None:
    language = save_language_model(tmp_path / "language", "llama")
    old = shutil.copytree(language, tmp_path / "old")  # with SentencePiece's file
    shutil.copy(TOKENIZER, old)
    (old / "added_tokens.json").write_text('{"[PAD]": 1000}')
    (old / "chat_template.jinja").unlink()
    tower = save_siglip(tmp_path / "tower")

    def assemble(part: Path) -> None:
        GPT4RoI.from_parts(part, tower, region_config=REGION, device="cpu")

    each_file(
        (language, partial(assemble, language)), (old, partial(assemble, old)), (tower, partial(assemble, language))
    )


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


def converted(authors: Path, target: Path, name: str = "source", **options: Any) -> None:
    base = authors / "base" if name == "delta" else None
    convert_original(authors / name, target, base=base, vision=authors / "tower", progress=False, **options)


@pytest.mark.slow
def test_damaged_files_of_the_authors(authors: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"

    def convert(name: str) -> None:
        for place in (target, tmp_path / "target.partial"):
            shutil.rmtree(place, ignore_errors=True)
        converted(authors, target, name)

    read = {"source": "source", "tower": "source", "delta": "delta", "base": "delta"}
    each_file(*((authors / folder, partial(convert, name)) for folder, name in read.items()))


def interrupt(_: Path) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_damaged_notes_of_a_conversion(authors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("gpt4roi_nb.checkpoint.convert.check_checkpoint", interrupt)
        converted(authors, tmp_path / "begun")
    converted(authors, tmp_path / "whole")
    monkeypatch.setattr("gpt4roi_nb.checkpoint.convert.greedy_answer", lambda *_: "yes")
    report = (tmp_path / "whole" / "conversion.json").read_bytes()
    shutil.copytree(tmp_path / "begun.partial", tmp_path / "kept")

    @cases
    def case(rng: random.Random) -> None:
        if rng.random() < 0.8:  # a conversion is slower than a report
            target = tmp_path / "whole"
            (file := target / "conversion.json").write_bytes(report)
        else:
            target, unfinished = tmp_path / "begun", tmp_path / "begun.partial"
            for place in (target, unfinished):
                shutil.rmtree(place, ignore_errors=True)
            file = shutil.copytree(tmp_path / "kept", unfinished) / "progress.json"
        file.write_bytes(damaged(file, rng))
        with ends_well():
            converted(authors, target, verify=target.name == "whole")

    case()


def test_damaged_weights(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.rand(3, 4), "b.bias": torch.rand(5).half(), "c": torch.arange(3)}
    (tmp_path / "old").mkdir()
    torch.save(tensors, tmp_path / "old" / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    write_weights(tmp_path / "zip", tensors, shards=2)
    write_weights(tmp_path / "safetensors", tensors, layout="safetensors")

    def read(folder: Path) -> None:
        shards = Shards(folder)
        for name in shards.tensors:
            shards.read(name)

    each_file(*((folder, partial(read, folder)) for folder in sorted(tmp_path.iterdir())))


def test_a_damaged_projector(tmp_path: Path) -> None:
    tensors = {
        "model.embed_tokens.weight": torch.rand(2, 4),
        "model.mm_projector.weight": torch.rand(4, 3),
        "model.mm_projector.bias": torch.rand(4),
    }
    for name in ("zip", "safetensors"):
        (tmp_path / name).mkdir()
    torch.save(tensors, tmp_path / "zip" / "projector.bin")
    save_file(tensors, tmp_path / "safetensors" / "projector.safetensors")
    each_file(*((file.parent, partial(read_projector, file)) for file in sorted(tmp_path.glob("*/*"))))
