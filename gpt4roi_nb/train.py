"""Training: the two published stages, or any choice of parts, with transformers' Trainer underneath."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PrinterCallback, TrainerCallback, set_seed

from gpt4roi_nb.data.collate import Collator, ImageFolders
from gpt4roi_nb.training.parts import STAGES, Part, choose_parts, merge_adapters, table
from gpt4roi_nb.training.trainer import RegionTrainer, arguments_for, last_checkpoint, read_history

if TYPE_CHECKING:
    from gpt4roi_nb.bundle import GPT4RoI

MODEL_FOLDER = "model"  # in the output folder: the trained model, whole
OUT_OF_MEMORY = (
    "training ran out of memory; lower batch_size (and raise gradient_accumulation_steps by as much), or max_length, "
    "set gradient_checkpointing=True, or train the language model by lora={}. The last checkpoint is untouched"
)


@dataclass(frozen=True)
class Stage:
    """The published settings of a stage (arXiv 2307.03601 and its code, commit 00273ad).

    batch_size: records a device.
    warmup: a share of all steps below 1, a number of steps from 1 on.
    """

    parts: tuple[str, ...]
    batch_size: int
    weight_decay: float
    warmup: float


PUBLISHED = {
    1: Stage(STAGES[1], batch_size=1, weight_decay=0.01, warmup=0.003),
    2: Stage(STAGES[2], batch_size=2, weight_decay=0.0, warmup=3000),
}


@dataclass
class TrainingRun:
    """A training that runs, or has run.

    Attributes:
        output_dir: checkpoints, logs, and at the end the model.
        parts: what trains.
        history: what was logged, oldest first: "step", "loss", "loss/SOURCE", "learning_rate", "grad_norm", "epoch".
    """

    output_dir: Path
    parts: list[Part]
    history: list[dict[str, float]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False)
    _error: BaseException | None = field(default=None, repr=False)

    def stop(self) -> None:
        """Ends it after the present step, with a checkpoint."""
        self._stop.set()

    def wait(self, timeout: float | None = None) -> TrainingRun:
        """Waits for the end, at most `timeout` seconds. Raises what made it fail."""
        if self._thread is not None:
            self._thread.join(timeout)
        if self._error is not None:
            raise self._error
        return self

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def stopped(self) -> bool:
        """Whether `stop` ended it."""
        return self._stop.is_set() and not self.running


class _Watch(TrainerCallback):
    """Passes the log on to a run, and the run's stop to the Trainer."""

    def __init__(self, run: TrainingRun, report: Callable[[dict[str, float]], None] | None) -> None:
        self.run, self.report = run, report

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        line = {"step": state.global_step, **(logs or {})}
        self.run.history.append(line)
        if self.report is not None:
            self.report(line)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.run._stop.is_set():
            control.should_training_stop = control.should_save = True


def train(
    gpt4roi: GPT4RoI,
    data: Sized,
    images: ImageFolders,
    output_dir: str | os.PathLike[str],
    *,
    stage: int = 1,
    trainable: Sequence[str] | None = None,
    lora: Mapping[str, Any] | None = None,
    learning_rate: float = 2e-5,
    weight_decay: float | None = None,
    warmup: float | None = None,
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
    resume: bool = True,
    block: bool = True,
    progress: bool = True,
    report: Callable[[dict[str, float]], None] | None = None,
    **options: Any,
) -> TrainingRun:
    """Trains a model, in place; the defaults are the published settings.

    An interrupted training is continued by the same call: from the last checkpoint that is whole, with optimiser,
    schedule, place in the data and random state.

    Args:
        gpt4roi: the model. After training with adapters it is an ordinary model again, which has learnt.
        data: `Record`s by index, with a length.
        images: the folder of the records' pictures, or one for each source.
        output_dir: for checkpoints, logs, and at the end the whole model in the folder `model`.
        stage: 1 trains the region encoder; 2 the region encoder, the projector and the language model.
        trainable: other parts than the stage's, of `training.parts.PARTS`.
        lora: adapters in place of the language model's own weights: options of peft's `LoraConfig`, {} for defaults.
        weight_decay, batch_size, warmup: None takes the stage's. batch_size is a device's; warmup is a share of all
            steps below 1, a number of steps from 1 on.
        max_length: tokens; a longer conversation loses its last questions.
        bf16: compute in bfloat16; None does where there is a GPU that can.
        save_steps, keep: how often a checkpoint is written, and how many are kept.
        workers: processes that read pictures.
        resume: continue from the last whole checkpoint in `output_dir`, if there is one.
        block: wait for the end; else return at once, and train in a thread.
        progress: show a progress bar.
        report: called with each logged line.
        options: passed on to transformers' `TrainingArguments`.

    Raises:
        ValueError: for an unknown stage or part, empty data, or a checkpoint of other parts.
        FloatingPointError: the loss became NaN or infinite; the batch's records are in `output_dir`/bad_batch.json.
        MemoryError: out of memory; says what to lower.
    """
    if stage not in PUBLISHED:
        raise ValueError(f"stage must be 1 or 2, but is {stage!r}; for other parts give trainable")
    if not len(data):
        raise ValueError("there is no data to train on: its length is 0")
    published = PUBLISHED[stage]
    weight_decay = published.weight_decay if weight_decay is None else weight_decay
    output = Path(output_dir).expanduser()
    parts = choose_parts(gpt4roi.model, trainable or published.parts, None if lora is None else dict(lora))
    print(table(parts, learning_rate, weight_decay))  # noqa: T201  # what trains is said before it does
    if bf16 is None:
        bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    arguments = arguments_for(
        output,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup_steps=published.warmup if warmup is None else warmup,
        lr_scheduler_type="cosine",
        num_train_epochs=epochs,
        max_steps=max_steps,
        per_device_train_batch_size=batch_size or published.batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        bf16=bf16,
        seed=seed,
        save_steps=save_steps,
        save_total_limit=keep,
        logging_steps=logging_steps,
        dataloader_num_workers=workers,
        disable_tqdm=not progress,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_nan_inf_filter=False,
        **{"report_to": _loggers(), **({"gradient_checkpointing": True} if gradient_checkpointing else {}), **options},
    )
    set_seed(seed)
    run = TrainingRun(output, parts)
    trainer = RegionTrainer(
        model=gpt4roi.model,
        args=arguments,
        train_dataset=data,
        data_collator=Collator(gpt4roi.processor, images, max_length),
        callbacks=[_Watch(run, report)],
    )
    trainer.remove_callback(PrinterCallback)  # which stands in for the progress bar, and says the same as `history`

    def work() -> None:
        checkpoint = last_checkpoint(output) if resume else None
        if checkpoint is not None:
            run.history.extend(read_history(checkpoint))
        try:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except torch.OutOfMemoryError as error:
            raise MemoryError(OUT_OF_MEMORY) from error
        finally:
            gpt4roi.model.eval()
        if not run._stop.is_set():
            _finish(gpt4roi, trainer, lora is not None)

    if block:
        work()
        return run

    def in_thread() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # `wait` raises it in the caller's thread
            run._error = error

    run._thread = threading.Thread(target=in_thread, name="gpt4roi-train", daemon=True)
    run._thread.start()
    return run


def _finish(gpt4roi: GPT4RoI, trainer: RegionTrainer, adapted: bool) -> None:
    """Writes the whole model, under another name first."""
    if adapted:
        merge_adapters(gpt4roi.model)
    if trainer.args.should_save:
        target = Path(str(trainer.args.output_dir)) / MODEL_FOLDER
        partial = target.with_name(f"{MODEL_FOLDER}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        gpt4roi.save_pretrained(partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)
    trainer.accelerator.wait_for_everyone()


def _loggers() -> str:
    """TensorBoard, where it is installed."""
    return "tensorboard" if importlib.util.find_spec("tensorboard") else "none"


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m gpt4roi_nb.train config.yaml`, or `accelerate launch -m gpt4roi_nb.train config.yaml`.

    The file names `checkpoint` (absent: the demo checkpoint), `output_dir`, `data` (a list of what
    `gpt4roi_nb.data.load` takes, each with an optional `weight`), and any keyword of `train`.
    """
    import yaml

    from gpt4roi_nb.bundle import GPT4RoI
    from gpt4roi_nb.data import Mixture, load

    parser = argparse.ArgumentParser(prog="python -m gpt4roi_nb.train", description="Train a GPT4RoI.")
    parser.add_argument("config", type=Path, help="a YAML file; docs/training.md shows one")
    file = parser.parse_args(arguments).config
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        parser.error(f"{file} cannot be read: {error}")
    if not isinstance(config, dict) or not config.get("output_dir") or not config.get("data"):
        parser.error(f"{file} must give output_dir and data; docs/training.md shows a whole file")
    try:
        datasets, weights, images = {}, {}, {}
        for number, entry in enumerate(config.pop("data")):
            weight = entry.pop("weight", None)
            dataset = load(**entry)
            name = f"{dataset.name} {number}"
            datasets[name] = dataset
            weights[name] = len(dataset) if weight is None else weight
            images[dataset.name] = entry.get("images")
        gpt4roi = GPT4RoI.from_pretrained(config.pop("checkpoint", None))
        train(gpt4roi, Mixture(datasets, weights, seed=config.get("seed", 0)), images, **config)
    except (ValueError, TypeError, OSError, MemoryError, FloatingPointError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
