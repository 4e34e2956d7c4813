"""The command line of a world: `python -m gpt4roi_nb.data.scenes OUT --images 20000 --seed 1`."""

import argparse
import os
import sys
import time

from gpt4roi_nb.data.scenes.formats.write import SIZE, write_world


def main() -> int:
    """Write a world as the command line says; the exit status is 1 where that cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m gpt4roi_nb.data.scenes",
        description="Write generated pictures with the annotation files of every dataset; see docs/world.md.",
    )
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument("--images", type=int, default=20_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same bytes (default: %(default)s)")
    parser.add_argument("--size", type=int, default=SIZE, help="side in pixels (default: %(default)s)")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--workers", type=int, default=cores, help="processes (default: one a core, here %(default)s)")
    given = parser.parse_args()
    started = time.perf_counter()
    try:
        folder = write_world(given.out, given.images, seed=given.seed, size=given.size, workers=given.workers)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}")
        return 1
    seconds = time.perf_counter() - started
    print(f"{given.images} images in {folder} after {seconds:.0f} s, {given.images / seconds:.0f} a second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
