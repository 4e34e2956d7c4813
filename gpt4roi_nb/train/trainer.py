"""transformers' Trainer with a loss per source, checkpoints that are written whole or not at all, and a stop at NaN."""

from __future__ import annotations

import math
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sized
from contextlib import ExitStack, nullcontext
from dataclasses import fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
import torch.nn.functional as F
from accelerate.utils import gather_object, save_fsdp_optimizer
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import safe_globals

from gpt4roi_nb.checkpoint.disk import room_for
from gpt4roi_nb.checkpoint.shards import UNREADABLE
from gpt4roi_nb.files import read_json, write_json
from gpt4roi_nb.finite import not_finite_among
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.prompt import IGNORE
from gpt4roi_nb.train.disk import REMEDY, DiskUse, tensor_bytes
from gpt4roi_nb.train.memory import optimizer_bytes
from gpt4roi_nb.train.meter import Meter
from gpt4roi_nb.train.sharding import divide, load_trained, own_share, stored_names
from gpt4roi_nb.typed import typed_fields

TRAINED_FILE = "trained.safetensors"
ORDER_FILE = "order.json"
BAD_BATCH_FILE = "bad_batch.json"
UNFINISHED = ".unfinished"
# What a checkpoint must contain to be continued; the state is written last, so it shows that the others are complete.
STATE_FILE = "trainer_state.json"
RANDOM_FILE, RANDOM_FILES = "rng_state.pth", "rng_state*.pth"  # one process's, and each of several processes'
OPTIMIZER_FILES = ("optimizer.pt", "optimizer.bin")  # one process's or all processes', and a sharded training's
SCHEDULER_FILE = "scheduler.pt"
_STATE = {
    "global_step": int, "epoch": float, "log_history": list[dict[str, float]], "total_flos": float,
    "num_input_tokens_seen": int, "best_model_checkpoint": str | None, "stateful_callbacks": dict[str, Any],
}  # fmt: skip
CHECKPOINT_FILES = (TRAINED_FILE, ORDER_FILE, SCHEDULER_FILE, STATE_FILE)


class AfterOptimizerStep(TrainerCallback):
    """Calls a function after the optimizer has changed the weights."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.call()


class RegionTrainer(Trainer):
    """Trains a loaded model, which can be asked meanwhile.

    Checkpoints contain only the parts that train; the frozen parts are those that training began with.

    Args:
        loaded: the model.
        decay_all: apply weight decay to biases and norms as well.
        kwargs: of transformers' Trainer.
    """

    def __init__(self, loaded: LoadedModel, *, decay_all: bool = True, **kwargs: Any) -> None:
        self.decay_all = decay_all
        super().__init__(loaded.model, **kwargs, compute_loss_func=self._loss)
        self.loaded = loaded
        self._changing = ExitStack()  # holds the lock from the last forward pass of a step to the optimizer's step
        self.add_callback(AfterOptimizerStep(self._changing.close))
        self._staging: Path | None = None
        self._ids: list[str] = []
        self._sources: list[str] = []
        self._losses: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # source → [sum, tokens]
        self._meter = Meter()

    def train(self, *args: Any, **kwargs: Any) -> Any:
        with self._changing:  # also released after an error within a step
            result = super().train(*args, **kwargs)
        self._check_weights()  # the loss is computed before a step's change, so it does not show the last one
        return result

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the tensors that weight decay applies to.

        These are all, as in the authors' grouping of the region module in stage 1 (gpt4roi/train/llava_trainer.py), or
        without `decay_all` the usual ones, without biases and norms.
        """
        if self.decay_all:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Run one batch alone until the optimizer's step, so that no answer is computed with two states of the weights.

        Of accumulated batches only the last changes the weights; between the others the model can be asked. This method
        is the Trainer's documented place to change a step, and sets the model to training mode; the optimizer's step
        follows outside of it, and the callback `on_optimizer_step` marks its end.
        """
        if self.accelerator.sync_gradients:
            self._changing.enter_context(self.loaded.training_step())
            return super().training_step(model, inputs, *args, **kwargs)
        with self.loaded.forward_lock.training_step():
            return super().training_step(model, inputs, *args, **kwargs)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        inputs = dict(inputs)
        self._ids, self._sources = inputs.pop("ids"), inputs.pop("sources")
        self._meter.add(inputs["attention_mask"].numel(), len(self._ids))
        inputs["logits_to_keep"] = _needed_logits(inputs["labels"])
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        value = loss[0] if isinstance(loss, tuple) else loss
        if not torch.isfinite(value):
            self._stop_at(value)
        return loss

    def _loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """The mean over all labelled tokens of the step, over all devices and accumulated batches."""
        logits = outputs.logits[:, :-1].float()
        targets = labels[:, labels.shape[1] - logits.shape[1] :].to(logits.device)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none")
        sums = losses.view(targets.shape).sum(dim=1)
        counts = (targets != IGNORE).sum(dim=1)
        for source, total, count in zip(self._sources, sums.detach().tolist(), counts.tolist(), strict=True):
            self._losses[source][0] += total
            self._losses[source][1] += count
        items = counts.sum() if num_items_in_batch is None else num_items_in_batch
        return sums.sum() / torch.as_tensor(items, device=sums.device).clamp(min=1)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        if self.state.global_step >= self.state.max_steps:  # finished within an epoch, and called again
            return [], None
        with self._meter.waiting(self.state.global_step):
            return super().get_batch_samples(epoch_iterator, num_batches, device)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log a line, with the mean loss of each source since the last line, and the speed."""
        if "loss" in logs:
            logs |= self._loss_of_each_source()
            logs |= self._meter.read(self.state.global_step, self.state.max_steps, self.accelerator.num_processes)
        super().log(logs, *args, **kwargs)

    def _loss_of_each_source(self) -> dict[str, float]:
        """Mean loss of each source since the last line, over all processes."""
        whole: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for losses in gather_object([dict(self._losses)]):  # type: ignore[no-untyped-call]
            for source, (total, tokens) in losses.items():
                whole[source][0] += total
                whole[source][1] += tokens
        self._losses.clear()
        return {f"loss/{source}": total / tokens for source, (total, tokens) in sorted(whole.items()) if tokens}

    def _stop_at(self, loss: Tensor) -> None:
        file = Path(str(self.args.output_dir)) / BAD_BATCH_FILE
        step = self.state.global_step
        records = [{"source": source, "id": id} for source, id in zip(self._sources, self._ids, strict=True)]
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"step": step, "loss": str(loss.item()), "records": records})
        raise FloatingPointError(
            f"the loss of step {step} is {loss.item()}; the records of its batch are listed in {str(file)!r}. Inspect "
            "them, lower the learning rate, or train in float32; the last checkpoint is intact"
        )

    def _check_weights(self) -> None:
        """Raise FloatingPointError if weights that train hold NaN or infinity, in any of the processes."""
        model = self.accelerator.unwrap_model(cast(nn.Module, self.model))
        trained = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
        found = not_finite_among({name: own_share(weight) for name, weight in trained.items()})
        names = sorted({name for each in gather_object([found]) for name in each})  # type: ignore[no-untyped-call]
        if not names:
            return
        folder = Path(str(self.args.output_dir))
        present = checkpoints(folder)
        if present:
            good = f"the last checkpoint is intact: {str(present[-1])!r}"
        else:
            good = "there is no checkpoint yet; load the model again"
        raise FloatingPointError(
            f"after step {self.state.global_step}, {len(names)} of the trained tensors hold NaN or infinity, first "
            f"{names[0]}; they are not saved. The likely cause is the learning rate of {self.args.learning_rate:g}: "
            f"lower it, or train in float32; {good}"
        )

    # ------------------------------------------------------------------------------------------- sharded (FSDP 2)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_fsdp_enabled:
            divide(self.accelerator, cast(nn.Module, self.model))
        return super().create_optimizer(*args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save them without the whole model, which the Trainer would also write if weights are sharded."""
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        save_fsdp_optimizer(
            self.accelerator.state.fsdp_plugin, self.accelerator, self.optimizer, self.model, output_dir
        )
        if self.args.should_save:
            torch.save(cast(Any, self.lr_scheduler).state_dict(), Path(output_dir) / SCHEDULER_FILE)

    # ------------------------------------------------------------------------------------------- checkpoints

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)  # type: ignore[no-untyped-call]

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write it to a folder with a temporary name, which is renamed when everything is written."""
        self._check_weights()
        folder = Path(str(self.args.output_dir))
        name = f"checkpoint-{self.state.global_step}"
        self._staging = folder / UNFINISHED
        if self.args.should_save:
            shutil.rmtree(self._staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        folder.mkdir(parents=True, exist_ok=True)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        needed = tensor_bytes([*trained, *([] if self.args.save_only_model else self._optimizer_state())])
        what = f"the checkpoint of step {self.state.global_step}"
        try:
            with room_for(folder, needed, what, REMEDY) if self.args.should_save else nullcontext():
                super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                shutil.rmtree(folder / name, ignore_errors=True)
                (self._staging / name).replace(folder / name)
                found = checkpoints(folder)
                ours = found[: found.index(folder / name) + 1]  # later ones are of a training that was abandoned
                for other in set(found) - set(ours[-(self.args.save_total_limit or len(ours)) :]):
                    shutil.rmtree(other)
        finally:
            if self.args.should_save:
                shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = None
        self.accelerator.wait_for_everyone()

    def disk_use(self, checkpoint: Path | None) -> DiskUse:
        """What training will write. checkpoint: the one that it continues from; None if it starts from scratch."""
        args, weights = self.args, list(cast(nn.Module, self.model).parameters())
        trained = [weight for weight in weights if weight.requires_grad]
        state = 0 if args.save_only_model else optimizer_bytes(args.optim) * sum(w.numel() for w in trained)
        done = 0 if checkpoint is None else _step(checkpoint)
        left = max(0, planned_steps(args, len(cast(Sized, self.train_dataset))) - done)
        # At most one per step; by default one every save_steps, and one at the end.
        writes = left
        if args.save_strategy == "no":
            writes = 0
        elif args.save_strategy == "steps":
            writes = math.ceil(left / args.save_steps)
        folder, keep = Path(str(args.output_dir)), args.save_total_limit
        return DiskUse(
            checkpoint=tensor_bytes(trained) + state,
            model=tensor_bytes(weights),
            keep=writes if keep is None else keep,
            writes=writes,
            present=len(checkpoints(folder)),
            continued=checkpoint is not None,
        )

    def _optimizer_state(self) -> list[Any]:
        """The optimizer's state of each weight."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # within accelerate's wrapper
        return [] if optimizer is None else list(optimizer.state.values())

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self.args.should_save:
            return
        target = Path(output_dir or str(self.args.output_dir))
        target.mkdir(parents=True, exist_ok=True)
        model = self.accelerator.unwrap_model(self.model)
        names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        values = model.state_dict() if state_dict is None else state_dict
        trained = {name: values[name].detach().cpu().contiguous() for name in sorted(names)}
        save_file(trained, target / TRAINED_FILE, metadata={"format": "pt"})
        write_json(target / ORDER_FILE, self._order())

    def _order(self) -> dict[str, Any]:
        """Everything that gives a step its position in the data: a checkpoint stores only the step."""
        args, data = self.args, cast(Any, self.train_dataset)
        a_step = args.train_batch_size * args.gradient_accumulation_steps * self.accelerator.num_processes
        order = {"records a step": a_step, "training's seeds": [args.seed, args.data_seed], **data.order()}
        # It determines which tensors are in the optimizer's stored groups.
        return {**order, "weight decay of biases and norms": True} if self.decay_all else order

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        model = self.accelerator.unwrap_model(self.model if model is None else model)
        file = Path(resume_from_checkpoint) / TRAINED_FILE
        stored = stored_names(file)
        names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        if stored != names:
            differing = sorted(stored ^ names)
            raise ValueError(
                f"{resume_from_checkpoint!r} was trained with other parts: {len(differing)} tensors differ, first "
                f"{differing[0]}; choose the same stage, parts and lora, or another output_dir"
            )
        order, known = self._order(), read_json(Path(resume_from_checkpoint) / ORDER_FILE)
        for name in sorted(order.keys() | known.keys()):
            if order.get(name) != known.get(name):
                raise ValueError(
                    f"{resume_from_checkpoint!r} was written in a training with other data or settings: {name} was "
                    f"{known.get(name)}, but is {order.get(name)}. Continue with the data and settings that it had, "
                    "start over with resume=False, or give another output_dir"
                )
        with self.loaded.training_step():
            if self.is_fsdp_enabled:
                load_trained(model, file)
            else:
                model.load_state_dict(load_file(file), strict=False)

    def full_state_dict(self) -> dict[str, Tensor] | None:
        """All weights, gathered from all processes, if they are sharded (FSDP); otherwise None."""
        return self.accelerator.get_state_dict(self.model) if self.is_fsdp_enabled else None


def checkpoints(folder: Path) -> list[Path]:
    """Folders named `checkpoint-N`, lowest step first."""
    found = [
        path for path in folder.glob("checkpoint-*") if path.is_dir() and path.name[len("checkpoint-") :].isdigit()
    ]
    return sorted(found, key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def planned_steps(args: TrainingArguments, records: int) -> int:
    """The steps of a whole training, as the Trainer counts them."""
    if args.max_steps > 0:
        return args.max_steps
    batches = math.ceil(records / (args.train_batch_size * args.world_size))
    return math.ceil(args.num_train_epochs * max(1, math.ceil(batches / args.gradient_accumulation_steps)))


def last_checkpoint(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path | None:
    """The newest undamaged checkpoint; warns about each newer one that is damaged. None if there is none.

    Args:
        folder: of the checkpoints.
        shapes: of the weights that train, by name.
    """
    for path in reversed(checkpoints(folder)):
        problem = _damage(path, shapes)
        if problem is None:
            return path
        warnings.warn(f"{str(path)!r} is skipped: {problem}; trying the one before it", stacklevel=2)
    return None


def _damage(checkpoint: Path, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """What is wrong with a checkpoint; None if nothing is."""
    for name in CHECKPOINT_FILES:
        if not (checkpoint / name).is_file():
            return f"it lacks {name}"
    optimizers = [name for name in OPTIMIZER_FILES if (checkpoint / name).is_file()]
    if not optimizers:
        return f"it lacks {OPTIMIZER_FILES[0]}"
    random_states = sorted(file.name for file in checkpoint.glob(RANDOM_FILES))
    if not random_states:
        return f"it lacks {RANDOM_FILE}"
    try:
        with safe_open(checkpoint / TRAINED_FILE, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # it is no dictionary
                weight = opened.get_tensor(name)
                if tuple(weight.shape) != (shape := shapes.get(name, tuple(weight.shape))):
                    return f"{name} in {TRAINED_FILE} has the shape {tuple(weight.shape)}, expected {shape}"
                if not_finite_among({name: weight}):
                    return f"{name} in {TRAINED_FILE} holds NaN or infinity"
        for name in (*optimizers, SCHEDULER_FILE):
            torch.load(checkpoint / name, map_location="cpu", weights_only=True, mmap=True)
        with safe_globals():  # of NumPy, whose random state is in these files
            for name in random_states:
                torch.load(checkpoint / name, map_location="cpu", weights_only=True)
        read_json(checkpoint / ORDER_FILE)
        _check_state(read_json(checkpoint / STATE_FILE), _step(checkpoint))
        TrainerState.load_from_json(str(checkpoint / STATE_FILE))  # which, unlike read_json, takes no byte order mark
    except (SafetensorError, UnpicklingError, *UNREADABLE) as error:
        return f"it is cut short or damaged ({error})"
    return None


def _check_state(state: dict[str, Any], step: int) -> None:
    """Check what the Trainer, and `read_history`, take from a checkpoint of this step; raise ValueError."""
    known = {one.name for one in fields(TrainerState)}
    if unknown := sorted(state.keys() - known):
        raise ValueError(f"{STATE_FILE} has {unknown[0]!r}, which this version of transformers does not know")
    typed_fields({name: state[name] for name in _STATE if name in state}, _STATE, STATE_FILE)
    if state["global_step"] != step:
        raise ValueError(f"{STATE_FILE} is of step {state['global_step']}, expected {step}")


def read_history(checkpoint: Path) -> list[dict[str, float]]:
    """Read the logged lines in a checkpoint."""
    history: list[dict[str, float]] = read_json(checkpoint / STATE_FILE)["log_history"]
    return [line for line in history if "loss" in line]


def _needed_logits(labels: Tensor) -> int:
    """Return how many logits at the end the loss of (B, T) labels reads, at least 2: the last predicts no label."""
    labelled = (labels != IGNORE).any(dim=0).tolist()
    return len(labelled) - max(labelled.index(True) - 1, 0) if any(labelled) else 2
