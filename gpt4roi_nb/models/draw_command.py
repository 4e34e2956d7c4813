"""Write the images and text that a model would get: `python -m gpt4roi_nb draw photo.jpg "What is <region1>?" --box …`.

No weights are read: a way of pointing needs the image, the boxes, the model's kind and its processor.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpt4roi_nb import commands

BAD_INPUT, FAILED = 2, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    given = commands.draw().parse_args(commands.gathered(sys.argv[1:] if arguments is None else arguments))
    try:
        return _draw(given)
    except (ValueError, FileNotFoundError, IsADirectoryError) as error:
        return commands.fail(error, BAD_INPUT, "draw")
    except (ImportError, OSError) as error:
        return commands.fail(error, FAILED, "draw")


def _draw(given: argparse.Namespace) -> int:
    from PIL import Image

    folder = given.out.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"--out {str(given.out)!r} cannot be written: there is no folder {str(folder)!r}")
    if given.out.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"--out takes an image's name, such as told.png, but came with {str(given.out)!r}")

    from gpt4roi_nb.models.without_weights import render_without_weights

    rendered = render_without_weights(
        given.checkpoint, given.regions, given.image, given.question, given.box, **commands.settings(given)
    )
    numbers = range(1, len(rendered.images) + 1)
    paths = [given.out if number == 1 else _numbered(given.out, number) for number in numbers]
    for path in paths:
        if path.exists() and path.samefile(given.image):
            raise ValueError(f"--out {str(given.out)!r} would overwrite the image itself; give another name")
    for number, path, image in zip(numbers, paths, rendered.images, strict=True):
        image.convert("RGB").save(path)
        print(f"image {number}: {path}, {image.width} × {image.height}")
    print(f"text: {rendered.text}")
    for name, value in rendered.note.items():
        print(f"{name}: {value}")
    return 0


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


if __name__ == "__main__":
    sys.exit(main())
