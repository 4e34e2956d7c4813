"""Training: the two published stages, or any parts, on top of transformers' Trainer."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from gpt4roi_nb.data.collate import Collator, ImageFolders
from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.files import alone_in
from gpt4roi_nb.session.gpt4roi import GPT4RoI
from gpt4roi_nb.session.region_model import needs_gpt4roi
from gpt4roi_nb.train.arguments import training_arguments
from gpt4roi_nb.train.checks import (
    check_augment,
    check_data,
    check_fits,
    check_gradients,
    check_numbers,
    check_options,
    check_stage,
    check_tower_cache,
    check_unsharded,
)
from gpt4roi_nb.train.disk import check_disk
from gpt4roi_nb.train.epoch_dataset import EpochDataset
from gpt4roi_nb.train.execute import execute, prepare_output
from gpt4roi_nb.train.parts import choose_parts, table
from gpt4roi_nb.train.probes import Probes
from gpt4roi_nb.train.run import RunCallback, TrainingRun
from gpt4roi_nb.train.trainer import RegionTrainer

# accelerate keeps one state per process, and each new Trainer replaces it: a running training would lose its own.
_TRAINING = threading.Lock()
SKIPPED_FILE = "skipped.jsonl"  # in the output folder: records that could not be used


def train(
    gpt4roi: GPT4RoI,
    data: Sized,
    images: ImageFolders | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    *,
    also: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    stage: int = 1,
    trainable: Sequence[str] | None = None,
    lora: Mapping[str, Any] | None = None,
    learning_rate: float = 2e-5,
    weight_decay: float | None = None,
    decay_biases_and_norms: bool = True,
    warmup_steps: float | None = None,
    epochs: float = 2,
    max_steps: int = -1,
    batch_size: int | None = None,
    gradient_accumulation_steps: int = 1,
    max_length: int = 2048,
    bf16: bool | None = None,
    gradient_checkpointing: bool = False,
    seed: int = 0,
    save_steps: int = 500,
    keep: int = 2,
    logging_steps: int = 10,
    workers: int = 0,
    strict: bool = False,
    augment: bool | str | Mapping[str, str] | None = None,
    tower_cache: str | os.PathLike[str] | None = None,
    resume: bool = True,
    block: bool = True,
    progress: bool = True,
    check_free_memory: bool = True,
    probes: Probes | None = None,
    probe_steps: int | None = None,
    on_start: Callable[[TrainingRun], object] | None = None,
    report: Callable[[dict[str, float]], None] | None = None,
    **options: Any,
) -> TrainingRun:
    """Train a model in place.

    The defaults are the published settings, except augmentation, gradient checkpointing, and how often it saves and
    logs: `stage1.yaml` and `stage2.yaml` set these too. If a training was interrupted, the same call continues it from
    the last undamaged checkpoint, with its optimizer, schedule, position in the data and random state.

    Args:
        gpt4roi: the model. After training with adapters, they are merged into it, and it is an ordinary model again. A
            training that was stopped or failed leaves its adapters on the model; the next call removes them, and
            continues with those of the last checkpoint.
        data: `Record`s by index, with a length.
        images: the folder of the records' images, or one per source. None asks the data, which know it if `load` or a
            `Mixture` made them.
        also: another folder, or several, that links in `images` may lead to; other links out of `images` are not
            followed.
        output_dir: for checkpoints, logs, and at the end the whole model in the folder `model`; None is
            `runs/stage1` or `runs/stage2`.
        stage: 1 trains the region encoder; 2 trains the region encoder, the projector and the language model.
        trainable: train these parts instead of the stage's; names in `gpt4roi_nb.train.parts.PARTS`.
        lora: train adapters instead of the language model's own weights: options of peft's `LoraConfig`, {} for
            defaults.
        weight_decay, batch_size, warmup_steps: None takes the stage's. batch_size is per device; warmup_steps is a
            number of steps, or, if below 1, a share of all steps.
        decay_biases_and_norms: apply weight decay to every tensor that trains, as published; False leaves out biases
            and norms, as is usual elsewhere.
        max_length: in tokens; a longer conversation loses its last questions.
        bf16: compute in bfloat16; None does so if the GPU supports it.
        save_steps, keep: how often a checkpoint is written, and how many are kept. While one is written, there is one
            more: allow (`keep` + 1) × 12 bytes per parameter that trains.
        workers: processes that read images.
        strict: stop at the first record that cannot be used, for example because its image is damaged. Otherwise such
            records are skipped, counted and listed: `TrainingRun.report`, and `skipped.jsonl` in `output_dir`.
        augment: mirror and shift images at random: "published", as the authors did with COCO's, or "mild", only where
            the texts stay true; for all sources, or for the named ones, as `{"coco": "published"}` in the published
            first stage. True is "mild" for all.
        tower_cache: a folder for the frozen tower's hidden states, so that each image passes through it only once. Its
            size is printed beforehand; OSError if it does not fit on the disk. Augmented sources are not cached.
        resume: continue from the last undamaged checkpoint in `output_dir`, if there is one. If False, the first new
            checkpoint replaces those of later steps.
        block: wait for the end; False returns at once and trains in a thread. The model can be asked meanwhile: each
            answer comes from one state of the weights, and the next step waits for it.
        progress: show a progress bar.
        check_free_memory: compare the least memory that the training needs with what is free on its device, before
            anything is changed.
        probes: regions that the model is asked about before the first step, every `probe_steps` steps (None: whenever a
            line is logged) and after the last; the answers are in `TrainingRun.answers`.
        on_start: called with the run before it begins, as `lambda run: display(TrainingMonitor(run))`.
        report: called with each logged line.
        options: passed on to transformers' `TrainingArguments`.

    Returns:
        The run: its history, answers and skipped records, and `stop` and `wait`.

    Raises:
        TypeError: for `warmup`, the former name of `warmup_steps`, and for an argument that is not a number or not an
            integer.
        ValueError: for numbers that are too small, NaN or infinite; an unknown stage or part; data that are empty,
            unreadable or do not know their images' folder; a checkpoint of other parts or data; a frozen language model
            in float16 without autocast; a tower cache although pixels or tower change; lora, probes or a tower cache in
            a sharded training.
        BadRecord: a record cannot be used, with `strict`.
        RuntimeError: another training runs in this process.
        FileExistsError: another training is writing to `output_dir`.
        OSError: too little disk space for the tower cache, a checkpoint or the model. The space for all checkpoints and
            the model is checked before the first step.
        FloatingPointError: the loss became NaN or infinite, and the batch's records are in
            `output_dir`/bad_batch.json; or weights did, which are then not saved.
        MemoryError: too little memory is free, or it ran out; the message says what to lower.

    Example:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import scene_records
        >>> from gpt4roi_nb.train import train
        >>> data = scene_records("scenes", 2, seed=0)  # writes two images, and makes records about them
        >>> gpt4roi = GPT4RoI.from_pretrained(device="cpu")
        >>> run = train(gpt4roi, data, images="scenes", output_dir="run", max_steps=2, progress=False)
        module                       parameters        trained  learning rate  weight decay  of tensors
        ...
        region_encoder ... 2e-05          0.01 ...
        ...
        >>> run.state, run.step
        ('done', 2)
    """
    needs_gpt4roi(gpt4roi, "train")
    check_options(options)
    published = check_stage(stage)
    trainable = trainable or published.parts
    numbers = check_numbers(
        {
            "learning_rate": learning_rate,
            "weight_decay": published.weight_decay if weight_decay is None else weight_decay,
            "warmup_steps": published.warmup_steps if warmup_steps is None else warmup_steps,
            "epochs": epochs,
            "max_steps": max_steps,
            "batch_size": published.batch_size if batch_size is None else batch_size,
            "gradient_accumulation_steps": gradient_accumulation_steps,
            "max_length": max_length,
            "seed": seed,
            "save_steps": save_steps,
            "keep": keep,
            "logging_steps": logging_steps,
            "workers": workers,
            "probe_steps": probe_steps,
        }
    )
    seed = numbers["seed"]
    if bf16 is None:
        bf16 = not options.get("fp16") and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    check_data(data, images)
    augmented = check_augment(augment)
    if tower_cache is not None:
        check_tower_cache(trainable, augmented)
    if lora is not None or "language_model" not in trainable:
        check_gradients(gpt4roi.model, bf16 or bool(options.get("fp16")))

    output = Path(f"runs/stage{stage}" if output_dir is None else output_dir).expanduser()
    problems = Problems(output / SKIPPED_FILE, strict=strict)
    collator = Collator(
        gpt4roi.processor, images, numbers["max_length"], also=also, problems=problems, augment=augmented, seed=seed
    )
    dataset = EpochDataset(data, collator, located=images is None)
    tokens = dataset.check_readable()
    with ExitStack() as claims:
        claims.enter_context(_alone())
        arguments = training_arguments(
            output, numbers, options, bf16=bf16, gradient_checkpointing=gradient_checkpointing, progress=progress
        )
        if check_free_memory:
            check_fits(gpt4roi.model, trainable, lora, arguments, tokens, gradient_checkpointing)
        if arguments.should_save:  # true in the one of several processes that writes
            claims.enter_context(alone_in(output, "training"))
        transformers.set_seed(seed)  # also for the adapters' initial weights
        with gpt4roi.training_step():
            parts = choose_parts(gpt4roi.model, trainable, None if lora is None else dict(lora))
        run = TrainingRun(output, parts, problems, probes, _data=data)
        trainer = RegionTrainer(
            gpt4roi,
            decay_all=decay_biases_and_norms,
            args=arguments,
            train_dataset=dataset,
            data_collator=collator,
            callbacks=[RunCallback(run, gpt4roi, collator, numbers["probe_steps"] or numbers["logging_steps"], report)],
        )
        decayed = trainer.get_decay_parameter_names(gpt4roi.model)
        print(table(parts, numbers["learning_rate"], numbers["weight_decay"], decayed))  # noqa: T201  # what trains is said before it does
        if trainer.is_fsdp_enabled:
            check_unsharded({"lora": lora, "probes": probes, "tower_cache": tower_cache})
        # It replaces the progress bar, and prints the same as `history`.
        trainer.remove_callback(transformers.PrinterCallback)

        checkpoint = prepare_output(trainer, run, resume)
        if arguments.should_save:
            check_disk(output, trainer.disk_use(checkpoint))
        work = partial(
            execute,
            gpt4roi,
            trainer,
            dataset,
            run,
            checkpoint=checkpoint,
            tower_cache=None if tower_cache is None else Path(tower_cache).expanduser(),
            adapted=lora is not None,
            progress=progress,
        )
        if on_start is not None:
            on_start(run)
        held = claims.pop_all()  # kept until the work is done, in whichever thread
    try:
        run.start(partial(_within, held, work), block=block)
    except BaseException:  # the thread could not be started; otherwise it has closed them
        held.close()
        raise
    return run


@contextmanager
def _alone() -> Iterator[None]:
    """Raise RuntimeError while another training runs in this process, of this model or another."""
    if not _TRAINING.acquire(blocking=False):
        raise RuntimeError(
            "another training runs in this process, and a second one would break it. Of the `run` that train returned "
            "for it, run.wait() waits for its end, run.stop() ends it with a checkpoint, and TrainingMonitor(run) "
            "shows it again. Or train in another process (python -m gpt4roi_nb.train)"
        )
    try:
        yield
    finally:
        _TRAINING.release()


def _within(claims: ExitStack, work: Callable[[], None]) -> None:
    """Do the work, and release what it has claimed."""
    with claims:
        work()
