"""The whole examination: scenes, images of other worlds, and the benchmarks."""

from __future__ import annotations

from gpt4roi_nb.demo.check.answerer import model_answerer
from gpt4roi_nb.demo.check.benchmarks import measure_benchmarks
from gpt4roi_nb.demo.check.figures import Figures, measure
from gpt4roi_nb.demo.check.out_of_domain import measure_out_of_domain
from gpt4roi_nb.session.gpt4roi import GPT4RoI


def examine(gpt4roi: GPT4RoI, scenes: int, seed: int) -> Figures:
    """Measure all figures that have bars.

    Args:
        gpt4roi: the model.
        scenes: number of scenes for `measure`.
        seed: decides scenes, questions and the world of the benchmarks.

    Returns:
        The figures of `measure`, and "strangers" and "benchmarks".

    Raises:
        ValueError: the seed belongs to the scenes of training.
        FileNotFoundError, ImportError: a scorer is missing; see `evaluate`.
    """
    answer = model_answerer(gpt4roi)
    figures = measure(answer, scenes, seed)
    return {
        **figures,
        "strangers": measure_out_of_domain(answer, seed),
        "benchmarks": measure_benchmarks(gpt4roi, seed),
    }
