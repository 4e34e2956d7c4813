"""Pictures that are read ahead, while the model is busy with those before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from gpt4roi_nb.data.problems import NO_IMAGE, UNREADABLE_IMAGE, BadRecord
from gpt4roi_nb.evaluate.benchmarks.item import Item
from gpt4roi_nb.evaluate.predict import Picture
from gpt4roi_nb.files import stamp_of
from gpt4roi_nb.images import load_image
from gpt4roi_nb.session.gpt4roi import GPT4RoI

READERS = 2
AHEAD = 2  # windows that are read while one is asked about


@dataclass(frozen=True)
class Window:
    """Pictures that are encoded together, and the questions about them. index: from 0."""

    index: int
    items: tuple[Item, ...]

    @property
    def images(self) -> list[str]:
        return list(dict.fromkeys(item.image for item in self.items))


def windows(items: Sequence[Item], batch_size: int) -> list[Window]:
    """The items by picture, in windows of enough pictures for a batch. The same for the same items and batch size."""
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


def read_ahead(gpt4roi: GPT4RoI, wanted: Sequence[Window]) -> Iterator[tuple[Window, dict[str, Picture | BadRecord]]]:
    """Each window with its pictures by path, or what is wrong with them."""
    processor = gpt4roi.processor.image_processor
    pinned = gpt4roi.device.type == "cuda"

    def read(path: str) -> Picture | BadRecord:
        try:
            stamp = stamp_of(path)
            image = load_image(path)
        except FileNotFoundError:
            return BadRecord(NO_IMAGE, f"there is no {path!r}")
        except (OSError, ValueError) as error:
            return BadRecord(UNREADABLE_IMAGE, f"{path!r}: {error}")
        pixel_values = processor.picture(image)
        return Picture(pixel_values.pin_memory() if pinned else pixel_values, image.size, stamp)

    with ThreadPoolExecutor(READERS) as pool:
        waiting: list[tuple[Window, dict[str, Future[Picture | BadRecord]]]] = []
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
