"""`FailureBrowser`: count where a model fails, view the failures in FiftyOne, and load them into a conversation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ipywidgets import Image as ImageWidget
from ipywidgets import VBox

from gpt4roi_nb import Answer
from gpt4roi_nb.draw import draw_regions
from gpt4roi_nb.failures.app import App
from gpt4roi_nb.failures.comparison import add_comparison
from gpt4roi_nb.failures.dataset import failures_view, to_fiftyone
from gpt4roi_nb.failures.rows import ONE_WAY, ResultLike
from gpt4roi_nb.failures.slices import DIMENSIONS, Bar, Slices
from gpt4roi_nb.failures.tags import items_of, labels_of, open_dataset, read_tags, tag
from gpt4roi_nb.session.region_model import RegionModel
from gpt4roi_nb.widgets.attention_inspector import AttentionInspector
from gpt4roi_nb.widgets.compared import match, outcome
from gpt4roi_nb.widgets.display_image import display_image
from gpt4roi_nb.widgets.failure_card import card, shared_card, shared_summary, summary
from gpt4roi_nb.widgets.failure_panel import AppFrame, FailurePanel
from gpt4roi_nb.widgets.region_chat import RegionChat
from gpt4roi_nb.widgets.roi_inspector import RoIInspector
from gpt4roi_nb.widgets.side_by_side import SideBySide
from gpt4roi_nb.widgets.static_copy import StaticCopy
from gpt4roi_nb.widgets.static_page import StaticPage
from gpt4roi_nb.widgets.worker import Worker, problems_shown

if TYPE_CHECKING:
    from pandas import DataFrame

# The most predictions loaded at a time, since people look at them one by one.
MAX_LOADED = 50
# The inspectors that can be opened for a loaded failure: name → title.
INSPECTORS = {"attention": "Attention", "regions": "Region features"}


class FailureBrowser:
    """Counts of a result's predictions by slice, the FiftyOne App, and a conversation. Show it as a cell's last line.

    A click on a bar filters, and the App shows the filtered predictions. "Load selection" loads the App's selection, or
    without one the filtered failures, into a `RegionChat`: same image, same boxes, and the question in its line.
    Findings can be saved as tags. Everything works from Python as well: `where`, `open_app`, `load_selection`, `load`,
    `show`, `ask`, `inspect`, `tag`, `tags`. The counts, `load` and the conversation work without MongoDB. A saved
    notebook contains the counts and the loaded prediction as HTML, readable without a kernel.

    **Several models.** With several results of one benchmark, such as of two models, or of one model and two ways to
    present a box, each has a letter: A for the first. A failure is then a question that at least one of them got wrong;
    a further chart counts who is right ("A right, B wrong"). A loaded failure shows its image once, and below it one
    column per model with its stored answer. One question line asks all models (`ask_all` in Python), each in a
    conversation of its own. The bars, `table` and tags are of A's predictions.

    - `result`; `table`: its filtered predictions, with `error_kind`; `loaded`: ids of the loaded ones; `current`: the
      one that is shown, or None.
    - `chat`: the `RegionChat`, once something is loaded; `app`: the running App, or None.
    - `side_by_side`: the columns of several models, whose `max_new_tokens` and `stop()` can be used; None for one.

    Args:
        result: a `Result` of `gpt4roi_nb.evaluate`, or several.
        model: a loaded model, a `GPT4RoI` or what `load_model` returns; without one, loaded failures are shown, but
            cannot be asked about. With several results, one model per result, or None in its place; or one for all.
        field: as in `gpt4roi_nb.failures.to_fiftyone`; with several results, one per result.
        name, database_folder: as in `gpt4roi_nb.failures.to_fiftyone`, which is called when the App is opened.

    Raises:
        TypeError: the first argument is not a `Result`.
        ValueError: several results are of different benchmarks, have no question in common or share a field, or the
            models do not match them.

    Example:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes.formats.write import write_world
        >>> from gpt4roi_nb.evaluate import evaluate
        >>> from gpt4roi_nb.widgets import FailureBrowser
        >>> gpt4roi = GPT4RoI.from_pretrained()
        >>> result = evaluate("vcr", gpt4roi, write_world("world", 2, progress=False), progress=False)
        >>> browser = FailureBrowser(result, gpt4roi)  # as the last line of a cell: the view
        >>> set(browser.where(kind="qa").table["kind"])
        {'qa'}
        >>> ids = browser.load(browser.table["id"][:1])
        >>> browser.current == ids[0], len(browser.chat.regions) > 0
        (True, True)
        >>> browser.close()

        Two models, or as here one model and two scorers, whose predictions need fields of their own:

        >>> written = evaluate("vcr", gpt4roi, "world", scorer="generate", max_new_tokens=4, progress=False)
        >>> both = FailureBrowser([result, written], gpt4roi, field=["likeliest", "written"])
        >>> ids = both.load(both.table["id"][:1])
        >>> both.side_by_side.max_new_tokens = 4
        >>> len(both.ask_all())
        2
        >>> both.close()
    """

    def __init__(
        self,
        result: ResultLike | Sequence[ResultLike],
        model: RegionModel | Sequence[RegionModel | None] | None = None,
        *,
        name: str | None = None,
        field: str | Sequence[str | None] | None = None,
        database_folder: str | os.PathLike[str] | None = None,
    ) -> None:
        results = _listed(result, 1)
        self._compared = match(results, _listed(model, len(results)), _listed(field, len(results)))
        first = self._compared[0]
        self.result, self.model, self.field = first.result, first.model, first.field
        self.name = self.result.benchmark if name is None else name
        self.app: App | None = None
        self.chat: RegionChat | None = None
        self.side_by_side = SideBySide(self._compared) if self._several else None
        self._database_folder = database_folder
        self._rows = first.rows
        if self._several:
            for item, row in self._rows.items():
                row["outcome"] = outcome(item, self._compared)
        self._slices = Slices(self._rows.values())
        self._loaded: list[str] = []
        self.panel = FailurePanel(title=self._title())
        self.frame = AppFrame()
        self._talk = VBox([])
        self.widget = VBox([self.panel, self.frame, self._talk])
        self.widget.add_class("gpt4roi-browser")
        self._worker = Worker(self.panel)
        self._copy = StaticCopy("gpt4roi-browser", self._to_read)
        self.panel.observe(lambda change: self._copy.changed(self._counted()), ["charts", "loaded", "current"])
        self.panel.on_msg(self._on_message)
        self._count()

    def _ipython_display_(self) -> None:
        self._copy.show(self.widget, "A FailureBrowser")

    @property
    def _several(self) -> bool:
        return len(self._compared) > 1

    def _title(self) -> str:
        """The benchmark, and each model with its way to present a box."""
        if self._several:
            models = [f"{one.letter}: {one.name}, {one.way}" for one in self._compared]
        else:
            (one,) = self._compared
            models = [one.name if one.result.card.way in ONE_WAY else f"{one.name}, {one.way}"]
        return " · ".join([self.result.benchmark, *models])

    # ------------------------------------------------------------------------------------------------ the counts

    @property
    def table(self) -> DataFrame:
        """The filtered predictions: rows of `result.predictions`, with `error_kind` and `mappings_agree`.

        With several results those of the first, with `outcome`: "A right, B wrong", or None if one has no verdict.
        """
        import pandas as pd

        return pd.DataFrame(self._slices.selected())

    @property
    def current(self) -> str | None:
        """Id of the prediction that is shown, or None."""
        index = self.panel.current
        return self._loaded[index] if 0 <= index < len(self._loaded) else None

    @property
    def loaded(self) -> list[str]:
        """Ids of the loaded predictions."""
        return list(self._loaded)

    def where(self, **values: str | Iterable[str]) -> FailureBrowser:
        """Set the filters, as clicks on bars do, replacing the old ones: `browser.where(kind="qa", size_bin="small")`.

        Args:
            values: by dimension, a value or several alternatives. Dimensions: kind, error_kind, size_bin, target, tag,
                and with several results outcome, such as "A right, B wrong".

        Returns:
            The browser itself.

        Raises:
            ValueError: there is no such dimension.
        """
        unknown = set(values) - set(DIMENSIONS)
        if unknown:
            raise ValueError(f"expected dimensions among {', '.join(DIMENSIONS)}, but got {min(unknown)!r}")
        self._slices.filters = {
            name: {given} if isinstance(given, str) else {str(value) for value in given}
            for name, given in values.items()
        }
        self._count()
        return self

    def _count(self) -> None:
        self.panel.charts = [
            {
                "name": name,
                "title": DIMENSIONS[name],
                "bars": [
                    {"value": bar.value, "total": bar.total, "wrong": _wrong(name, bar), "chosen": bar.value in chosen}
                    for bar in bars
                ],
            }
            for name, bars in self._slices.charts().items()
            for chosen in (self._slices.filters.get(name, set()),)
        ]
        self.panel.filtered = any(self._slices.filters.values())
        rows, total = self._slices.selected(), len(self._rows)
        self.panel.summary = shared_summary(rows, total, self._compared) if self._several else summary(rows, total)

    def _fails(self, item: str) -> bool:
        """Whether a model got a question wrong."""
        return any(one.fails(item) for one in self._compared)

    # ------------------------------------------------------------------------------------------------- the App

    def open_app(self, port: int | None = None) -> App:
        """Open the App with the filtered predictions; import the result into FiftyOne first if that is not done yet.

        Without a filter the App shows the failures, as the saved view of that name. Several results are all imported,
        with the saved views of `add_comparison`.

        Args:
            port: of the App's server; None chooses one.

        Returns:
            The running App.

        Raises:
            NoDatabase: no MongoDB answers.
        """
        dataset = self._import()
        view = self._view(dataset)
        if self.app is None:
            self.app = App(dataset, view, port)
            self.frame.url, self.panel.app_open = self.app.start_url, True
            self.panel.notice = self.app.note
        else:
            self.app.show(dataset, view)
        self._read_tags(dataset)
        return self.app

    def _import(self) -> Any:
        """Import what is not in the dataset yet, and return the dataset."""
        where: dict[str, Any] = {"name": self.name, "database_folder": self._database_folder}
        for one in self._compared:
            dataset = to_fiftyone(one.result, field=one.field, progress=False, **where)
        if self._several:
            results, fields = zip(*((one.result, one.field) for one in self._compared), strict=True)
            add_comparison(*results, fields=fields, **where)
        return dataset

    def _view(self, dataset: Any) -> Any:
        filtered = any(self._slices.filters.values())
        if not (filtered or self._several):
            return failures_view(dataset, self.field)
        items = [row["id"] for row in self._slices.selected() if filtered or self._fails(row["id"])]
        view = labels_of(dataset, self.field, items)
        for other in self._compared[1:]:
            view = labels_of(view, other.field, items, only_matches=False)
        return view

    def close_app(self) -> None:
        """Stop the App's server; the dataset stays."""
        self.frame.url = ""  # first, since the server takes seconds to end
        if self.app is not None:
            self.app.close()
        self.app, self.panel.app_open, self.panel.notice = None, False, ""

    # ------------------------------------------------------------------------------------ into the conversation

    def load_selection(self) -> list[str]:
        """Load what is selected in the App: labels, patches, or the failures on images.

        Without the App or a selection, the filtered failures are loaded, starting with those of which the model was
        most certain; of several models, those that most of them got wrong come first. At most `MAX_LOADED` are loaded;
        the panel says so if there are more.

        Returns:
            Their ids.

        Raises:
            DatasetGone: the dataset was deleted.
            ValueError: there is nothing to load.
        """
        return self._load_first(self._selection())

    def _selection(self) -> list[str]:
        """Ids of what is selected in the App, or without a selection, of the filtered failures."""
        ids: list[str] = []
        if self.app is not None:
            dataset = self._dataset()
            labels, samples = self.app.selected
            ids = items_of(dataset, self.field, labels or samples) if labels or samples else []
            if samples and not labels and not ids:  # whole images
                shown = {row["id"] for row in self._slices.selected()}
                found = dataset.select(samples, ordered=True).values(f"{self.field}.detections.item", unwind=True)
                ids = [item for item in found if item in shown and self._may_be_failure(item)]
            ids = [item for item in ids if item in self._rows]
            if (labels or samples) and not ids:
                raise ValueError("the selection in the App contains no failure of this result; select others")
        if not ids:
            wrong = [row for row in self._slices.selected() if self._fails(row["id"])]
            wrong.sort(key=lambda row: -(row["logprob"] if row.get("logprob") is not None else float("-inf")))
            wrong.sort(key=lambda row: -sum(one.fails(row["id"]) for one in self._compared))
            ids = [row["id"] for row in wrong]
        if not ids:
            filtered = any(self._slices.filters.values())
            raise ValueError(
                "no failure passes the filters, so there is nothing to load; clear them, or choose other bars"
                if filtered
                else "no prediction is judged wrong, so there is no failure to load; load(ids) loads others"
            )
        return ids

    def _may_be_failure(self, item: str) -> bool:
        """Whether a model got a question wrong, or it is not judged."""
        return self._fails(item) or self._rows[item]["correct"] is None

    def _load_first(self, ids: list[str]) -> list[str]:
        loaded = self.load(ids[:MAX_LOADED])
        left_out = f"{len(loaded)} of {len(ids)} are loaded; to get the others, filter, or select fewer."
        note = self.app.note if self.app is not None else ""
        self.panel.notice = left_out if len(loaded) < len(ids) else note
        return loaded

    def load(self, ids: Iterable[str]) -> list[str]:
        """Load predictions by their ids, and show the first.

        Returns:
            Their ids.

        Raises:
            ValueError: an id is not in the result's table, or there is none.
        """
        wanted = list(dict.fromkeys(ids))
        unknown = [item for item in wanted if item not in self._rows]
        if unknown or not wanted:
            what = f"{unknown[0]!r} is none of them" if unknown else "got none"
            raise ValueError(f"expected ids of this result's predictions (column `id` of its table), but {what}")
        self._bring(self._rows[wanted[0]])
        self._loaded = wanted
        about = shared_card if self._several else card
        self.panel.loaded = [about(self._rows[item]) for item in wanted]
        self.panel.current = 0
        return self.loaded

    def show(self, index: int) -> None:
        """Load one of the loaded predictions into the conversation.

        Args:
            index: its position among `loaded`, from 0.

        Raises:
            ValueError: there is no such position.
        """
        if not 0 <= index < len(self._loaded):
            raise ValueError(f"{len(self._loaded)} are loaded, numbered from 0; there is no number {index}")
        self._bring(self._rows[self._loaded[index]])
        self.panel.current = index

    def _bring(self, row: dict[str, Any]) -> None:
        if self.side_by_side is not None:
            self.side_by_side.show(row["id"])
            self._talk.children = (self.side_by_side.view,)
            return
        if self.model is None:
            boxed = display_image(draw_regions(row["image"], [list(box) for box in row["boxes"]]))
            self._talk.children = (ImageWidget(value=boxed.data, width=boxed.width),)
            return
        if self.chat is None:
            # With Undo bringing it back, another failure's image would stand beside this one's card.
            chat = RegionChat(self.model, row["image"], remember=False)
            if self._worker.closed:  # while the image was encoded
                chat.close()
                return
            self.chat = chat
            self._talk.children = (self.chat.widget,)
            can = {"attention": chat.conversation.inspectable, "regions": self.model.capabilities.roi_features}
            self.panel.inspectors = [{"name": name, "title": title} for name, title in INSPECTORS.items() if can[name]]
        else:
            self.chat.set_image(row["image"])
        self.chat.set_boxes([list(box) for box in row["boxes"]])
        self.chat.conversation.draft = ""  # text typed in the browser is not known here, and would otherwise stay
        self.chat.conversation.draft = row["question"]

    def ask(self) -> Answer | None:
        """Ask the loaded failure's question, as Enter in the question line does.

        Returns:
            The answer; None if it was stopped before its first word.

        Raises:
            RuntimeError: nothing is loaded, or there is no model, or there are several.
        """
        self._check_one("ask with ask_all()")
        if self.chat is None or self.current is None:
            raise RuntimeError("nothing is loaded to ask about; call load_selection() or load(ids) first")
        answer = self.chat.ask(self._rows[self.current]["question"])
        self.chat.conversation.draft = ""
        return answer

    def ask_all(self, question: str | None = None) -> list[Answer | None]:
        """Ask each of several models about the loaded failure, as the question line below the image does.

        Args:
            question: names regions as `<region1>`; None asks each model the question that it was measured with.

        Returns:
            An answer per model; None for one that is not loaded, cannot take the question (its column says why), or was
            stopped before its first word.

        Raises:
            RuntimeError: nothing is loaded, there is one model only, or answers are being written.
            ValueError: the question is empty, or names a region that there is not.
        """
        if self.side_by_side is None:
            raise RuntimeError("there is one model; ask it with ask(), or in the chat")
        if self.current is None:
            raise RuntimeError("nothing is loaded to ask about; call load_selection() or load(ids) first")
        return self.side_by_side.ask(question)

    def _check_one(self, instead: str) -> None:
        if self._several:
            raise RuntimeError(f"there are {len(self._compared)} models here; {instead}")

    # ----------------------------------------------------------------------------------------- what is inside

    def inspect(self, name: str) -> AttentionInspector | RoIInspector:
        """Open an inspector below the image.

        Args:
            name: "attention", of the last answer (asks the question if there is none), or "regions".

        Raises:
            ValueError: there is no such inspector.
            RuntimeError: nothing is loaded, or there are several models.
        """
        if name not in INSPECTORS:
            raise ValueError(f"expected one of {', '.join(INSPECTORS)}, but got {name!r}")
        self._check_one("open a FailureBrowser on one result to look inside its model")
        if self.chat is None or self.current is None:
            raise RuntimeError("nothing is loaded to inspect; call load_selection() or load(ids) first")
        if name == "regions":
            about = int(self._rows[self.current]["region"] or 0)
            return self.chat.inspect_region(max(about, 1))  # 0: about the whole image
        if not self.chat.answers:
            self.ask()
        return self.chat.inspect_answer()

    # -------------------------------------------------------------------------------------------------- tags

    def tag(self, name: str, ids: Iterable[str] | None = None) -> int:
        """Tag predictions in the dataset.

        Args:
            name: the tag.
            ids: of the predictions; None takes the loaded ones.

        Returns:
            How many predictions have the tag now.

        Raises:
            DatasetGone: the dataset was deleted.
            NoDatabase: no MongoDB answers.
            ValueError: there is nothing to tag, or no name.
        """
        wanted = self._loaded if ids is None else list(ids)
        if not wanted:
            raise ValueError("nothing is loaded to tag; call load_selection() or load(ids) first, or give ids")
        if self.app is None:
            self._import()
        dataset = self._dataset()
        tag(dataset, self.field, wanted, name)
        if self.app is not None:
            self.app.refresh()
        return len(self._read_tags(dataset)[name.strip()])

    @property
    def tags(self) -> dict[str, int]:
        """Count the predictions that have each tag, whoever tagged them: tag → number."""
        return {name: len(items) for name, items in self._read_tags(self._dataset()).items()}

    def _dataset(self) -> Any:
        return open_dataset(self.name, self._database_folder)

    def _read_tags(self, dataset: Any) -> dict[str, list[str]]:
        tags = read_tags(dataset, self.field)
        self._slices.set_tags(tags)
        self._count()
        return tags

    def close(self) -> None:
        """Stop the App and remove the widget from the page."""
        self._copy.close()
        self._worker.close()
        self.close_app()
        if self.chat is not None:
            self.chat.close()
        if self.side_by_side is not None:
            self.side_by_side.close()
        self.widget.close()

    # ---------------------------------------------------------------------------------------- a saved notebook

    def _counted(self) -> tuple[str, ...]:
        """What the copy for a saved notebook depends on."""
        return str(self.panel.charts), str(self.panel.loaded), str(self.panel.current)

    def _to_read(self) -> tuple[str, str]:
        """The counts and the loaded prediction, as HTML and as text."""
        panel, page = self.panel, StaticPage()
        page.heading(panel.title)
        page.say(panel.summary)
        for chart in panel.charts:
            page.heading(chart["title"])
            page.table((bar["value"], f"{bar['wrong']} of {bar['total']} wrong") for bar in chart["bars"])
        if 0 <= panel.current < len(panel.loaded):
            one = panel.loaded[panel.current]
            page.heading(f"{panel.current + 1} of {len(panel.loaded)} loaded")
            rows = {"asked": one["question"], "expected": one["target"], "answered": one["answer"] or "(nothing)"}
            page.table([*rows.items(), ("details", f"{one['verdict']} · {one['facts']}")])
        return page.both()

    # ---------------------------------------------------------------------------------------- from the browser

    def _on_message(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        kind = content.get("type")
        with problems_shown(self.panel):
            if kind == "toggle":
                self._at_once("", lambda: self._toggle(str(content["dimension"]), str(content["value"])))
            elif kind == "clear":
                self._at_once("", self.where)
            elif kind == "open":
                words = "" if self.app else "Opening FiftyOne; the first time takes half a minute…"
                self._at_once(words, self.open_app)
            elif kind == "close":
                self._at_once("Closing the App…", self.close_app)
            elif kind == "tag":
                self._at_once("Tagging…", lambda: self._tag_clicked(str(content["name"]), bool(content["all"])))
            elif kind == "load":
                with self._worker.occupied("Loading…"):
                    ids = self._selection()
                self._in_background("Loading…", lambda: self._load_first(ids))
            elif kind == "show":
                self._in_background("Loading…", lambda: self.show(int(content["index"])))
            elif kind == "inspect":
                self._in_background("Looking inside…", lambda: self.inspect(str(content["name"])))

    def _at_once(self, words: str, action: Callable[[], object]) -> None:
        self.panel.problem = ""
        with self._worker.occupied(words):
            action()

    def _in_background(self, words: str, action: Callable[[], object]) -> None:
        """Run an action with the model in the worker; ignored while another one runs."""
        with self._worker.lock:
            if not self._worker.working:
                self.panel.problem = ""
                self._worker.submit(words, action)

    def _toggle(self, dimension: str, value: str) -> None:
        self._slices.toggle(dimension, value)
        self._count()

    def _tag_clicked(self, name: str, all_loaded: bool) -> None:
        ids = self._loaded if all_loaded else [item for item in (self.current,) if item]
        count = self.tag(name, ids)
        have = "prediction now has" if count == 1 else "predictions now have"
        self.panel.notice = f"{count} {have} the tag {name.strip()!r}. The App can take tags away."


def _listed(given: Any, count: int) -> list[Any]:
    """Several things as a list; one alone, or None, stands for each of `count`."""
    return list(given) if isinstance(given, list | tuple) else [given] * count


def _wrong(dimension: str, bar: Bar) -> int:
    """The part of a bar that is failures: for who is right, all but what all models got right."""
    return bar.total * ("wrong" in bar.value) if dimension == "outcome" else bar.wrong
