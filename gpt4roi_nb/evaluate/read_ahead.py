"""Read images ahead, while the model works on the previous ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from gpt4roi_nb.data.problems import NO_IMAGE, UNREADABLE_IMAGE, BadRecord
from gpt4roi_nb.evaluate.benchmarks.item import Item
from gpt4roi_nb.evaluate.predict import LoadedImage
from gpt4roi_nb.files import stamp_of
from gpt4roi_nb.images import load_image

READERS = 2
AHEAD = 2  # windows that are read while the model works on one


@dataclass(frozen=True)
class Window:
    """The questions about images that are encoded together.

    Attributes:
        index: position among the windows, from 0.
        items: the questions, grouped by image.
    """

    index: int
    items: tuple[Item, ...]

    @property
    def images(self) -> list[str]:
        """Paths of the images, each once."""
        return list(dict.fromkeys(item.image for item in self.items))


def windows(items: Sequence[Item], batch_size: int) -> list[Window]:
    """Group items by image, in windows that each fill a batch. Deterministic in the items and the batch size."""
    by_image: dict[str, list[Item]] = {}
    for item in items:
        by_image.setdefault(item.image, []).append(item)
    found: list[Window] = []
    current: list[Item] = []
    for group in by_image.values():
        current += group
        if len(current) >= batch_size:
            found.append(Window(len(found), tuple(current)))
            current = []
    if current:
        found.append(Window(len(found), tuple(current)))
    return found


def read_ahead(
    prepare: Callable[[Image.Image], Any], wanted: Sequence[Window]
) -> Iterator[tuple[Window, dict[str, LoadedImage | BadRecord]]]:
    """Yield each window with its images by path; a `BadRecord` stands for one that cannot be read.

    Args:
        prepare: the predictor's.
        wanted: windows.
    """

    def read(path: str) -> LoadedImage | BadRecord:
        try:
            stamp = stamp_of(path)
            image = load_image(path)
        except FileNotFoundError:
            return BadRecord(NO_IMAGE, f"there is no {path!r}")
        except (OSError, ValueError) as error:
            return BadRecord(UNREADABLE_IMAGE, f"{path!r}: {error}")
        return LoadedImage(prepare(image), image.size, stamp)

    with ThreadPoolExecutor(READERS) as pool:
        waiting: list[tuple[Window, dict[str, Future[LoadedImage | BadRecord]]]] = []
        rest = iter(wanted)

        def more() -> None:
            for window in rest:
                waiting.append((window, {path: pool.submit(read, path) for path in window.images}))
                return

        try:
            for _ in range(1 + AHEAD):
                more()
            while waiting:
                window, futures = waiting.pop(0)
                yield window, {path: future.result() for path, future in futures.items()}
                more()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
