"""Which parts of a model train, and the table that says so."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.memory import skeleton
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration

PARTS = ("vision_tower", "multi_modal_projector", "region_encoder", "language_model")
ADDED = ("region_encoder", "multi_modal_projector")
# As published (arXiv 2307.03601, section 4): first the region module alone, then everything but the tower.
STAGES = {1: ("region_encoder",), 2: ("region_encoder", "multi_modal_projector", "language_model")}
LORA_MARK = "lora_"  # part of the names of all tensors that peft adds
LORA_DEFAULTS = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05}


@dataclass(frozen=True)
class Part:
    """A row of the table of modules. parameters, trained: how many; tensors: names of the tensors that train."""

    name: str
    parameters: int
    trained: int
    tensors: tuple[str, ...] = ()


def choose_parts(
    model: GPT4RoIForConditionalGeneration, trainable: Sequence[str], lora: dict[str, Any] | None = None
) -> list[Part]:
    """Set `requires_grad` of all parameters.

    Parts that train are converted to float32, since small steps are lost in half precision; the others keep their
    dtype. Adapters that a stopped or failed training left on the model are removed: its checkpoint contains them.

    Args:
        model: changed in place.
        trainable: names in `PARTS`.
        lora: train low-rank adapters instead of the language model's own weights: options of peft's `LoraConfig`.

    Returns:
        How many parameters each part has, and how many of them train.

    Raises:
        ValueError: an unknown part, or adapters for a language model that does not train.
        ImportError: adapters without peft.
    """
    unknown = [name for name in trainable if name not in PARTS]
    if unknown or not trainable:
        raise ValueError(f"trainable must name some of {', '.join(PARTS)}, but is {list(trainable)}")
    if lora is not None and "language_model" not in trainable:
        raise ValueError("lora adapts the language model, but trainable does not name language_model")
    _take_off_adapters(model)
    if lora is not None:
        _add_adapters(model, lora)
    for name in PARTS:
        for parameter_name, parameter in getattr(model, name).named_parameters():
            adapted = name == "language_model" and lora is not None
            trains = name in trainable and (not adapted or LORA_MARK in parameter_name)
            parameter.requires_grad_(trains)
            if trains and parameter.dtype != torch.float32:
                parameter.data = parameter.data.float()
    return [_part(name, getattr(model, name)) for name in PARTS]


def table(parts: Sequence[Part], learning_rate: float, weight_decay: float, decayed: Collection[str]) -> str:
    """Format what trains, one line per module.

    Args:
        parts: from `choose_parts`.
        learning_rate, weight_decay: of the training.
        decayed: names of the tensors that weight decay applies to; if these are only some of a module's, the line says
            how many.
    """
    lines = [
        f"{'module':24}{'parameters':>15}{'trained':>15}{'learning rate':>15}{'weight decay':>14}{'of tensors':>12}"
    ]
    for part in parts:
        share = sum(name in decayed for name in part.tensors)
        rates = (f"{learning_rate:g}", f"{weight_decay:g}", f"{share}/{len(part.tensors)}")
        rate, decay, tensors = rates if part.trained else ("-", "-", "-")
        lines.append(f"{part.name:24}{part.parameters:>15,}{part.trained:>15,}{rate:>15}{decay:>14}{tensors:>12}")
    return "\n".join(lines)


def begin_anew(
    model: LoadedModel | GPT4RoIForConditionalGeneration, parts: Sequence[str] = ADDED, *, seed: int = 0
) -> None:
    """Reinitialise parts of a model in place, to train them from scratch.

    Args:
        model: a `GPT4RoI`, which first finishes the answers that it is writing; or its model, if nobody asks it.
        parts: names in `ADDED`, the parts that GPT4RoI adds to a pretrained language model and tower.
        seed: for the new weights.

    Raises:
        ValueError: an unknown part.

    Example:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.train import begin_anew
        >>> gpt4roi = GPT4RoI.from_pretrained(device="cpu")
        >>> trained = gpt4roi.model.multi_modal_projector.weight.clone()
        >>> begin_anew(gpt4roi, ["multi_modal_projector"])
        >>> gpt4roi.model.multi_modal_projector.weight.equal(trained)
        False
    """
    unknown = [name for name in parts if name not in ADDED]
    if unknown or not parts:
        raise ValueError(f"parts must name some of {', '.join(ADDED)}, but is {list(parts)}")
    if isinstance(model, LoadedModel):
        with model.training_step():
            begin_anew(model.model, parts, seed=seed)
        return
    config: Any = model.config  # transformers declares its base class
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in parts:
            before = next(getattr(model, name).parameters())
            made: nn.Module = getattr(skeleton(config), name).to_empty(device="cpu")
            setattr(model, name, made)
            made.apply(model._init_weights).to(before.device, before.dtype).train(model.training)


def adapter_numbers(model: GPT4RoIForConditionalGeneration, options: dict[str, Any]) -> int:
    """Count the parameters of adapters for a model's language model, for whichever matrices the options choose.

    Args:
        model: not changed; the adapters are added to a copy without weights.
        options: of peft's `LoraConfig`, as `choose_parts` takes them.

    Raises:
        ValueError: peft finds none of the matrices.
        ImportError: peft is not installed.
    """
    config: Any = model.config  # transformers declares its base class
    shapes = skeleton(config)
    with torch.device("meta"):  # without initial weights, some of which are computed from the model's
        _add_adapters(shapes, {**options, "init_lora_weights": False})
    return sum(weight.numel() for name, weight in shapes.language_model.named_parameters() if LORA_MARK in name)


def merge_adapters(model: GPT4RoIForConditionalGeneration) -> None:
    """Merge the adapters into the weights and remove them: the model is an ordinary one again."""
    for _, _, layer in _adapted_layers(model):
        layer.merge()
    _take_off_adapters(model)


def _take_off_adapters(model: GPT4RoIForConditionalGeneration) -> None:
    """Remove adapters; what they have learnt is lost unless it was merged. Without adapters this does nothing."""
    if any(LORA_MARK in name for name, _ in model.language_model.named_parameters()):
        for parent, name, layer in _adapted_layers(model):
            setattr(parent, name, layer.get_base_layer())
        vars(model.language_model).pop("peft_config", None)  # otherwise peft warns about adapters that are gone


def _adapted_layers(model: GPT4RoIForConditionalGeneration) -> Iterator[tuple[nn.Module, str, Any]]:
    """(parent, name in it, layer) of each layer that has adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for parent in list(model.language_model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                yield parent, name, child


def _part(name: str, module: nn.Module) -> Part:
    parameters = dict(module.named_parameters())
    trained = {tensor: parameter for tensor, parameter in parameters.items() if parameter.requires_grad}
    whole, of_trained = (sum(parameter.numel() for parameter in group.values()) for group in (parameters, trained))
    return Part(name, whole, of_trained, tuple(f"{name}.{tensor}" for tensor in trained))


def _add_adapters(model: GPT4RoIForConditionalGeneration, options: dict[str, Any]) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("lora needs the package peft: pip install 'gpt4roi_nb[train]'") from error
    options = {**LORA_DEFAULTS, **options}
    options["r"] = whole_number(options["r"], "lora['r']", least=1)
    output = model.language_model.get_output_embeddings()
    linears = [
        name
        for name, module in model.language_model.named_modules()
        if isinstance(module, nn.Linear) and module is not output
    ]
    config = LoraConfig(**{"target_modules": linears, **options})
    inject_adapter_in_model(config, model.language_model)
