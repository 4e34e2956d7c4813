"""`TrainingMonitor`: a running training: losses, speed, the model's answers so far, and a button to stop it."""

from __future__ import annotations

import base64
import io
import threading
import time
from typing import Any

import anywidget
import traitlets

from gpt4roi_nb.draw import draw_regions, region_color
from gpt4roi_nb.memory import in_words
from gpt4roi_nb.train import Probes, TrainingRun
from gpt4roi_nb.widgets.display_image import encode
from gpt4roi_nb.widgets.esm import module, style
from gpt4roi_nb.widgets.static_copy import StaticCopy
from gpt4roi_nb.widgets.static_page import StaticPage

UPDATES_PER_SECOND = 2
MAX_POINTS = 300  # of a curve; more cannot be told apart
MAX_SIDE = 480  # pixels of the shown image
COPIES = 20  # at most, of a training, for a saved notebook
SOURCE = "loss/"


class TrainingMonitor(anywidget.AnyWidget):
    """A running training. Show it as the last line of a cell:

        run = train(…, block=False, probes=Probes(image, boxes))
        TrainingMonitor(run)

    Its button stops the training after the current step, with a checkpoint; the same call of `train` continues from
    there. For a training that blocks the cell, use `train(…, on_start=lambda run: display(TrainingMonitor(run)))`; its
    button takes effect only after the cell, and the notebook's own interrupt ends the training.

    A saved notebook contains the loss, the figures and the latest answers as HTML, readable without a kernel.

    Args:
        run: what `train` returned, or gives to `on_start`.

    Traits, for reading:
        state: "running", "stopped", "failed" or "done".
        step, max_steps: steps made so far, and of the whole training.
        lines: [{"step", "loss", "learning_rate", "sources": {name: loss}}], oldest first; thinned out.
        sources: [{"name", "color"}].
        facts: {name: text}, the latest figures.
        probes: [{"number", "color", "truth", "answers": [{"step", "text", "right"}]}]; an answer is listed if it
            differs from the one before it; right is None if no truth is known.
        problem: what went wrong, as a text.
        notice: a text that is good to know.

    Messages from the browser: {"type": "stop"}.

    Example:
        >>> from pathlib import Path
        >>> from gpt4roi_nb.train import TrainingRun
        >>> from gpt4roi_nb.widgets import TrainingMonitor
        >>> run = TrainingRun(Path("run"), parts=[])  # as `train(…, block=False)` returns it
        >>> monitor = TrainingMonitor(run)
        >>> run.start(lambda: None, block=True)
        >>> monitor.state
        'done'
        >>> monitor.close()
    """

    _esm = module("training_monitor.js")
    _css = style("training_monitor.css")

    state = traitlets.Unicode("running").tag(sync=True)
    stopping = traitlets.Bool(False).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    max_steps = traitlets.Int(0).tag(sync=True)
    lines: traitlets.List[Any] = traitlets.List().tag(sync=True)
    sources: traitlets.List[Any] = traitlets.List().tag(sync=True)
    facts: traitlets.Dict[str, str] = traitlets.Dict().tag(sync=True)
    probe_image = traitlets.Unicode().tag(sync=True)
    question = traitlets.Unicode().tag(sync=True)
    probes: traitlets.List[Any] = traitlets.List().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)
    notice = traitlets.Unicode().tag(sync=True)

    def __init__(self, run: TrainingRun) -> None:
        super().__init__()
        self.run = run
        self._shown = 0.0
        self._lock = threading.Lock()
        self._copy = StaticCopy("gpt4roi-monitor", self._to_read)
        if run.probes is not None:
            self.probe_image = _drawn(run.probes)
            self.question = run.probes.question.replace("<region1>", "region N")
        self.on_msg(self._on_message)
        self._refresh()
        run.listen(self._follow)

    def _ipython_display_(self) -> None:
        self._copy.show(self, "A TrainingMonitor")

    def close(self) -> None:
        """Remove the monitor from the page; the training goes on."""
        self._copy.close()
        super().close()

    def _refresh(self) -> None:
        """Show the run's current state; called automatically, at most twice per second."""
        run = self.run
        with self._lock, self.hold_sync():
            lines = [line for line in run.history if "loss" in line]
            names = sorted({key for line in lines for key in line if key.startswith(SOURCE)})
            # The probes have the first colours; curves have others than the probes, as long as there are enough.
            taken = 0 if run.probes is None else len(run.probes.boxes)
            self.sources = [
                {"name": name.removeprefix(SOURCE), "color": region_color(taken + number)}
                for number, name in enumerate(names, 1)
            ]
            self.lines = [_line(line) for line in _thinned(lines)]
            self.step, self.max_steps = run.step, run.max_steps
            if lines:
                self.facts = _facts(lines[-1], run)
            self.probes = _probes(run)
            self.state, self.stopping = run.state, run.stopping
            self.problem = "" if run.error is None else _problem(run.error)
            self.notice = self._words()
        self._copy.changed((self.state, len(run.answers), COPIES * self.step // max(self.max_steps, 1)))

    def _to_read(self) -> tuple[str, str]:
        """The latest figures, the loss and the latest answers, as HTML and as text."""
        page = StaticPage()
        page.heading(f"Training, {self.state}: step {self.step} of {self.max_steps}")
        page.say(self.problem or self.notice)
        page.table(self.facts.items())
        if self.lines:
            page.image(_curve(self.lines), "The loss by step")
        if self.probe_image:
            page.image(self.probe_image, "The probes' image, with its regions numbered")
            page.say(f"{self.question} The latest answers:")
            page.table(_latest(probe) for probe in self.probes)
        return page.both()

    def _words(self) -> str:
        run = self.run
        if self.state == "stopped":
            return f"Stopped, with a checkpoint in {run.output_dir}; the same call of train continues from there."
        if self.state == "done":
            return f"The trained model is in {run.output_dir / 'model'}."
        if self.stopping:
            return "Stopping after the current step, with a checkpoint."
        return ""

    def _follow(self, run: TrainingRun) -> None:
        now = time.monotonic()
        if run.running and run.stopping == self.stopping and now - self._shown < 1 / UPDATES_PER_SECOND:
            return
        self._shown = now
        self._refresh()

    def _on_message(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        if content.get("type") == "stop":
            self.run.stop()  # which shows it, in every monitor of the run


def _drawn(probes: Probes) -> str:
    """The probes' image with its numbered regions, as a `data:` URL."""
    drawn = draw_regions(probes.image, probes.boxes)
    drawn.thumbnail((MAX_SIDE, MAX_SIDE))
    return "data:image/png;base64," + base64.b64encode(encode(drawn)).decode()


def _curve(lines: list[dict[str, Any]]) -> str:
    """The loss as an image, as a `data:` URL."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.semilogy([line["step"] for line in lines], [line["loss"] for line in lines])
    axes.set(xlabel="step", ylabel="loss")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _latest(probe: dict[str, Any]) -> list[str]:
    """A probe's region, the truth, its latest answer, and whether that is right."""
    last: dict[str, Any] = probe["answers"][-1] if probe["answers"] else {"text": "", "right": None}
    mark = {True: "✓", False: "✗", None: ""}[last["right"]]
    return [f"region {probe['number']}", probe["truth"], mark, last["text"] or "(nothing)"]


def _thinned(lines: list[dict[str, float]]) -> list[dict[str, float]]:
    """Thin out lines evenly, keeping the last."""
    every = -(-len(lines) // MAX_POINTS) or 1
    return lines[::every] + (lines[-1:] if (len(lines) - 1) % every else [])


def _line(line: dict[str, float]) -> dict[str, Any]:
    sources = {key.removeprefix(SOURCE): value for key, value in line.items() if key.startswith(SOURCE)}
    return {
        "step": line["step"],
        "loss": line["loss"],
        "learning_rate": line.get("learning_rate", 0.0),
        "sources": sources,
    }


def _facts(line: dict[str, float], run: TrainingRun) -> dict[str, str]:
    facts = {"loss": f"{line['loss']:.3f}", "learning rate": f"{line.get('learning_rate', 0):.2g}"}
    if "tokens_per_second" in line:
        facts["tokens per second"] = f"{line['tokens_per_second']:,.0f}"
        facts["images per second"] = f"{line['images_per_second']:,.1f}"
        facts["memory"] = in_words(line["memory"])
        facts["waiting for data"] = f"{line['waiting']:.0%}"
    if run.running and "seconds_left" in line:
        facts["time left"] = _duration(line["seconds_left"])
    if skipped := sum(run.problems.counts().values()):
        facts["records skipped"] = f"{skipped:,}"
    return facts


def _problem(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted. The same call of train continues from the last checkpoint."
    text = str(error) or type(error).__name__
    return text[0].upper() + text[1:]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _probes(run: TrainingRun) -> list[dict[str, Any]]:
    if run.probes is None:
        return []
    answers = list(run.answers)
    found = []
    for index in range(len(run.probes.boxes)):
        truth = run.probes.truths[index] if run.probes.truths else ""
        changes: list[dict[str, Any]] = []
        for step, said in answers:
            if not changes or changes[-1]["text"] != said[index]:
                right = truth.lower() in said[index].lower() if truth else None
                changes.append({"step": step, "text": said[index], "right": right})
        number = index + 1
        found.append({"number": number, "color": region_color(number), "truth": truth, "answers": changes})
    return found
