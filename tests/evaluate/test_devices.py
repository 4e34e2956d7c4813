"""Every benchmark measures a model on a pretended GPU, or spread over two, as it does on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from pretended import on_one_gpu, on_two_gpus, pretended_gpus
from tiny import tiny_config, tiny_gpt4roi

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.evaluate import BENCHMARKS, evaluate
from gpt4roi_nb.evaluate.metrics.similarity import Sentences
from gpt4roi_nb.failures.features import region_vectors

SMALL = {"limit": 3, "batch_size": 2, "progress": False}
SCORERS = [(name, scorer) for name, benchmark in BENCHMARKS.items() for scorer in benchmark.scoring]


@pytest.fixture(scope="module", autouse=True)
def gpus() -> Iterator[None]:
    with pretended_gpus():
        yield


def make() -> GPT4RoI:
    """As the fixture `gpt4roi`, which others use."""
    return tiny_gpt4roi(text_config={**tiny_config().to_dict()["text_config"], "max_position_embeddings": 2048})


@pytest.fixture(scope="module", params=[on_one_gpu, on_two_gpus])
def placed(request: pytest.FixtureRequest) -> GPT4RoI:
    return request.param(make())


@pytest.mark.xdist_group("sentences")  # importing the sentence embedder takes long: once a process
@pytest.mark.parametrize(("name", "scorer"), SCORERS)
def test_benchmarks(placed: GPT4RoI, gpt4roi: GPT4RoI, world: Path, name: str, scorer: str) -> None:
    ours, theirs = (evaluate(name, model, world, scorer=scorer, **SMALL) for model in (placed, gpt4roi))
    assert len(ours.predictions)
    pd.testing.assert_frame_equal(
        ours.predictions.drop(columns="seconds"), theirs.predictions.drop(columns="seconds"), rtol=1e-3, atol=1e-3
    )
    assert ours.metrics == pytest.approx(theirs.metrics, nan_ok=True)
    assert ours.card.device == "a pretended GPU" and theirs.card.device == "cpu"
    assert ours.card.checkpoint == theirs.card.checkpoint


def test_failure_features(placed: GPT4RoI, gpt4roi: GPT4RoI, world: Path) -> None:
    result = evaluate("refcocog", gpt4roi, world, **SMALL)
    ours, theirs = (region_vectors(result, model, progress=False) for model in (placed, gpt4roi))
    assert ours.keys() == theirs.keys() and ours
    for item, vector in ours.items():
        assert vector == pytest.approx(theirs[item], abs=1e-4)


@pytest.mark.xdist_group("sentences")
def test_sentences() -> None:
    texts = ["a red cup", "a mug", "the sky"]
    assert Sentences(device="cuda").cosines(texts, texts) == pytest.approx(Sentences().cosines(texts, texts), abs=1e-5)
