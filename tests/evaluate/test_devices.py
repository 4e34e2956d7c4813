"""Every benchmark gets the CPU's answers from a model on a simulated GPU, or spread over two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from pretended import PLACES, pretended_gpus
from tiny import tiny_config, tiny_gpt4roi

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.evaluate import BENCHMARKS, Result, evaluate
from gpt4roi_nb.evaluate.benchmarks.item import Scores
from gpt4roi_nb.evaluate.metrics.similarity import Sentences
from gpt4roi_nb.failures.features import region_vectors

SCORERS = [(name, scorer) for name, benchmark in BENCHMARKS.items() for scorer in benchmark.scoring]
CASES = [("one GPU", *each) for each in SCORERS]  # and how a question goes over two, where both scorers are at hand
CASES += [(place, "vcr", scorer) for place in ("by layers", "by parts") for scorer in BENCHMARKS["vcr"].scoring]
Evaluated = Callable[[str, str], Result]


@pytest.fixture(scope="module", autouse=True)
def gpus() -> Iterator[None]:
    with pretended_gpus():
        yield


def evaluated(gpt4roi: GPT4RoI, world: Path) -> Evaluated:
    """Include the scores that need no external tool; the others score words, which do not depend on the device."""

    def run(name: str, scorer: str) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            if BENCHMARKS[name].scorers:
                patch.setitem(BENCHMARKS, name, replace(BENCHMARKS[name], score=lambda *given: Scores({})))
            return evaluate(name, gpt4roi, world, scorer=scorer, limit=2, batch_size=2, progress=False)

    return cache(run)


@pytest.fixture(scope="module")
def expected(gpt4roi: GPT4RoI, world: Path) -> Evaluated:
    return evaluated(gpt4roi, world)


@pytest.fixture(scope="module")
def placed(request: pytest.FixtureRequest) -> GPT4RoI:
    """Like the fixture `gpt4roi`, which other tests share."""
    text_config = {**tiny_config().to_dict()["text_config"], "max_position_embeddings": 2048}
    return PLACES[request.param](tiny_gpt4roi(text_config=text_config))


@pytest.mark.parametrize(("placed", "name", "scorer"), CASES, indirect=["placed"])
def test_benchmarks(placed: GPT4RoI, expected: Evaluated, world: Path, name: str, scorer: str) -> None:
    ours, theirs = evaluated(placed, world)(name, scorer), expected(name, scorer)
    tables = [result.predictions.drop(columns="seconds") for result in (ours, theirs)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-3, atol=1e-3)
    assert len(tables[0]) and ours.metrics == pytest.approx(theirs.metrics, nan_ok=True)
    assert (ours.card.device, theirs.card.device) == ("a pretended GPU", "cpu")
    assert ours.card.checkpoint == theirs.card.checkpoint


@pytest.mark.parametrize("placed", PLACES, indirect=True)
def test_failure_features(placed: GPT4RoI, expected: Evaluated, gpt4roi: GPT4RoI) -> None:
    ours, theirs = (region_vectors(expected("coco", "generate"), model, progress=False) for model in (placed, gpt4roi))
    assert ours and ours.keys() == theirs.keys()
    for item, vector in ours.items():
        assert vector == pytest.approx(theirs[item], abs=1e-4)


@pytest.mark.slow
@pytest.mark.xdist_group("sentences")  # importing the sentence embedder takes long: once per process
def test_sentences() -> None:
    texts = ["a red cup", "a mug", "the sky"]
    assert Sentences(device="cuda").cosines(texts, texts) == pytest.approx(Sentences().cosines(texts, texts), abs=1e-5)
