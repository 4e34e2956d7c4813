"""The command line: `python -m gpt4roi_nb --help` lists the commands.

`python -m gpt4roi_nb ask photo.jpg "What is <region1>?" --box 40 30 210 180` asks without a notebook. Exit codes: 0 for
an answer, 2 for bad input, 1 for any other failure, 130 after an interrupt. An error is one line on the error stream.
Every other command is a module that also runs by itself, such as `python -m gpt4roi_nb.evaluate`.
"""

from __future__ import annotations

import argparse
import io
import json
import runpy
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from gpt4roi_nb.commands import (
    COMMANDS,
    INTERRUPTED,
    PROG,
    add_boxes,
    add_model,
    add_way,
    at_least_one,
    fail,
    gathered,
    parse,
    settings,
)

BAD_INPUT, FAILED = 2, 1


class _BadInput(Exception):
    """An error that the user can correct; its message says how."""


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line, without the usage that --help prints."""

    def error(self, message: str) -> NoReturn:
        raise _BadInput(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: the words after `python -m gpt4roi_nb`; None takes those of `sys.argv`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # catch_warnings puts it back
        if words and words[0] in COMMANDS:
            return _run(words[0], words[1:])
        try:
            given, unknown = _parser().parse_known_args(gathered(words))
            if unknown:  # else the help that the message names would be that of all commands
                raise _BadInput(f"unrecognized arguments: {' '.join(unknown)} (see {PROG} {given.command} --help)")
            return _ask(given)
        except _BadInput as error:
            return fail(error, BAD_INPUT)
        except (MemoryError, ImportError, OSError, FloatingPointError) as error:
            return fail(error, FAILED)
        except KeyboardInterrupt:
            return fail("interrupted", INTERRUPTED)


def _run(command: str, words: Sequence[str]) -> int:
    """Run the module of a command other than `ask`."""
    parse(command, words)  # help and typing errors, before anything slow is imported
    before, sys.argv = sys.argv, [f"{PROG} {command}", *words]
    try:
        runpy.run_module(COMMANDS[command][1], run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:  # also while the module is imported, which takes seconds
        return fail("interrupted", INTERRUPTED, command)
    finally:
        sys.argv = before
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROG,
        description="GPT4RoI: ask about regions of images; train and evaluate models that can.",
        epilog=f"`{PROG} COMMAND --help` says what a command needs and gives an example.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    ask = commands.add_parser(
        "ask",
        help="ask about boxes on an image",
        description="Ask a question about boxes on an image and print the answer.\n\n"
        "Without --checkpoint the embedded demo checkpoint answers. It knows only generated table-top\n"
        "scenes; for photographs give another one, or an image-text-to-text model of transformers. `draw`\n"
        "writes what such a model would get, and `ask-table` asks many questions at once.\n\n"
        "Exit code: 0 for an answer, 2 for bad input, 1 for any other failure, 130 after an interrupt.",
        epilog=f'for example:\n  {PROG} ask photo.jpg "What is <region1>?" --box 40 30 210 180 --checkpoint GPT4RoI-7B',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ask.add_argument("image", help="an image file")
    ask.add_argument("question", help='such as "What is <region1>?"; <region1> is the first box')
    add_boxes(ask)
    ask.add_argument("--json", action="store_true", help="print one JSON object instead of the answer")
    ask.add_argument("--save", type=Path, metavar="FILE", help="write the image with its numbered boxes to this file")
    ask.add_argument(
        "--max-new-tokens", type=at_least_one, default=256, metavar="N", help="longest answer, in tokens (256)"
    )
    add_model(ask)
    add_way(ask)
    for name, (help, *_) in COMMANDS.items():
        commands.add_parser(name, help=help, add_help=False)  # `main` runs the module before this parser is used
    return parser


def _ask(given: argparse.Namespace) -> int:
    # Check all that can be checked before loading the model, which may take minutes; importing torch takes seconds.
    boxes = given.box
    if given.save is not None:
        _check_writable(given.save, Path(given.image))

    from gpt4roi_nb.boxes import check_boxes
    from gpt4roi_nb.draw import draw_regions
    from gpt4roi_nb.images import load_image
    from gpt4roi_nb.prompt import check_question
    from gpt4roi_nb.session.references import read_references

    try:
        image = load_image(given.image)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the session warns
            check_boxes(boxes, *image.size)
        check_question(read_references(given.question, 0), len(boxes))
    except (ValueError, OSError) as error:
        raise _BadInput(error) from error

    import torch

    _check_way(given, image, boxes)
    model = _load(given)
    more: dict[str, Any] = {}  # JSON fields of a model that gets a region in words or as a drawing
    if not model.capabilities.roi_features:
        print(f"{PROG}: {model.about}", file=sys.stderr)  # says "unverified" if no real weights have confirmed it
        more = {"regions": model.way, "about": model.about}
    elif model.is_demo:
        print(f"{PROG}: {model.about} For photographs give --checkpoint.", file=sys.stderr)
    with model:
        try:
            session = model.session(image)
            answer = session.ask(given.question, boxes, max_new_tokens=given.max_new_tokens)
        except ValueError as error:
            raise _BadInput(error) from error
        except torch.OutOfMemoryError as error:
            raise MemoryError(error) from error
        regions = [region.box for region in session.regions]
    if given.json:
        result = {
            "question": given.question,
            "answer": answer.text,
            "boxes": regions,
            "tokens": answer.tokens,
            "prompt_tokens": answer.prompt_tokens,
            "seconds": round(answer.seconds, 3),
            "checkpoint": model.source,
            **({**more, "told": answer.told} if more else {}),
        }
        print(json.dumps(result, ensure_ascii=False))
    else:
        print(answer)
    if given.save is not None:  # last, so that the answer is printed even if the disk is full
        draw_regions(image, regions).save(given.save)
    return 0


def _check_way(given: argparse.Namespace, image: Any, boxes: list[list[float]]) -> None:
    """Check that the model takes this question, where its folder or its small files say which it is."""
    chosen = settings(given)
    if all(value is None for value in (given.checkpoint, given.regions, *chosen.values())):
        return
    from gpt4roi_nb.models.families import other_way_of_gpt4roi
    from gpt4roi_nb.models.without_weights import render_without_weights

    try:
        if given.checkpoint is None:  # the demo
            other_way_of_gpt4roi(given.regions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the session warns
            render_without_weights(given.checkpoint, given.regions, image, given.question, boxes, **chosen)
    except (ValueError, FileNotFoundError) as error:
        raise _BadInput(error) from error


def _load(given: argparse.Namespace) -> Any:
    """Load any region model."""
    from gpt4roi_nb.logs import no_progress_bar
    from gpt4roi_nb.models.load import load_model

    try:
        if given.device is not None:
            _check_device(given.device)
        with nullcontext() if sys.stderr.isatty() else no_progress_bar():
            return load_model(
                given.checkpoint,
                regions=given.regions,
                **settings(given),
                device=given.device,
                dtype=given.dtype,
                quantization=given.quantization,
            )
    except (ValueError, FileNotFoundError) as error:
        raise _BadInput(error) from error


def _check_device(name: str) -> None:
    """Raise ValueError if PyTorch does not have the device or cannot compute on it, whatever PyTorch itself raises."""
    import torch

    if name.startswith("cuda") and not torch.cuda.is_available():
        return  # from_pretrained reports it
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f'--device must be one that PyTorch can use, such as "cpu" or "cuda:1", but is {name!r} ({reason})'
        ) from None


def _check_writable(path: Path, image: Path) -> None:
    from PIL import Image

    if path.absolute() == image.absolute() or (path.exists() and image.exists() and path.samefile(image)):
        raise _BadInput(f"--save {str(path)!r} would overwrite the image itself; give another name")
    kind = Image.registered_extensions().get(path.suffix.lower())
    try:
        Image.new("RGB", (1, 1)).save(io.BytesIO(), kind or "none")
    except (KeyError, OSError, ValueError):
        raise _BadInput(f"--save takes the name of an image file, such as answer.png, but got {str(path)!r}") from None
    if not path.absolute().parent.is_dir():
        raise _BadInput(f"--save {str(path)!r} cannot be written: there is no folder {str(path.absolute().parent)!r}")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"{PROG}: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
