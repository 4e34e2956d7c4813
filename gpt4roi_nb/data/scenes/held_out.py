"""Which wordings training sees, and which are held out of it: they stand in two lists, so the choice never changes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wordings:
    """seen: what training asks. unseen: what only the demo's check asks."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]

    def of(self, held_out: bool) -> tuple[str, ...]:
        """The held-out ones, or those of training."""
        return self.unseen if held_out else self.seen
