"""The whole conversion. Memory holds one tensor and the output file being filled, whatever the model's size."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from gpt4roi_nb.checkpoint import original
from gpt4roi_nb.checkpoint.check import INDEX_FILE, OPTIONAL_FILES, check_checkpoint, check_what_is_loaded
from gpt4roi_nb.checkpoint.delta import Adder
from gpt4roi_nb.checkpoint.hub import locate
from gpt4roi_nb.checkpoint.load import load_checkpoint
from gpt4roi_nb.checkpoint.plan import holds_tower, make_plan
from gpt4roi_nb.checkpoint.report import ConversionReport
from gpt4roi_nb.checkpoint.shards import Shards
from gpt4roi_nb.checkpoint.work import (
    PROGRESS_FILE,
    assign,
    begun,
    check_disk,
    fingerprint,
    finished_files,
    write_tensors,
)
from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.files import given_path, read_json, write_json
from gpt4roi_nb.memory import dtype_name
from gpt4roi_nb.prompt import DEFAULT_QUESTION
from gpt4roi_nb.tokenizer import ADDED_TOKENS
from gpt4roi_nb.typed import typed

PARTIAL = ".partial"  # the suffix of the target's name until it is complete
REPORT_FILE = "conversion.json"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
DEFAULT_TOWER = "openai/clip-vit-large-patch14"


def convert_original(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    vision: str | os.PathLike[str] | None = None,
    dtype: str | torch.dtype | None = None,
    verify: bool = False,
    force: bool = False,
    progress: bool = True,
) -> ConversionReport:
    """Convert the authors' checkpoint, or their delta and its base, to this package's layout, in little memory.

    If a conversion was interrupted, the same call continues it. Until it is complete, its folder is called
    `target` + ".partial".

    Args:
        source: the authors' files, a folder or a hub id: config.json, the weights as `pytorch_model*.bin` or
            safetensors, in shards or not, and tokenizer.model or tokenizer.json.
        target: the folder to write; it must not exist, or be empty.
        base: if the source is a delta, the first version of LLaMA-7B: a folder or a hub id.
        vision: the vision tower, which the authors' files do not contain: a folder or a hub id. None takes the folder
            that their config.json names.
        dtype: "float16", "bfloat16" or "float32"; None keeps the source's, or takes float16 with a base.
        verify: load the result and generate one greedy answer.
        force: add the base even if it does not look like the delta's, with a `WrongBaseWarning`; the report says
            so. Shapes must fit even then, and sums must be finite.
        progress: show a progress bar.

    Returns:
        What happened to every tensor; also written to `target`/conversion.json.

    Raises:
        FileNotFoundError: a folder, a file or a shard is missing; the message names it.
        FileExistsError: the target exists.
        ValueError: tensors are missing, unknown or of another shape; the base is not the delta's, without `force`;
            values are NaN or infinite; a file is truncated, or could run code when it is read.
        OSError: the disk is too small, or full.
        RuntimeError: `verify` failed; the conversion itself is complete.

    Example:
        >>> from gpt4roi_nb.checkpoint import DEMO_CHECKPOINT, convert_original
        >>> clip = "openai/clip-vit-large-patch14"
        >>> convert_original("GPT4RoI-7B-delta", "GPT4RoI-7B", base="llama-7b", vision=clip)  # doctest: +SKIP
        >>> convert_original("GPT4RoI-7B-delta", DEMO_CHECKPOINT)
        Traceback (most recent call last):
        ...
        FileExistsError: '...' exists already; remove it, or choose another target
    """
    started = time.perf_counter()
    goal = Path(target).expanduser().resolve()
    if goal.is_mount():
        raise ValueError(f"{str(goal)!r} is a mount point; choose a folder in it, such as {str(goal / 'GPT4RoI')!r}")
    if goal.exists() and (not goal.is_dir() or any(goal.iterdir())):
        if verify and (goal / REPORT_FILE).is_file():
            return _verify(goal, _read_report(goal))
        raise FileExistsError(f"{str(goal)!r} exists already; remove it, or choose another target")
    source_folder = folder_of(source, "source")
    base_folder = None if base is None else folder_of(base, "base")
    shards = Shards(source_folder)
    vision_folder, tower = _tower(vision, source_folder, shards)
    base_shards = None if base_folder is None else Shards(base_folder)

    tokenizer = original.tokenizer_of(source_folder, shards)
    adder = Adder(force)
    if base_folder is not None and base_shards is not None:
        vocabulary = len(tokenizer) - len(ADDED_TOKENS)
        original.check_base(base_folder, source_folder, base_shards, vocabulary, adder.doubt)
    into = dtype_of(dtype, torch.float16 if base is not None else shards.tensors[original.EMBEDDINGS].dtype)
    vision_config = GPT4RoIConfig().vision_config if vision_folder is None else original.vision_config_of(vision_folder)
    config = original.config_of(source_folder, shards, tokenizer, vision_config, into)
    steps, ignored = make_plan(config, shards, tower, base_shards)
    if base is None:
        original.check_whole(shards)

    processor = original.processor_of(config, tokenizer, vision_folder)

    goal.parent.mkdir(parents=True, exist_ok=True)
    partial = goal.with_name(goal.name + PARTIAL)
    files = assign(steps, into)
    plan = {"files": list(files), "sources": fingerprint(into, shards, tower, base_shards), "force": force}
    finished = finished_files(partial, plan)
    resumed = len(finished)
    needed = sum(step.bytes(into) for file in files if file not in finished for step in files[file])
    check_disk(goal.parent, partial, finished, needed)
    with begun(partial, plan, finished):
        write_tensors(partial, files, finished, into, progress, adder)
        config.save_pretrained(partial)
        original.generation_config_of(tokenizer).save_pretrained(partial)
        processor.save_pretrained(partial)
        write_json(
            partial / INDEX_FILE,
            {
                "metadata": {"total_size": sum(step.bytes(into) for step in steps)},
                "weight_map": {step.fate.name: file for file, group in files.items() for step in group},
            },
        )
        report = ConversionReport(
            source=os.fspath(source),
            target=str(goal),
            base=None if base is None else os.fspath(base),
            vision=str(tower.folder),
            dtype=dtype_name(into),
            fates=[*(step.fate for step in steps), *ignored],
            seconds=time.perf_counter() - started,
            resumed_files=resumed,
            base_checked=len(adder.checked),
            doubts=adder.doubts,
        )
        write_json(partial / REPORT_FILE, asdict(report))
        check_checkpoint(partial)
        partial.replace(goal)
        (goal / PROGRESS_FILE).unlink()
    return _verify(goal, report) if verify else report


def _read_report(folder: Path) -> ConversionReport:
    name = repr(str(folder / REPORT_FILE))
    report: ConversionReport = typed(read_json(folder / REPORT_FILE), ConversionReport, name)
    if report.dtype not in DTYPES:
        raise ValueError(f"the dtype in {name} must be one of {', '.join(DTYPES)}, but is {report.dtype!r}")
    return report


def _verify(folder: Path, report: ConversionReport) -> ConversionReport:
    """Generate an answer with a converted checkpoint, and add it to the report.

    Raises:
        RuntimeError: it does not load, or does not answer; the conversion itself is complete.
    """
    try:
        report.verified = greedy_answer(folder, DTYPES[report.dtype])
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        raise RuntimeError(
            f"{str(folder)!r} is converted, but could not be verified: {error}. To verify it again, repeat the command"
        ) from error
    write_json(folder / REPORT_FILE, asdict(report))
    return report


def folder_of(name: str | os.PathLike[str], what: str) -> Path:
    """The folder itself, or a hub id's files downloaded from the hub (from its cache if HF_HUB_OFFLINE is set)."""
    source = locate(name, what)
    check_what_is_loaded(source.folder, OPTIONAL_FILES)
    source.get_weights()
    return source.folder


def dtype_of(given: str | torch.dtype | None, default: torch.dtype) -> torch.dtype:
    """The dtype to write; raises ValueError if it is not one of `DTYPES`."""
    dtype = default if given is None else DTYPES.get(given) if isinstance(given, str) else given
    if dtype is None or dtype not in DTYPES.values():
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, but is {given if given is not None else default}")
    return dtype


def _tower(vision: str | os.PathLike[str] | None, source_folder: Path, source: Shards) -> tuple[Path | None, Shards]:
    """The vision tower's folder (None if the source contains the tower) and its tensors."""
    if vision is not None:
        folder = folder_of(vision, "vision tower")
        return folder, Shards(folder)
    if any(holds_tower(name) for name in source.tensors):
        return None, source
    named = read_json(source_folder / "config.json").get("mm_vision_tower") or DEFAULT_TOWER
    if not isinstance(named, str) or not given_path(named).is_dir():
        raise ValueError(
            f"the authors' files do not contain the vision tower; their config.json names {named!r}, which is not a "
            "folder here, and nothing is downloaded unasked. Say where it is with `vision` (--vision): a folder, or "
            f"{DEFAULT_TOWER} to download it from the hub"
        )
    return _tower(named, source_folder, source)


def greedy_answer(folder: Path, dtype: torch.dtype) -> str:
    """The greedy answer of a converted model, stored in `dtype`, about a region of a drawn image.

    Raises:
        ValueError: its logits are not finite.
    """
    # On a CPU float16 is too slow to use, and float32 would need twice the memory.
    slow = dtype == torch.float16 and not torch.cuda.is_available()
    model, processor = load_checkpoint(folder, dtype=torch.bfloat16 if slow else dtype)
    image = Image.new("RGB", (224, 224), "white")
    ImageDraw.Draw(image).ellipse((60, 60, 160, 160), fill="red")
    inputs = processor(image, DEFAULT_QUESTION, [(50, 50, 170, 170)])
    boxes = [image_boxes.to(model.device) for image_boxes in inputs.pop("boxes")]
    inputs.pop("labels")
    prompt = inputs["input_ids"].shape[1]
    generated: Any = model.generate(  # type: ignore[misc]
        **inputs.to(model.device),
        boxes=boxes,
        max_new_tokens=24,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    if not all(torch.isfinite(logits).all() for logits in generated.logits):
        raise ValueError(f"{str(folder)!r} loads, but its logits are NaN or infinite; the weights are damaged")
    text = processor.tokenizer.decode(generated.sequences[0, prompt:], skip_special_tokens=True)
    return text.strip()
