"""The command line of a world: `python -m gpt4roi_nb.data.scenes OUT --images 20000 --seed 1`."""

import sys
import time

from gpt4roi_nb import commands
from gpt4roi_nb.data.scenes.formats.write import write_world


def main() -> int:
    """Write a world as the command line says; return exit status 1 if that fails."""
    parser = commands.scenes()
    given = parser.parse_args()
    started = time.perf_counter()
    try:
        folder = write_world(given.out, given.images, seed=given.seed, size=given.size, workers=given.workers)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}")
        return 1
    except KeyboardInterrupt:
        return commands.fail("interrupted; the same call continues from there", commands.INTERRUPTED, "scenes")
    seconds = time.perf_counter() - started
    print(f"{given.images} images in {folder} after {seconds:.0f} s, {given.images / seconds:.0f} per second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
