"""The embedded demo checkpoint (`checkpoint/`), its examination (`check`, `look`), and what makes it (`recipe/`)."""

FIRST_RESERVED_SERIES = 7_000_000  # scenes of seeds from here on may have been trained on
