"""A hub's checkpoint gets the same checks as a folder, and its weights are downloaded after all possible checks."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hub_cache import COMMIT, NAME, publish
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from tiny import tiny_gpt4roi, tiny_image
from tiny_parts import save_clip, save_language_model

from gpt4roi_nb import GPT4RoI, load_model, memory
from gpt4roi_nb.checkpoint import hub
from gpt4roi_nb.train.sharding import without_weights

EARLIER = "fedcba9876" * 4
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
REGION = {"num_levels": 2, "hidden_size": 16, "num_groups": 4, "output_size": 4, "embed_dim": 24}


class Hub:
    """A replacement for `snapshot_download`: a hub that gives what is requested, and remembers it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.gave: list[str] = []
        self.revisions: list[str | None] = []

    def __call__(self, name: str, *, allow_patterns: list[str], revision: str | None = None, **options) -> str:
        files = [str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()]
        names = set(filter_repo_objects(files, allow_patterns=allow_patterns))
        self.gave += sorted(names - {"config.json"})
        self.revisions.append(revision)
        return str(publish(self.folder, self.cache, name, only=names))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_gpt4roi(seed=1).save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "tiny")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["folder", "hub"])
def named(request, cache):
    """The name to load a folder by: its path, or its hub id in the hub's cache."""

    def name_of(folder: Path, name: str = NAME):
        if request.param == "folder":
            return folder
        publish(folder, cache, name)
        return name

    return name_of


def load(name, **options) -> GPT4RoI:
    return GPT4RoI.from_pretrained(name, device="cpu", **options)


# ----------------------------------------------------------------------------------------- what is wrong, by its kind


def with_json(name: str, **changes):
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        content |= changes
        (folder / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return change


def with_text(name: str, text: str):
    def change(folder: Path) -> None:
        (folder / name).write_text((folder / name).read_text().replace("{", f'{{"strange": {text}, ', 1))

    return change


def with_tensor(change_of):
    """Change the first matrix of the weights whose name contains "layers.0."."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        name = next(name for name in sorted(tensors) if "layers.0." in name and tensors[name].dim() == 2)
        tensors[name] = change_of(tensors[name])
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return change


def with_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor[0, 0] = torch.nan
    return tensor


def linked_out(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to(folder.parent / "elsewhere")


def index_out(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "../../other.safetensors"}}))


def cut_short(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


NESTED = "[" * 5000 + "]" * 5000
# How a checkpoint is broken, the exception, and a part of its message.
ALL_MODELS = {
    "an adapter": (with_json("adapter_config.json", peft_type="LORA"), ValueError, r"holds an adapter \(adapter_con"),
    "digits": (with_text("config.json", "9" * 5000), ValueError, r"config\.json' holds a whole number of 5000 digits"),
    "nesting": (with_text("config.json", NESTED), ValueError, r"config\.json' nests lists or objects more than"),
    "a link out": (linked_out, ValueError, r"model\.safetensors in .* is a link out of the folder, to .*elsewhere"),
    "an index out": (index_out, ValueError, r"names '\.\./\.\./other.*expected files in its own folder"),
    "cut short": (cut_short, ValueError, r"model\.safetensors' is truncated or not a safetensors file"),
    "whole numbers": (with_tensor(torch.Tensor.long), ValueError, r"expected (floating-point numbers|one of F64)"),
    "nan": (with_tensor(with_nan), ValueError, "hold NaN or infinity in 1 tensors"),
    "no config": (lambda folder: (folder / "config.json").unlink(), FileNotFoundError, r"lacks config\.json"),
    "other weights": (
        with_json("config.json", transformers_weights="../other.safetensors"),
        ValueError,
        "names its own weights file",
    ),
}
OURS = {
    "bytes": (with_tensor(lambda tensor: tensor.to(torch.int8)), ValueError, "first .*, stored as I8; expected one of"),
    "a shape": (with_tensor(lambda tensor: torch.zeros(3, 5)), ValueError, r"do not fit .* got \(3, 5\)"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), FileNotFoundError, "lacks its weights file"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), FileNotFoundError, r"lacks tokenizer\.json"),
    "no closing": (with_json("processor_config.json", closing=None), ValueError, "has no 'closing'"),
    "tokenizer digits": (with_text("tokenizer.json", "9" * 5000), ValueError, r"tokenizer\.json' holds a whole number"),
    "another model": (with_json("config.json", model_type="llava"), ValueError, "a model of type 'llava'"),
    "a foreign id": (with_json("config.json", region_token_id=7), ValueError, "the id of <bbox> is 7"),
}


@pytest.mark.parametrize("case", [*ALL_MODELS, *OURS])
def test_what_is_wrong_is_told_of_a_hub_id_as_of_a_folder(copied, named, case):
    change, error, words = {**ALL_MODELS, **OURS}[case]
    change(copied)
    with pytest.raises(error, match=words):
        load(named(copied))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return {"language": save_language_model(folder / "language", "llama"), "tower": save_clip(folder / "tower")}


@pytest.mark.parametrize("part", ["language", "tower"])
@pytest.mark.parametrize("case", ALL_MODELS)
def test_a_part_is_checked_on_a_hub_as_in_a_folder(parts, tmp_path, named, part, case):
    change, error, words = ALL_MODELS[case]
    broken = shutil.copytree(parts[part], tmp_path / part)
    change(broken)
    with pytest.raises(error, match=words):
        GPT4RoI.from_parts(*{**parts, part: named(broken, "one")}.values(), region_config=REGION, device="cpu")


# ------------------------------------------------------------------------------------------ what comes, and when


def test_a_hub_id_gives_what_the_folder_does(saved, cache):
    publish(saved, cache)
    loaded, ours = load(NAME), load(saved)
    assert all(map(torch.equal, loaded.model.state_dict().values(), ours.model.state_dict().values()))
    assert loaded.source == loaded.model.name_or_path == loaded.model.config.name_or_path == NAME
    assert ours.model.name_or_path == str(saved)
    assert loaded.session(tiny_image()).ask("What is <region1>?", [(3, 4, 30, 40)], max_new_tokens=2).token_ids


def test_the_small_files_come_first_and_the_weights_of_the_same_commit(saved, cache, monkeypatch):
    given = Hub(saved, cache)
    monkeypatch.setattr(hub, "snapshot_download", given)
    load(NAME, revision="main")
    assert given.gave[-1] == WEIGHTS and given.gave.count(WEIGHTS) == 1
    assert given.revisions == ["main", COMMIT]


@pytest.mark.parametrize("case", ["no closing", "an adapter", "digits", "no memory"])
def test_what_is_refused_is_not_fetched(copied, cache, monkeypatch, case):
    given = Hub(copied, cache)
    monkeypatch.setattr(hub, "snapshot_download", given)
    if case == "no memory":
        monkeypatch.setattr(memory, "free_bytes", lambda _: 1000)
    else:
        {**ALL_MODELS, **OURS}[case][0](copied)
    with pytest.raises((MemoryError, ValueError)):
        load(NAME)
    assert given.gave and WEIGHTS not in given.gave


def test_parts_of_a_hub_are_fetched_after_their_configurations_were_checked(parts, tmp_path, cache, monkeypatch):
    for part in parts.values():
        publish(part, cache, f"some/{part.name}")
    tower = shutil.copytree(parts["tower"], tmp_path / "shallow")
    config = json.loads((tower / "config.json").read_text())
    config["num_hidden_layers"] = 2
    (tower / "config.json").write_text(json.dumps(config))
    assembled = GPT4RoI.from_parts("some/language", "some/tower", region_config=REGION, device="cpu")
    assert assembled.model.config.text_config.name_or_path == "some/language"
    assembled.save_pretrained(tmp_path / "saved")
    assert str(cache) not in (tmp_path / "saved" / "config.json").read_text()
    given = Hub(tower, cache)
    monkeypatch.setattr(hub, "snapshot_download", given)
    with pytest.raises(ValueError, match="need a deeper tower than 2 layers"):
        GPT4RoI.from_parts(parts["language"], "other/tower", region_config=REGION, device="cpu")
    assert given.revisions == [None] and given.gave == []  # config.json alone, which is not counted


def test_revision_cache_and_subfolder_are_as_given(saved, copied, tmp_path):
    with_json("config.json", about="earlier")(copied)
    (tmp_path / "above").mkdir()
    shutil.copytree(copied, tmp_path / "above" / "sub[1]")
    publish(saved, tmp_path / "own")
    publish(tmp_path / "above", tmp_path / "own", commit=EARLIER, revision="v1")
    where = {"cache_dir": tmp_path / "own", "local_files_only": True}
    assert load(NAME, **where).about == f"GPT4RoI from {NAME}"
    for revision in ("v1", EARLIER):
        assert load(NAME, revision=revision, subfolder="sub[1]", **where).about == "earlier"
    assert load(tmp_path / "above", subfolder="sub[1]").about == "earlier"
    assert load_model(NAME, device="cpu", **where).revision == COMMIT
    assert load_model(NAME, device="cpu", revision="v1", subfolder="sub[1]", **where).revision == EARLIER
    assert load_model(saved, device="cpu").revision == ""
    with pytest.raises(FileNotFoundError, match=r"lacks config\.json"):
        load(NAME, revision="v1", **where)
    with pytest.raises(FileNotFoundError, match=f"no checkpoint at '{NAME}'.*downloading it as a hub id failed"):
        load(NAME, revision="v2", **where)


def test_a_subfolder_of_a_hub_is_found_by_its_own_files_alone(saved, tmp_path, cache, monkeypatch):
    shutil.copytree(saved, tmp_path / "above" / "sub[1]")
    shutil.copytree(saved, tmp_path / "above" / "sub1")
    given = Hub(tmp_path / "above", cache)
    monkeypatch.setattr(hub, "snapshot_download", given)
    load(NAME, subfolder="sub[1]")
    assert {name.split("/")[0] for name in given.gave} == {"sub[1]"}


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        ({"model.safetensors": None, "pytorch_model.bin": None, "flax_model.msgpack": None}, {"model.safetensors"}),
        ({INDEX: ["a-1.safetensors", "a-2.safetensors"], "a-1.safetensors": None, "a-2.safetensors": None,
          "consolidated.safetensors": None}, {"a-1.safetensors", "a-2.safetensors"}),
        ({INDEX: ["gone.safetensors"], "pytorch_model.bin": None, "x.bin": None}, {"pytorch_model.bin"}),
        ({"pytorch_model.bin.index.json": ["a*.bin", "b.bin"], "a*.bin": None, "b.bin": None, "ab.bin": None},
         {"a*.bin", "b.bin"}),
        ({"flax_model.msgpack": None}, set()),
    ],
)  # fmt: skip
def test_of_several_layouts_the_first_that_is_whole_is_fetched(tmp_path, cache, monkeypatch, there, wanted):
    (tmp_path / "remote").mkdir()
    (tmp_path / "remote" / "config.json").write_text("{}")
    for name, shards in there.items():
        index = json.dumps({"weight_map": {f"t{shard}": shard for shard in shards or []}})
        (tmp_path / "remote" / name).write_text(index)
    given = Hub(tmp_path / "remote", cache)
    monkeypatch.setattr(hub, "snapshot_download", given)
    source = hub.locate(NAME, "source")
    assert {name for name in given.gave if not name.endswith(".json")} == set()
    source.get_weights()
    assert {name for name in given.gave if not name.endswith(".json")} == wanted


def test_a_snapshot_that_is_known_to_be_incomplete_lacks_a_file(saved, cache, monkeypatch):
    """Offline, huggingface_hub rejects a snapshot that lacks any matching file, such as another tokenizer's."""
    only = {file.name for file in saved.iterdir()} - {WEIGHTS}
    snapshot = publish(saved, cache, only=only)

    def incomplete(*_, **__):
        raise hub.IncompleteSnapshotError("it lacks vocab.txt", snapshot_path=str(snapshot))

    monkeypatch.setattr(hub, "snapshot_download", incomplete)
    with pytest.raises(FileNotFoundError, match=f"lacks its weights file {WEIGHTS}"):
        load(NAME)
    publish(saved, cache)
    assert load(NAME).source == NAME


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (hub.HTTPError("the connection dropped"), True),
        (OSError("No space left on device"), True),
        (hub.HFValidationError("Repo id must use alphanumeric chars"), False),
    ],
)
def test_a_download_that_broke_off_is_told_how_to_go_on(saved, cache, monkeypatch, error, goes_on):
    given = Hub(saved, cache)

    def breaks_off(name, *, allow_patterns, **options):
        if WEIGHTS in allow_patterns:
            raise error
        return given(name, allow_patterns=allow_patterns, **options)

    monkeypatch.setattr(hub, "snapshot_download", breaks_off)
    with pytest.raises(FileNotFoundError, match=f"no checkpoint at '{NAME}'.* as a hub id failed .{error}") as raised:
        load(NAME)
    assert (hub.HOW_TO_RESUME.format(NAME) in str(raised.value)) == goes_on


@pytest.mark.parametrize(
    ("option", "value"), [("variant", "fp16"), ("use_safetensors", False), ("gguf_file", "a.gguf")]
)
def test_weights_that_were_not_checked_are_not_loaded(saved, option, value):
    with pytest.raises(ValueError, match=f"{option}={value!r} would load other weights than the checkpoint's"):
        load(saved, **{option: value})


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "its disk is full .*; free some space there"),
        (errno.EDQUOT, "its disk is full .*; free some space there"),
        (errno.EACCES, "access to it is denied .*; make it readable and writable"),
        (errno.EROFS, "access to it is denied .*; make it readable and writable"),
    ],
)
def test_a_cache_that_is_full_or_denied_is_not_called_a_missing_checkpoint(cache, tmp_path, monkeypatch, number, words):
    def fails(*_, **__):
        raise OSError(number, os.strerror(number), "a.incomplete")

    monkeypatch.setattr(hub, "snapshot_download", fails)
    for folder, options in ((cache, {}), (tmp_path / "own", {"cache_dir": tmp_path / "own"})):
        expected = f"the checkpoint '{NAME}' could not be downloaded to the hub's cache, '{folder}': {words}"
        with pytest.raises(OSError, match=expected) as raised:
            load(NAME, **options)
        assert raised.value.errno == number and not isinstance(raised.value, FileNotFoundError)


def test_a_process_without_weights_reads_the_checked_files_of_one_commit(saved, copied, cache, monkeypatch):
    given = Hub(saved, cache)
    monkeypatch.setattr(hub, "snapshot_download", given)
    bare = without_weights(NAME)
    assert all(weight.is_meta for weight in bare.model.parameters()) and bare.source == NAME
    assert given.gave and WEIGHTS not in given.gave and len(given.revisions) == 1
    with_json("processor_config.json", closing=None)(copied)
    with pytest.raises(ValueError, match="has no 'closing'"):
        without_weights(copied)
