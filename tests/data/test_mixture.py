"""A mixture: by weight, repeatable, divided among workers, taken up anywhere."""

import json
import pickle
from collections import Counter

import numpy as np
import pytest

from gpt4roi_nb.data import Mixture, Record


class Numbers:
    """A data set of numbers."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size

    def __len__(self) -> int:
        return self.size

    def record(self, number: int, epoch: int = 0) -> Record:
        boxes = np.zeros((0, 4), np.float32)
        return Record("x.jpg", boxes, (("user", f"{epoch}"), ("assistant", "a")), self.name, str(number))


def mixture(seed: int = 0, length: int = 4000, weights: dict[str, float] | None = None) -> Mixture:
    weights = {"a": 3, "b": 1} if weights is None else weights
    return Mixture({"a": Numbers("a", 100), "b": Numbers("b", 7000)}, weights, seed=seed, length=length)


def names(records: list[Record]) -> list[str]:
    return [f"{record.source}{record.id}/{record.turns[0][1]}" for record in records]


def test_each_is_drawn_by_its_weight_and_seen_whole_before_again() -> None:
    records = list(mixture())
    counts = Counter(record.source for record in records)
    assert counts["a"] / len(records) == pytest.approx(0.75, abs=0.03)
    of_a = [record for record in records if record.source == "a"]
    for epoch in range(len(of_a) // 100):
        part = of_a[100 * epoch : 100 * (epoch + 1)]
        assert {record.id for record in part} == {str(number) for number in range(100)}
        assert {record.turns[0][1] for record in part} == {str(epoch)}
    assert [record.id for record in of_a[:100]] != [record.id for record in of_a[100:200]]
    assert len({record.id for record in records if record.source == "b"}) == counts["b"]


def test_without_weights_every_record_comes_about_once() -> None:
    mixed = Mixture({"a": Numbers("a", 100), "b": Numbers("b", 7000)})
    assert len(mixed) == 7100
    assert Counter(mixed.place(position).name for position in range(7100))["b"] == pytest.approx(7000, abs=40)


def test_a_seed_decides_all_in_any_order_of_asking() -> None:
    forward = [mixture()[position] for position in range(0, 3000, 37)]
    one = mixture()
    backward = [one[position] for position in reversed(range(0, 3000, 37))]
    assert names(forward) == names(backward[::-1])
    assert names(list(mixture(length=200))) != names(list(mixture(seed=1, length=200)))


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("start", [0, 5, 1500])
def test_workers_divide_the_positions(workers: int, start: int) -> None:
    one = mixture()
    shares = [list(one.positions(start, worker=worker, workers=workers)) for worker in range(workers)]
    assert sorted(position for share in shares for position in share) == list(range(start, 4000))
    copies = [pickle.loads(pickle.dumps(one)) for _ in shares]
    read = {position: copy[position] for copy, share in zip(copies, shares, strict=True) for position in share[:20]}
    assert all(read[position] == one[position] for position in read)


def test_an_interrupted_run_goes_on_where_it_stood() -> None:
    whole = names(list(mixture()))
    one = mixture()
    begun = [next(iter(one)) for _ in range(1234)]
    state = json.loads(json.dumps(one.state_dict()))
    other = mixture()
    other.load_state_dict(state)
    assert names(begun) + names(list(other)) == whole


def test_a_position_of_another_mixture_is_refused() -> None:
    state = mixture().state_dict()
    for other, what in ((mixture(seed=1), "seed"), (mixture(weights={"a": 1, "b": 1}), "weights")):
        with pytest.raises(ValueError, match=f"with {what} = "):
            other.load_state_dict(state)
    turned = Mixture({"b": Numbers("b", 7000), "a": Numbers("a", 100)}, {"b": 1, "a": 3})
    with pytest.raises(ValueError, match="with datasets = "):
        turned.load_state_dict(state)
    smaller = Mixture({"a": Numbers("a", 99), "b": Numbers("b", 7000)}, {"a": 3, "b": 1})
    with pytest.raises(ValueError, match="with sizes = "):
        smaller.load_state_dict(state)


def test_mistakes_of_the_caller_are_told() -> None:
    data = {"a": Numbers("a", 5)}
    for given, weights, words in (
        ({}, None, "at least one"),
        ({"a": Numbers("a", 0)}, None, "has no records"),
        (data, {"b": 1}, "must name the data sets"),
        (data, {"a": 0}, "positive"),
        (data, {"a": float("nan")}, "positive"),
    ):
        with pytest.raises(ValueError, match=words):
            Mixture(given, weights)  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="positions 0 to 4"):
        Mixture(data)[5]
    with pytest.raises(ValueError, match="worker must lie"):
        Mixture(data).positions(worker=2, workers=2)


def test_another_epoch_goes_on_where_the_first_ended() -> None:
    whole, half = mixture(length=400), mixture(length=200)
    assert [half.record(position, 1) for position in range(200)] == [whole[position] for position in range(200, 400)]


@pytest.mark.slow
def test_shuffled_orders_are_made_once_a_pass_and_let_go_after_it() -> None:
    """A training asks for positions in any order; a set that is seen often has an order for each time."""
    one = mixture()
    rng = np.random.default_rng(0)
    made: list[int] = []
    for epoch in range(20):
        for position in rng.permutation(4000).tolist():
            one.record(position, epoch)
        made.append(sum(map(len, one._orders.values())))
    assert len(one._orders) > 10
    assert max(made) <= 4000 + 2 * 7100
