"""Adding a delta to its base, and detecting a wrong base.

target = delta + base, in float16, in which the delta was computed. A wrong base of the right shapes silently gives
garbage, so two properties of every added matrix are checked:

- *Rounding.* A delta is the difference of two float16 numbers. Where it is small compared with the base, that
  difference is exact, so it is a multiple of the base's rounding step (or of half of it, where the target lies in the
  next binade). Another base has other steps, and some differences fall between them: the share on the steps drops from
  1.0 to 0.75–0.93, and to 0.993–0.9999 for a base that was fine-tuned for a while. Differences computed in float32 use
  all their bits and say nothing.
- *Norm.* A trained model's matrix is either the base's, moved a little, or the delta's, with the base subtracted again:
  the norms of target, base and delta depend on each other. If the base has nothing to do with the delta, they are those
  of unrelated matrices: |target|² = |delta|² + |base|².
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

PIECE = 10_000_000  # elements that are checked at a time
SAMPLE = 1_000_000  # elements of a tensor that are sampled
MANTISSA_BITS = 10  # of float16
SMALLEST_EXPONENT = -14  # of float16's normal numbers; below it, the step stays the same
MIN_ON_STEPS = 0.99995  # share of differences on the base's steps: exactly 1 with the right base
MAX_ODD = 0.35  # share of odd mantissas: 0 to 0.26 in differences of float16 numbers, 0.5 in those of float32 ones
UNRELATED = 0.02  # |target|² within this relative distance of |delta|² + |base|² counts as that of unrelated matrices
LARGE = 0.3  # |delta| / |base| from which the norms say something
MIN_LOOKED_AT = 1000  # a share of fewer elements says little


# The end of the error about a wrong base.
HOW_TO_FORCE = "; to add it anyway, which most likely gives a model that writes nonsense: --force (force=True)"


class WrongBaseWarning(UserWarning):
    """A base that does not look like the delta's is added because of `force`."""


class Adder:
    """Adds the tensors of a delta to those of its base, and raises ValueError for a base that is not the delta's.

    Attributes:
        force: warn once about such a base, and add it.
        checked: names of the tensors whose rounding showed that the base is right.
        doubts: the evidence against the base, if it was added anyway.
    """

    def __init__(self, force: bool = False) -> None:
        self.force = force
        self.checked: list[str] = []
        self.doubts: list[str] = []
        self._looked_at = 0
        self._on_steps = 0.0

    def add(self, delta: Tensor, base: Tensor, name: str) -> Tensor:
        """Compute delta + base in float16; if the base has fewer rows, the delta's remaining rows are kept.

        Raises:
            ValueError: the base cannot be the delta's, without `force`; or the sum is not finite.
        """
        difference, foundation = delta.half(), base.half()
        if base.dtype == torch.bfloat16 or not _same(foundation, base):
            self.doubt(
                f"{name}: the base is stored as {str(base.dtype).removeprefix('torch.')}, with values that float16, "
                "from which the delta was computed, cannot hold; get LLaMA-7B in float16"
            )
        rows = len(foundation)
        target = difference.clone()
        target[:rows] += foundation
        if not is_finite(target):
            raise ValueError(f"{name}: delta + base is NaN or infinite in float16; the base is not this delta's")
        told = False
        if _same(difference, delta) and odd_share(difference) < MAX_ODD:
            told = self._check_rounding(difference[:rows], foundation, name)
        if not told and target.dim() > 1 and (wrong := _wrong_norm(difference[:rows], foundation, target[:rows])):
            self.doubt(f"{name}: {wrong}")
        return target

    def doubt(self, why: str) -> None:
        """Raise ValueError with the evidence against the base; with `force`, note it, and warn about the first."""
        if not self.force:
            raise ValueError(why + HOW_TO_FORCE)
        if not self.doubts:
            warnings.warn(
                f"THE BASE DOES NOT LOOK LIKE THIS DELTA'S, and is added because of --force (force=True): {why}. "
                "Expect a model that writes nonsense; the report counts further doubts",
                WrongBaseWarning,
                stacklevel=2,
            )
        self.doubts.append(why)

    def _check_rounding(self, difference: Tensor, base: Tensor, name: str) -> bool:
        """Check a tensor's rounding; small tensors are judged together. Returns whether that showed anything."""
        share, count = share_on_steps(difference, base)
        if count < MIN_LOOKED_AT:
            self._looked_at += count
            self._on_steps += share * count
            if self._looked_at < MIN_LOOKED_AT:
                return False
            share, count = self._on_steps / self._looked_at, self._looked_at
            self._looked_at, self._on_steps = 0, 0.0
        if share < MIN_ON_STEPS:
            self.doubt(
                f"{name}: only {share:.2%} of the delta's values are differences from this base (expected all of "
                "them); the delta was computed from another base. Expected the first version of LLaMA-7B, in float16"
            )
            return True  # the doubt is noted, so the norm need not be checked
        self.checked.append(name)
        return True


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same values in a sample, whatever their dtypes."""
    return bool((_spread(one).double() == _spread(other).double()).all())


def check_finite(tensor: Tensor, name: str, folder: Path, as_what: str = "") -> None:
    """Raise ValueError for NaN or infinity, naming the position of the first."""
    if tensor.is_floating_point() and not is_finite(tensor):
        bad = ~torch.isfinite(tensor)
        first = torch.nonzero(bad)[0].tolist()
        advice = (
            "the values are too large for this dtype; convert to bfloat16 or float32"
            if as_what
            else "the file is damaged, or was merged with a wrong base; get it again"
        )
        raise ValueError(
            f"{name} (in {str(folder)!r}) has {int(bad.sum())} values that are NaN or infinite{as_what}, the first at "
            f"{first}: {advice}"
        )


def share_on_steps(difference: Tensor, base: Tensor) -> tuple[float, int]:
    """Share of the differences smaller than half the base that are on its rounding steps, and their number.

    difference, base: float16, of the same shape.
    """
    d, b = _sample(difference), _sample(base)
    _, exponent = torch.frexp(b)  # b = mantissa · 2^exponent, mantissa in [0.5, 1)
    step = torch.exp2((exponent - 1).clamp(min=SMALLEST_EXPONENT) - MANTISSA_BITS) / 2
    looked_at = (d != 0) & (2 * d.abs() < b.abs())
    count = int(looked_at.sum())
    if not count:
        return 1.0, 0
    whole = (d / step)[looked_at]
    return float((whole == whole.round()).double().mean()), count


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite; checked in pieces, since checking it as a whole takes several times its memory."""
    return all(bool(torch.isfinite(piece).all()) for piece in tensor.reshape(-1).split(PIECE))


def odd_share(difference: Tensor) -> float:
    """Share of the nonzero values whose float16 mantissa is odd."""
    flat = _spread(difference)
    flat = flat[flat != 0]
    return float((flat.view(torch.int16) & 1).double().mean()) if len(flat) else 0.0


def _wrong_norm(difference: Tensor, base: Tensor, target: Tensor) -> str:
    """What is wrong with the norm of a sum; "" if nothing is."""
    d, b, t = (_sample(tensor).square().sum().item() for tensor in (difference, base, target))
    if t == 0:
        return "delta + base is zero everywhere, which no trained model's is"
    if d > LARGE**2 * b and abs(t / (d + b) - 1) < UNRELATED:
        return (
            f"after adding, the norm is that of two unrelated matrices ({t**0.5:.3g}, from {d**0.5:.3g} and "
            f"{b**0.5:.3g}), not that of a trained model's; the delta was computed from another base"
        )
    return ""


def _sample(tensor: Tensor) -> Tensor:
    """At most `SAMPLE` elements, evenly spaced, in float64: the same positions for tensors of the same shape."""
    return _spread(tensor).double()


def _spread(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLE)]
