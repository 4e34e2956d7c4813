"""The whole examination: scenes, images of other worlds, and the benchmarks."""

from __future__ import annotations

from gpt4roi_nb.demo.check.answerer import model_answerer
from gpt4roi_nb.demo.check.benchmarks import measure_benchmarks
from gpt4roi_nb.demo.check.figures import Figures, measure
from gpt4roi_nb.demo.check.strangers import measure_strangers
from gpt4roi_nb.session.gpt4roi import GPT4RoI


def examine(gpt4roi: GPT4RoI, scenes: int, seed: int) -> Figures:
    """All figures that have bars: those of `measure` on so many scenes, and "strangers" and "benchmarks".

    Raises:
        ValueError: for a seed that belongs to the scenes of training.
        FileNotFoundError, ImportError: where what scores an answer is not there; see `evaluate`.
    """
    answer = model_answerer(gpt4roi)
    figures = measure(answer, scenes, seed)
    return {
        **figures,
        "strangers": measure_strangers(answer, seed),
        "benchmarks": measure_benchmarks(gpt4roi, seed),
    }
