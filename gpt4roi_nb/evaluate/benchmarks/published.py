"""Figures that others have published, to stand beside our own: references, never results of this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Figures that stand in one row or sentence of a publication.

    source: where they stand, and of which model. protocol: split, regions and prompt as far as they are told.
    figures: name → per cent.
    """

    source: str
    protocol: str
    figures: Mapping[str, float]
