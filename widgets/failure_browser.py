"""`FailureBrowser`: where a model fails, counted, looked at in FiftyOne, and taken back into the conversation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipywidgets import Image as ImageWidget
from ipywidgets import VBox

from gpt4roi_nb import Answer, GPT4RoI
from gpt4roi_nb.draw import draw_regions
from gpt4roi_nb.failures.app import App
from gpt4roi_nb.failures.dataset import failures_view, to_fiftyone
from gpt4roi_nb.failures.rows import HASH_LENGTH, ResultLike, field_of, rows_of
from gpt4roi_nb.failures.slices import DIMENSIONS, Slices
from gpt4roi_nb.failures.tags import items_of, labels_of, open_dataset, read_tags, tag
from gpt4roi_nb.widgets.attention_inspector import AttentionInspector
from gpt4roi_nb.widgets.display_image import display_image
from gpt4roi_nb.widgets.failure_card import card, summary
from gpt4roi_nb.widgets.failure_panel import AppFrame, FailurePanel
from gpt4roi_nb.widgets.region_chat import RegionChat
from gpt4roi_nb.widgets.roi_inspector import RoIInspector
from gpt4roi_nb.widgets.worker import Worker, problems_shown

if TYPE_CHECKING:
    from pandas import DataFrame

# So many are loaded at a time: they are gone through one by one.
MAX_LOADED = 50
# What can be opened about a loaded failure: name → title.
INSPECTORS = {"attention": "Attention", "regions": "Region features"}


class FailureBrowser:
    """Counts of a result's predictions by slice, the FiftyOne App, and the conversation. Show it as a cell's last line.

    A click on a bar filters; the App shows what the filters leave; "Load selection" brings what is selected there, or
    else the failures that the filters leave, into a `RegionChat`: same image, same boxes, the question in its line.
    What is learned goes back as a tag. All of it works from Python as well: `where`, `open_app`, `load_selection`,
    `load`, `show`, `ask`, `inspect`, `tag`, `tags`. Without a MongoDB the counts, `load` and the conversation work all
    the same.

    - `result`; `table`: its predictions that the filters leave, with `error_kind`; `loaded`: ids of the loaded ones;
      `current`: the one that is shown, or None.
    - `chat`: the `RegionChat`, once something is loaded; `app`: the running App, or None.

    Args:
        result: a `Result` of `gpt4roi_nb.evaluate`.
        model: a loaded `GPT4RoI`; without one, loaded failures are shown and cannot be asked about.
        name, field, database_folder: as in `gpt4roi_nb.failures.to_fiftyone`, which is called when the App is opened.
    """

    def __init__(
        self,
        result: ResultLike,
        model: GPT4RoI | None = None,
        *,
        name: str | None = None,
        field: str | None = None,
        database_folder: str | os.PathLike[str] | None = None,
    ) -> None:
        if not hasattr(result, "predictions"):
            raise TypeError(f"expected a Result first, then the model, but a {type(result).__name__} came first")
        self.result = result
        self.model = model
        self.name = name or result.benchmark
        self.field = field or field_of(result)
        self.app: App | None = None
        self.chat: RegionChat | None = None
        self._database_folder = database_folder
        self._slices = Slices(rows_of(result))
        self._rows = {row["id"]: row for row in self._slices.rows}
        self._loaded: list[str] = []
        weights = result.card.checkpoint[:HASH_LENGTH]
        self.panel = FailurePanel(title=f"{result.benchmark} · {Path(result.card.checkpoint_name).name} ({weights})")
        self.frame = AppFrame()
        self._talk = VBox([])
        self.widget = VBox([self.panel, self.frame, self._talk])
        self.widget.add_class("gpt4roi-browser")
        self._worker = Worker(self.panel)
        self.panel.on_msg(self._on_message)
        self._count()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget._repr_mimebundle_(**kwargs)

    # ------------------------------------------------------------------------------------------------ the counts

    @property
    def table(self) -> DataFrame:
        """The predictions that the filters leave: `result.predictions` with `error_kind` and `mappings_agree`."""
        import pandas as pd

        return pd.DataFrame(self._slices.selected())

    @property
    def current(self) -> str | None:
        """Id of the prediction that is shown."""
        index = self.panel.current
        return self._loaded[index] if 0 <= index < len(self._loaded) else None

    @property
    def loaded(self) -> list[str]:
        """Ids of the loaded predictions."""
        return list(self._loaded)

    def where(self, **values: str | Iterable[str]) -> FailureBrowser:
        """Filters, as clicks on bars do, instead of the filters so far: `browser.where(kind="qa", size_bin="small")`.

        values: dimension → a value or several, any of which fits. Dimensions: kind, error_kind, size_bin, target, tag.
        """
        unknown = set(values) - set(DIMENSIONS)
        if unknown:
            raise ValueError(f"expected dimensions among {', '.join(DIMENSIONS)}, but {min(unknown)!r} came")
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
                    {"value": bar.value, "total": bar.total, "wrong": bar.wrong, "chosen": bar.value in chosen}
                    for bar in bars
                ],
            }
            for name, bars in self._slices.charts().items()
            for chosen in (self._slices.filters.get(name, set()),)
        ]
        self.panel.filtered = any(self._slices.filters.values())
        self.panel.summary = summary(self._slices.selected(), len(self._rows))

    # ------------------------------------------------------------------------------------------------- the App

    def open_app(self, port: int | None = None) -> App:
        """Imports the result into FiftyOne where that is not done yet, and opens the App; or shows the filtered in it.

        Without a filter the App shows the failures, by the saved view of their name.

        Raises:
            NoDatabase: no MongoDB answers.
        """
        dataset = to_fiftyone(
            self.result, self.name, field=self.field, database_folder=self._database_folder, progress=False
        )
        view = self._view(dataset)
        if self.app is None:
            self.app = App(dataset, view, port)
            self.frame.url, self.panel.app_open = self.app.url, True
            self.panel.notice = self.app.note
        else:
            self.app.show(dataset, view)
        self._read_tags(dataset)
        return self.app

    def _view(self, dataset: Any) -> Any:
        if not any(self._slices.filters.values()):
            return failures_view(dataset, self.field)
        return labels_of(dataset, self.field, [row["id"] for row in self._slices.selected()])

    def close_app(self) -> None:
        """Ends the App's server; the dataset stays."""
        if self.app is not None:
            self.app.close()
        self.app, self.frame.url, self.panel.app_open, self.panel.notice = None, "", False, ""

    # ------------------------------------------------------------------------------------ into the conversation

    def load_selection(self) -> list[str]:
        """Loads what is selected in the App: labels, patches, or the failures on images. Returns the ids.

        Without the App or a selection: the failures that the filters leave, those that the model was surest of first.
        At most `MAX_LOADED`; the panel says so where there are more.

        Raises:
            DatasetGone: the dataset was deleted.
            ValueError: there is nothing to load.
        """
        return self._load_first(self._selection())

    def _selection(self) -> list[str]:
        """Ids of what is selected in the App, or else of the failures that the filters leave."""
        ids: list[str] = []
        if self.app is not None:
            dataset = self._dataset()
            labels, samples = self.app.selected
            ids = items_of(dataset, self.field, labels or samples) if labels or samples else []
            if samples and not labels and not ids:  # whole images
                shown = {row["id"] for row in self._slices.selected()}
                found = dataset.select(samples, ordered=True).values(f"{self.field}.detections.item", unwind=True)
                ids = [item for item in found if item in shown and self._rows[item]["correct"] is not True]
            ids = [item for item in ids if item in self._rows]
            if (labels or samples) and not ids:
                raise ValueError("what is selected in the App holds no failure of this result; select others")
        if not ids:
            wrong = [row for row in self._slices.selected() if row["correct"] is False]
            wrong.sort(key=lambda row: -(row["logprob"] if row.get("logprob") is not None else float("-inf")))
            ids = [row["id"] for row in wrong]
        if not ids:
            raise ValueError("the filters leave no failure to load")
        return ids

    def _load_first(self, ids: list[str]) -> list[str]:
        loaded = self.load(ids[:MAX_LOADED])
        left_out = f"{len(loaded)} of {len(ids)} are loaded; filter, or select fewer, to get at the others."
        note = self.app.note if self.app is not None else ""
        self.panel.notice = left_out if len(loaded) < len(ids) else note
        return loaded

    def load(self, ids: Iterable[str]) -> list[str]:
        """Loads predictions by their ids, and shows the first. Returns the ids."""
        wanted = list(dict.fromkeys(ids))
        unknown = [item for item in wanted if item not in self._rows]
        if unknown or not wanted:
            what = f"{unknown[0]!r} is none of them" if unknown else "none came"
            raise ValueError(f"expected ids of this result's predictions (column `id` of its table), but {what}")
        self._bring(self._rows[wanted[0]])
        self._loaded = wanted
        self.panel.loaded = [card(self._rows[item]) for item in wanted]
        self.panel.current = 0
        return self.loaded

    def show(self, index: int) -> None:
        """Brings one of the loaded into the conversation. index: from 0."""
        if not 0 <= index < len(self._loaded):
            raise ValueError(f"{len(self._loaded)} are loaded, counted from 0; there is no number {index}")
        self._bring(self._rows[self._loaded[index]])
        self.panel.current = index

    def _bring(self, row: dict[str, Any]) -> None:
        if self.model is None:
            boxed = display_image(draw_regions(row["image"], [list(box) for box in row["boxes"]]))
            self._talk.children = (ImageWidget(value=boxed.data, width=boxed.width),)
            return
        if self.chat is None:
            chat = RegionChat(self.model, row["image"])
            if self._worker.closed:  # while the image was encoded
                chat.close()
                return
            self.chat = chat
            self._talk.children = (self.chat.widget,)
            self.panel.inspectors = [{"name": name, "title": title} for name, title in INSPECTORS.items()]
        else:
            self.chat.set_image(row["image"])
        self.chat.set_boxes([list(box) for box in row["boxes"]])
        self.chat.conversation.draft = ""  # what was typed in the browser is not known here, and would stay
        self.chat.conversation.draft = row["question"]

    def ask(self) -> Answer | None:
        """Asks the question that is ready about the loaded failure, as Enter in the question line does."""
        if self.chat is None or self.current is None:
            raise RuntimeError("nothing is loaded to ask about; call load_selection() or load(ids) first")
        answer = self.chat.ask(self._rows[self.current]["question"])
        self.chat.conversation.draft = ""
        return answer

    # ----------------------------------------------------------------------------------------- what is inside

    def inspect(self, name: str) -> AttentionInspector | RoIInspector:
        """Opens below the picture "attention" (of the last answer; asks where there is none), or "regions"."""
        if name not in INSPECTORS:
            raise ValueError(f"expected one of {', '.join(INSPECTORS)}, but {name!r} came")
        if self.chat is None or self.current is None:
            raise RuntimeError("nothing is loaded to look into; call load_selection() or load(ids) first")
        if name == "regions":
            about = int(self._rows[self.current]["region"] or 0)
            return self.chat.inspect_region(max(about, 1))  # 0: about the whole image
        if not self.chat.answers:
            self.ask()
        return self.chat.inspect_answer()

    # -------------------------------------------------------------------------------------------------- tags

    def tag(self, name: str, ids: Iterable[str] | None = None) -> int:
        """Tags predictions in the dataset: the loaded ones by default. Returns how many have the tag now.

        Raises:
            DatasetGone: the dataset was deleted. NoDatabase: no MongoDB answers. ValueError: nothing to tag, no name.
        """
        wanted = self._loaded if ids is None else list(ids)
        if not wanted:
            raise ValueError("nothing is loaded to be tagged; call load_selection() or load(ids) first, or give ids")
        if self.app is None:
            to_fiftyone(self.result, self.name, field=self.field, database_folder=self._database_folder, progress=False)
        dataset = self._dataset()
        tag(dataset, self.field, wanted, name)
        if self.app is not None:
            self.app.refresh()
        return len(self._read_tags(dataset)[name.strip()])

    @property
    def tags(self) -> dict[str, int]:
        """Tag → how many of the predictions have it, whoever tagged them."""
        return {name: len(items) for name, items in self._read_tags(self._dataset()).items()}

    def _dataset(self) -> Any:
        return open_dataset(self.name, self._database_folder)

    def _read_tags(self, dataset: Any) -> dict[str, list[str]]:
        tags = read_tags(dataset, self.field)
        self._slices.set_tags(tags)
        self._count()
        return tags

    def close(self) -> None:
        """Ends the App and takes the widget off the page."""
        self._worker.close()
        self.close_app()
        if self.chat is not None:
            self.chat.close()
        self.widget.close()

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
        """Runs what the model computes in the worker; nothing happens while something else does."""
        with self._worker.lock:
            if not self._worker.working:
                self.panel.problem = ""
                self._worker.submit(words, action)

    def _toggle(self, dimension: str, value: str) -> None:
        self._slices.toggle(dimension, value)
        self._count()

    def _tag_clicked(self, name: str, all_loaded: bool) -> None:
        ids = self._loaded if all_loaded else [item for item in (self.current,) if item]
        self.panel.notice = f"{self.tag(name, ids)} predictions are tagged {name.strip()!r} now."
