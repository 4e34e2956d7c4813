"""The work of a prepared training: the checkpoint it continues from, the steps, and the model that it writes."""

from __future__ import annotations

import shutil
from pathlib import Path

from gpt4roi_nb.checkpoint.disk import room_for
from gpt4roi_nb.memory import is_out_of_memory
from gpt4roi_nb.session.gpt4roi import GPT4RoI
from gpt4roi_nb.train.disk import REMEDY, tensor_bytes
from gpt4roi_nb.train.epoch_dataset import EpochDataset, cache_tower_states
from gpt4roi_nb.train.parts import merge_adapters
from gpt4roi_nb.train.run import TrainingRun, read_answers
from gpt4roi_nb.train.trainer import RegionTrainer, checkpoints, last_checkpoint, read_history

MODEL_FOLDER = "model"  # in the output folder: the whole trained model
OUT_OF_MEMORY = (
    "training ran out of memory; lower batch_size (and raise gradient_accumulation_steps by as much), or max_length, "
    "set gradient_checkpointing=True, or train the language model with lora={}. The last checkpoint is intact"
)


def prepare_output(trainer: RegionTrainer, run: TrainingRun, resume: bool) -> Path | None:
    """Find the checkpoint to continue from, and copy its history to the run; None if training starts from scratch.

    Raises:
        ValueError: there are checkpoints, but all are damaged.
    """
    output = run.output_dir
    model = trainer.accelerator.unwrap_model(trainer.model)
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters() if weight.requires_grad}
    checkpoint = last_checkpoint(output, shapes) if resume else None
    if resume and checkpoint is None and checkpoints(output):
        raise ValueError(
            f"all checkpoints in {str(output)!r} are damaged, as the warnings say; repair one, give another "
            "output_dir, or start over with resume=False, which replaces them"
        )
    if checkpoint is not None:
        print(f"continuing from {str(checkpoint)!r}; resume=False starts over")  # noqa: T201
        run.history.extend(read_history(checkpoint))
        run.answers.extend(read_answers(output, run.probes))
    elif trainer.args.should_save:
        output.mkdir(parents=True, exist_ok=True)
        run.problems.begin_with()
    return checkpoint


def execute(
    gpt4roi: GPT4RoI,
    trainer: RegionTrainer,
    dataset: EpochDataset,
    run: TrainingRun,
    *,
    checkpoint: Path | None,
    tower_cache: Path | None,
    adapted: bool,
    progress: bool,
) -> None:
    """Train to the end, or until the run is stopped, and write the model.

    Args:
        gpt4roi, trainer, dataset, run: set up by `train`.
        checkpoint: the one to continue from; None starts from scratch.
        tower_cache: a folder for the tower's hidden states; None computes them in each step.
        adapted: whether the language model trains by adapters.
        progress: show progress bars.

    Raises:
        MemoryError: memory ran out; the message says what to lower.
    """
    try:
        if tower_cache is not None:
            dataset.collator.kept = cache_tower_states(trainer, dataset, tower_cache, progress)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except (RuntimeError, MemoryError) as error:  # a CPU out of memory raises a plain RuntimeError
        if not is_out_of_memory(error):
            raise
        raise MemoryError(OUT_OF_MEMORY) from error
    finally:
        with gpt4roi.forward_lock.one_pass():  # a pass changes the model's mode and restores it
            gpt4roi.model.eval()
    if run.stopping:
        return
    if adapted:
        with gpt4roi.training_step():
            merge_adapters(gpt4roi.model)
    save_model(gpt4roi, trainer, run.output_dir / MODEL_FOLDER)


def save_model(gpt4roi: GPT4RoI, trainer: RegionTrainer, folder: Path) -> None:
    """Write the whole model, under a temporary name first; it can answer meanwhile, but its weights do not change."""
    with gpt4roi.hold_weights():
        state_dict = trainer.full_state_dict()
        if trainer.args.should_save:
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                weights = gpt4roi.model.state_dict() if state_dict is None else state_dict
                with room_for(folder.parent, tensor_bytes(weights.values()), "the trained model", REMEDY):
                    gpt4roi.save_pretrained(partial, state_dict)
                    shutil.rmtree(folder, ignore_errors=True)
                    partial.replace(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
