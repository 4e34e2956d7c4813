"""`python -m gpt4roi_nb.checkpoint`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from gpt4roi_nb.checkpoint.convert import DEFAULT_TOWER, DTYPES, convert_original
from gpt4roi_nb.checkpoint.start import start_checkpoint

BEGUN = "checkpoints/begun"  # which train/stage1.yaml names


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m gpt4roi_nb.checkpoint`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gpt4roi_nb.checkpoint", description="Checkpoints of GPT4RoI.")
    commands = parser.add_subparsers(required=True)
    _add_convert(commands)
    _add_start(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, MemoryError) as error:
        words = error.strerror if isinstance(error, OSError) and error.filename is None else None
        print(f"gpt4roi_nb.checkpoint: {words or error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"gpt4roi_nb.checkpoint: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("gpt4roi_nb.checkpoint: stopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def _add_convert(commands: Any) -> None:
    command = commands.add_parser(
        "convert", help="the authors' checkpoint, or their delta and LLaMA, to this package's layout"
    )
    command.add_argument("source", help="the authors' checkpoint or delta: a folder or a hub id")
    command.add_argument("target", help="the folder to be written")
    command.add_argument("--base", help="LLaMA-7B's first version, where the source is a delta: a folder or a hub id")
    command.add_argument("--vision", help=f"the vision tower, {DEFAULT_TOWER}: a folder or a hub id")
    command.add_argument("--dtype", choices=list(DTYPES), help="of the result (default: as the source)")
    command.add_argument(
        "--verify",
        action="store_true",
        help="load the result, or what was converted before, and let it give one greedy answer",
    )
    command.add_argument(
        "--force", action="store_true", help="add a base that does not look like the delta's; expect nonsense"
    )
    command.add_argument("--table", action="store_true", help="print what became of every tensor")
    command.set_defaults(run=_convert)


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


def _add_start(commands: Any) -> None:
    command = commands.add_parser(
        "start", help="what training begins with, as published: Vicuna, CLIP's tower and LLaVA's projector"
    )
    command.add_argument("target", nargs="?", default=BEGUN, help=f"the folder to be written (default: {BEGUN})")
    command.add_argument("--language", required=True, help="Vicuna-7B-v0: a folder or a hub id")
    command.add_argument("--vision", required=True, help=f"the vision tower, {DEFAULT_TOWER}: a folder or a hub id")
    command.add_argument("--projector", required=True, help="LLaVA's pretrained projector: a .bin or .safetensors file")
    command.add_argument("--dtype", choices=list(DTYPES), help="of the result (default: as the language model)")
    command.add_argument("--seed", type=int, default=0, help="of the fresh region encoder (default: 0)")
    command.set_defaults(run=_start)


def _start(options: argparse.Namespace) -> None:
    folder = start_checkpoint(
        options.language,
        options.vision,
        options.projector,
        options.target,
        dtype=options.dtype,
        seed=options.seed,
    )
    print(f"{str(folder)!r} is written; its region encoder is fresh, and training begins with it")


if __name__ == "__main__":
    sys.exit(main())
