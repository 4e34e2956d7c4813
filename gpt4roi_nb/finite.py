"""Find NaN and infinity: in weights when they are loaded, and in log-probabilities before a token is chosen."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

FLOAT16 = 'float16 ends at 65,504; load the model with dtype="bfloat16" or dtype="float32"'


def not_finite(model: nn.Module) -> list[str]:
    """Return the names of weights that hold NaN or infinity.

    Computes one sum per tensor, since NaN and infinity survive sums. This is as fast as reading memory: about a second
    for 7 billion weights. Integers, such as quantised weights, and weights that are on disk are skipped.
    """
    return not_finite_among(model.state_dict())


def not_finite_among(weights: Mapping[str, Tensor]) -> list[str]:
    """Find them as `not_finite` does, among named weights."""
    found = []
    for name, weight in weights.items():
        if not weight.is_floating_point() or weight.is_meta:
            continue
        total = weight.sum(dtype=torch.promote_types(weight.dtype, torch.float32))
        if not torch.isfinite(total) and not torch.isfinite(weight).all():  # the sum itself may overflow
            found.append(name)
    return found


def check_finite(model: nn.Module, what: str) -> None:
    """Check that no weights hold NaN or infinity.

    Args:
        model: whose weights.
        what: the weights in the message.

    Raises:
        ValueError: if some do.
    """
    if names := not_finite(model):
        advice = "the file is damaged, or the training that made it went wrong; use another checkpoint"
        if next(model.parameters()).dtype == torch.float16:
            advice = f"{advice}. If its own dtype is another: {FLOAT16}"
        raise ValueError(f"{what} hold NaN or infinity in {len(names)} tensors, first {names[0]}: {advice}")


def log_probabilities(logits: Tensor, model: nn.Module) -> Tensor:
    """Return the natural log-probabilities, float32 of the same shape, of a language model's logits.

    Args:
        logits: (..., V).
        model: the model that computed them; searched for the likely cause if something is wrong.

    Raises:
        FloatingPointError: if some are NaN, or all at a position are infinite: no token would be better than another.
    """
    values, finite = unchecked_log_probabilities(logits)
    if not finite.all():
        raise nan_error(model)
    return values


def unchecked_log_probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `log_probabilities` but leave the check to the caller, so that nothing waits for the device here.

    Args:
        logits: (..., V).

    Returns:
        (..., V) float32, and (...) bool: whether a position's log-probabilities can be used.
    """
    values = logits.float().log_softmax(dim=-1)
    return values, torch.isfinite(values.amax(dim=-1))  # NaN survives amax; single tokens may have no probability


def nan_error(model: nn.Module, instead_of: str = "probabilities") -> FloatingPointError:
    """Make the error to raise when what a model computes cannot be used, with the likely cause, as far as it shows.

    Args:
        model: the model.
        instead_of: what was computed, in the message.
    """
    name = str(next(model.parameters()).dtype).removeprefix("torch.")
    return FloatingPointError(f"the model computes NaN instead of {instead_of}, in {name}: {_cause(model)}")


def _cause(model: nn.Module) -> str:
    dtype = next(model.parameters()).dtype
    if names := not_finite(model):
        cause = (
            f"{len(names)} of its weights hold NaN or infinity, first {names[0]}; load it again, or if it was trained "
            "since, go back to an earlier checkpoint"
        )
    elif dtype == torch.float16:
        cause = f"its weights are finite, so an intermediate result was too large. {FLOAT16}"
    else:
        cause = (
            "its weights are finite, so a constant of config.json (an epsilon, rope_theta) or the normalisation of "
            "images (image_mean, image_std) is likely wrong; compare them with the original model's"
        )
    return cause
