"""The embedded demo checkpoint (`checkpoint/`), its examination (`check`, `look`), and what trains it (`recipe/`)."""

FIRST_RESERVED_SERIES = 7_000_000  # training may have used scenes of seeds from here on


def check_seed(seed: int) -> None:
    """Raise ValueError for a seed that belongs to the scenes of training."""
    if not 0 <= seed < FIRST_RESERVED_SERIES:
        raise ValueError(
            f"seed must lie between 0 and {FIRST_RESERVED_SERIES - 1}, but is {seed}: training may have used the "
            "scenes of higher seeds"
        )
