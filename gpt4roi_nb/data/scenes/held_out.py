"""Wordings that training sees, and wordings held out of it: two separate lists, so that the split never changes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wordings:
    """Wordings of one kind of question. seen: what training asks. unseen: what only the demo's check asks."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]

    def of(self, held_out: bool) -> tuple[str, ...]:
        """Return the held-out wordings, or those of training."""
        return self.unseen if held_out else self.seen
