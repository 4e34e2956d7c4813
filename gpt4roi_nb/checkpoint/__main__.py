"""The command line of checkpoints: `python -m gpt4roi_nb.checkpoint`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gpt4roi_nb import commands
from gpt4roi_nb.checkpoint.convert import convert_original
from gpt4roi_nb.checkpoint.start import start_checkpoint


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m gpt4roi_nb.checkpoint` and return the exit status."""
    options = commands.checkpoint().parse_args(arguments)
    try:
        (_convert if options.command == "convert" else _start)(options)
    except (ValueError, OSError, MemoryError) as error:
        words = error.strerror if isinstance(error, OSError) and error.filename is None else None
        print(f"gpt4roi_nb.checkpoint: {words or error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"gpt4roi_nb.checkpoint: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("gpt4roi_nb.checkpoint: stopped; run the same command again to continue", file=sys.stderr)
        return 130
    return 0


def _convert(options: argparse.Namespace) -> None:
    report = convert_original(
        options.source,
        options.target,
        base=options.base,
        vision=options.vision,
        dtype=options.dtype,
        verify=options.verify,
        force=options.force,
    )
    if options.table:
        print(report.table())
    print(report)


def _start(options: argparse.Namespace) -> None:
    folder = start_checkpoint(
        options.language,
        options.vision,
        options.projector,
        options.target,
        dtype=options.dtype,
        seed=options.seed,
    )
    print(f"wrote {str(folder)!r}; its region encoder is untrained, so train stage 1 from it")


if __name__ == "__main__":
    sys.exit(main())
