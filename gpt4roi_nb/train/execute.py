"""The work of a training that is set up: where it goes on from, the steps, and the model that it writes."""

from __future__ import annotations

import shutil
from pathlib import Path

from gpt4roi_nb.memory import is_out_of_memory
from gpt4roi_nb.session.gpt4roi import GPT4RoI
from gpt4roi_nb.train.disk import room_for, tensor_bytes
from gpt4roi_nb.train.epoch_dataset import EpochDataset, cache_tower_states
from gpt4roi_nb.train.parts import merge_adapters
from gpt4roi_nb.train.run import TrainingRun, read_answers
from gpt4roi_nb.train.trainer import RegionTrainer, checkpoints, last_checkpoint, read_history

MODEL_FOLDER = "model"  # in the output folder: the trained model, whole
OUT_OF_MEMORY = (
    "training ran out of memory; lower batch_size (and raise gradient_accumulation_steps by as much), or max_length, "
    "set gradient_checkpointing=True, or train the language model by lora={}. The last checkpoint is untouched"
)


def prepare_output(trainer: RegionTrainer, run: TrainingRun, resume: bool) -> Path | None:
    """The checkpoint that training goes on from, whose history the run takes over; None where it begins anew.

    Raises ValueError where there are checkpoints, but none is whole.
    """
    output = run.output_dir
    checkpoint = last_checkpoint(output) if resume else None
    if resume and checkpoint is None and checkpoints(output):
        raise ValueError(
            f"none of the checkpoints in {str(output)!r} is whole, as the warnings say; mend one, name another "
            "output_dir, or begin anew with resume=False, which removes them in time"
        )
    if checkpoint is not None:
        print(f"goes on from {str(checkpoint)!r}; resume=False begins anew")  # noqa: T201
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
    """Train to the end, or until the run is stopped, and write the model. adapted: it learns by adapters.

    Raises MemoryError where memory runs out, with what to lower.
    """
    try:
        if tower_cache is not None:
            dataset.collator.kept = cache_tower_states(trainer, dataset, tower_cache, progress)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except (RuntimeError, MemoryError) as error:  # a CPU that has none left raises a plain RuntimeError
        if not is_out_of_memory(error):
            raise
        raise MemoryError(OUT_OF_MEMORY) from error
    finally:
        with gpt4roi.forward_lock.one_pass():  # a pass sets the mode and puts it back
            gpt4roi.model.eval()
    if run.stopping:
        return
    if adapted:
        with gpt4roi.training_step():
            merge_adapters(gpt4roi.model)
    save_model(gpt4roi, trainer, run.output_dir / MODEL_FOLDER)


def save_model(gpt4roi: GPT4RoI, trainer: RegionTrainer, folder: Path) -> None:
    """Write the whole model, under another name first; it may be asked meanwhile, but not changed."""
    with gpt4roi.hold_weights():
        state_dict = trainer.full_state_dict()
        if trainer.args.should_save:
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                weights = gpt4roi.model.state_dict() if state_dict is None else state_dict
                with room_for(folder.parent, tensor_bytes(weights.values()), "the trained model"):
                    gpt4roi.save_pretrained(partial, state_dict)
                    shutil.rmtree(folder, ignore_errors=True)
                    partial.replace(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
