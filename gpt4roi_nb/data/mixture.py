"""Join several data sets: draw from them by weight, in an order that a seed decides and that can resume anywhere.

The record at a position depends only on seed, weights and sizes. So any number of workers or machines can share the
positions, and an interrupted training resumes at the position that it had reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpt4roi_nb.data.record import Record

BLOCK = 1024  # positions for which data sets are drawn together


class Records(Protocol):
    """What a mixture needs of a data set; `RegionDataset` has it."""

    def __len__(self) -> int: ...
    def record(self, number: int, epoch: int = 0) -> Record: ...


@runtime_checkable
class WithImages(Records, Protocol):
    """Data that know where their images are, as `RegionDataset` does: `located(number)` gives the whole path, and
    `read(number)` opens the image and returns None if it is damaged."""

    def located(self, number: int, epoch: int = 0) -> Record: ...
    def read(self, number: int, epoch: int = 0) -> tuple[Image.Image, Record] | None: ...


@runtime_checkable
class Reporting(Protocol):
    """Data that can report what was left out."""

    def report(self) -> str: ...


class Place(NamedTuple):
    """Which record is at a position: its data set, its number there, and how often that was seen whole before."""

    name: str
    number: int
    epoch: int


class Mixture:
    """Data sets drawn by weight: `mixture[position]` is a record, for positions from 0 to `len(mixture) - 1`.

    Each data set is shuffled again whenever it has been seen whole, so all its records come equally often. Iteration
    continues from `position`, which `state_dict` and `load_state_dict` save and restore.

    Args:
        datasets: by name.
        weights: by name, how often each is drawn, in any unit; by default in proportion to its records.
        seed: decides all draws and orders.
        length: number of positions; by default the number of all records.

    Raises:
        ValueError: no data set, an empty one, or weights that are not positive or name other data sets.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from gpt4roi_nb.data import Mixture, load
        >>> turns = [{"from": "human", "value": "What is this?"}, {"from": "gpt", "value": "a cup"}]
        >>> entries = [{"id": str(number), "image": "a.jpg", "conversations": turns} for number in range(3)]
        >>> _ = Path("mine.json").write_text(json.dumps(entries))
        >>> dataset = load("conversations", "mine.json", cache="cache")
        >>> mixture = Mixture({"mine": dataset, "more": dataset}, {"mine": 3, "more": 1}, seed=0)
        >>> len(mixture), mixture.weights, mixture[0].turns[1]
        (6, {'mine': 0.75, 'more': 0.25}, ('assistant', 'a cup'))
        >>> record = next(iter(mixture))
        >>> mixture.state_dict()["position"]
        1
    """

    def __init__(
        self,
        datasets: Mapping[str, Records],
        weights: Mapping[str, float] | None = None,
        *,
        seed: int = 0,
        length: int | None = None,
    ) -> None:
        if not datasets:
            raise ValueError('a mixture needs at least one data set: Mixture({"coco": load("coco", …)})')
        for name, dataset in datasets.items():
            if not len(dataset):
                raise ValueError(f"{name!r} has no records; see its report() for what was wrong with them")
        given = {name: float(len(dataset)) for name, dataset in datasets.items()} if weights is None else dict(weights)
        if set(given) != set(datasets):
            raise ValueError(f"weights must name the data sets {sorted(datasets)}, but name {sorted(given)}")
        if not all(np.isfinite(weight) and weight > 0 for weight in given.values()):
            raise ValueError(f"weights must be positive numbers, but are {given}; leave a data set out instead of 0")
        self.datasets = dict(datasets)
        self.weights = {name: given[name] / sum(given.values()) for name in datasets}
        self.seed = seed
        self.length = sum(map(len, datasets.values())) if length is None else length
        self.position = 0
        self._before: list[NDArray[np.int64]] = [np.zeros(len(datasets), np.int64)]  # draws before each block
        self._block: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))
        self._orders: dict[tuple[str, int], NDArray[np.int32]] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> Record:
        return self.record(position)

    def record(self, position: int, epoch: int = 0) -> Record:
        """Return the record at a position. Each epoch continues where the one before it ended.

        Raises:
            IndexError: there is no such position.
        """
        place = self._placed(position, epoch)
        return self.datasets[place.name].record(place.number, place.epoch)

    def located(self, position: int, epoch: int = 0) -> Record:
        """As `record`, but with the whole path of its image, since two data sets may have the same source.

        Raises:
            IndexError: there is no such position.
            ValueError: the data set does not know where its images are.
        """
        place = self._placed(position, epoch)
        return self._with_images(place.name).located(place.number, place.epoch)

    def read(self, position: int, epoch: int = 0) -> tuple[Image.Image, Record] | None:
        """Return the image and the record at a position; None if the image is damaged.

        Raises:
            IndexError: there is no such position.
            ValueError: the data set does not know where its images are.
        """
        place = self._placed(position, epoch)
        return self._with_images(place.name).read(place.number, place.epoch)

    def report(self) -> str:
        """Return one table per data set of what was left out and why."""
        return "\n".join(dataset.report() for dataset in self.datasets.values() if isinstance(dataset, Reporting))

    def __iter__(self) -> Iterator[Record]:
        while self.position < self.length:
            record = self[self.position]
            self.position += 1
            yield record

    def positions(self, start: int = 0, *, worker: int = 0, workers: int = 1) -> range:
        """Return the positions of one of several workers, from `start` on: each position belongs to exactly one worker.

        Raises:
            ValueError: there is no such worker.
        """
        if not 0 <= worker < workers:
            raise ValueError(f"worker must lie between 0 and {workers - 1}, but is {worker}")
        return range(start + (worker - start) % workers, self.length, workers)

    def place(self, position: int) -> Place:
        """Return which record is at a position."""
        block, offset = divmod(position, BLOCK)
        drawn = self._drawn(block)
        chosen = int(drawn[offset])
        before = int(self._before_block(block)[chosen]) + int((drawn[:offset] == chosen).sum())
        name = list(self.datasets)[chosen]
        epoch, within = divmod(before, len(self.datasets[name]))
        return Place(name, int(self._order(name, epoch)[within]), epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and what it depends on: data sets, their sizes, weights and seed."""
        sizes = {name: len(dataset) for name, dataset in self.datasets.items()}
        order = {"datasets": list(self.datasets), "seed": self.seed, "weights": dict(self.weights), "sizes": sizes}
        return {"position": self.position, **order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at the position of another mixture of the same data sets.

        Raises:
            ValueError: that mixture had other data sets, sizes, weights or another seed.
        """
        mine = self.state_dict()
        for key in ("datasets", "seed", "weights", "sizes"):
            if state.get(key) != mine[key]:
                raise ValueError(
                    f"the position comes from a mixture with {key} = {state.get(key)}, but this one has "
                    f"{mine[key]}, and so another order: restore the former {key}, or begin at position 0"
                )
        self.position = int(state["position"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_orders": {}}  # each worker draws those that it needs

    def _placed(self, position: int, epoch: int) -> Place:
        if not 0 <= position < self.length:
            raise IndexError(f"the mixture has positions 0 to {self.length - 1}; there is no {position}")
        return self.place(position + epoch * self.length)

    def _with_images(self, name: str) -> WithImages:
        dataset = self.datasets[name]
        if not isinstance(dataset, WithImages):
            raise ValueError(f"{name!r} does not know where its images are; load it with images=, or name the folder")
        return dataset

    def _drawn(self, block: int) -> NDArray[np.int64]:
        if self._block[0] != block:
            rng = np.random.default_rng([self.seed, block])
            self._block = (block, rng.choice(len(self.datasets), BLOCK, p=list(self.weights.values())))
        return self._block[1]

    def _before_block(self, block: int) -> NDArray[np.int64]:
        while len(self._before) <= block:
            counts = np.bincount(self._drawn(len(self._before) - 1), minlength=len(self.datasets))
            self._before.append(self._before[-1] + counts)
        return self._before[block]

    def _order(self, name: str, epoch: int) -> NDArray[np.int32]:
        """The order of a data set in its pass `epoch`. All orders of one pass through the mixture are kept, since it
        may be read in any order; older ones are dropped."""
        if (name, epoch) not in self._orders:
            order = np.random.default_rng([self.seed, epoch, *name.encode()]).permutation(len(self.datasets[name]))
            a_pass = self.length + 2 * sum(map(len, self.datasets.values()))
            if sum(map(len, self._orders.values())) + len(order) > a_pass:
                self._orders.clear()
            self._orders[name, epoch] = order.astype(np.int32)
        return self._orders[name, epoch]
