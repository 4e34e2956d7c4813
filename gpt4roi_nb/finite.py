"""NaN and infinity: found in weights when they are loaded, and in log-probabilities before a token is taken by them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOAT16 = 'float16 ends at 65,504; load the model with dtype="bfloat16" or dtype="float32"'


def not_finite(model: nn.Module) -> list[str]:
    """Names of the weights that hold NaN or infinity.

    One sum per tensor, since NaN and infinity survive sums: as fast as memory is read, about a second for 7 billion
    weights. Integers, as quantised weights are kept, and what lies on a disk are passed over.
    """
    found = []
    for name, weight in model.state_dict().items():
        if not weight.is_floating_point() or weight.is_meta:
            continue
        total = weight.sum(dtype=torch.promote_types(weight.dtype, torch.float32))
        if not torch.isfinite(total) and not torch.isfinite(weight).all():  # a sum may also be too large by itself
            found.append(name)
    return found


def check_finite(model: nn.Module, what: str) -> None:
    """Raises ValueError where weights hold NaN or infinity. what: how the message calls them."""
    if names := not_finite(model):
        advice = "the file is damaged, or the training that made it went wrong; take another checkpoint"
        if next(model.parameters()).dtype == torch.float16:
            advice = f"{advice}. If its own dtype is another: {FLOAT16}"
        raise ValueError(f"{what} hold NaN or infinity in {len(names)} tensors, first {names[0]}: {advice}")


def log_probabilities(logits: Tensor, model: nn.Module) -> Tensor:
    """Natural log-probabilities, float32 of the same shape, of a language model's logits.

    Args:
        logits: (..., V).
        model: that computed them; looked into for the likely cause when something is wrong.

    Raises:
        FloatingPointError: some are NaN, or all of a position are infinite; any token would be as good as another.
    """
    values, finite = unchecked_log_probabilities(logits)
    if not finite.all():
        raise nan_error(model)
    return values


def unchecked_log_probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """As `log_probabilities`, but the check is left to the caller, so that nothing waits for the device here.

    Args:
        logits: (..., V).

    Returns:
        (..., V) float32, and (...) bool: whether a position has log-probabilities that can be used.
    """
    values = logits.float().log_softmax(dim=-1)
    return values, torch.isfinite(values.amax(dim=-1))  # NaN survives amax; single tokens may have no probability


def nan_error(model: nn.Module) -> FloatingPointError:
    """What to raise where log-probabilities cannot be used: says why, as far as `model` shows it."""
    return FloatingPointError(_cause(model))


def _cause(model: nn.Module) -> str:
    dtype = next(model.parameters()).dtype
    if names := not_finite(model):
        cause = (
            f"{len(names)} of its weights hold NaN or infinity, first {names[0]}; load it again, or if it was trained "
            "since, go back to an earlier checkpoint"
        )
    elif dtype == torch.float16:
        cause = f"its weights are finite, so a number on the way was too large. {FLOAT16}"
    else:
        cause = (
            "its weights are finite, so a constant of config.json (an epsilon, rope_theta) or the normalisation of "
            "images (image_mean, image_std) is likely wrong; compare them with the original model's"
        )
    return f"the model computes NaN in place of probabilities, in {str(dtype).removeprefix('torch.')}: {cause}"
