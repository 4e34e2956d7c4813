"""`RoIInspector`: what a region is made of, from the tower's hidden states to its one token, while its box moves."""

from __future__ import annotations

from typing import Any

import traitlets
from ipywidgets import HBox, VBox
from numpy.typing import ArrayLike

from gpt4roi_nb import RegionSession
from gpt4roi_nb.boxes import Box, checked_boxes
from gpt4roi_nb.capture import RoIFeatures
from gpt4roi_nb.capture.ablation import How
from gpt4roi_nb.prompt import DEFAULT_QUESTION
from gpt4roi_nb.session.export import image_address
from gpt4roi_nb.session.references import readable
from gpt4roi_nb.session.region_model import needs_gpt4roi
from gpt4roi_nb.widgets.colormaps import SHARES, SIGNED, color_table
from gpt4roi_nb.widgets.display_image import display_image
from gpt4roi_nb.widgets.esm import module, style
from gpt4roi_nb.widgets.region_canvas import ADDED_SHARE, RegionCanvas
from gpt4roi_nb.widgets.roi_data import COLORINGS, bars, box_rows, image_rows, similarity_to_place
from gpt4roi_nb.widgets.static_copy import StaticCopy
from gpt4roi_nb.widgets.static_page import StaticPage
from gpt4roi_nb.widgets.wire import float32_bytes, region_rows
from gpt4roi_nb.widgets.worker import Worker, WorkingView, problems_shown

HINT = "Draw a box, or move one, to see what it is made of."
# The ways to reduce a region token, and their names.
CONTROLS: dict[How, str] = {"position_only": "its position alone", "feature_only": "its features alone"}
# Topics of the worker's jobs.
_FEATURES, _CONTROL = "features", "control"
# Traits of the view while there is no box.
_NOTHING: dict[str, Any] = {
    "box_rows": [], "bars": [], "similarity": [], "summary": "Draw a box to see what it is made of.",
}  # fmt: skip
# Traits of the view, the features behind them, and what the image's maps depend on.
_Inside = tuple[dict[str, Any], RoIFeatures | None, tuple[Any, ...]]


class RoIView(WorkingView):
    """The inspector's page beside the image. It holds numbers; `RoIInspector` computes them.

    image, size: the shown image, and the size of the original in pixels. regions: [{"number", "color", "box"}].
    region: the number of the chosen one; 0 for none. coloring: of `roi_data.COLORINGS`.
    rows: in the frame of the image. box_rows: in the frame of the box. bars: [{"name", "share"}]. similarity: cosine of
    the token with that of each region. controls: [{"name", "said"}], the model's answers about the region, with its
    whole token and with parts of it. shares, signed: 256 × RGB. summary: a description. busy, problem: texts, "" for
    none.

    Messages from the browser: {"type": "region", "number"}, {"type": "coloring", "name"}, {"type": "control"},
    {"type": "similarity", "stage", "level", "row", "column"}: answered with the same and a float32 buffer (S, S).
    """

    _esm = module("map_canvas.js", "roi_inspector.js")
    _css = style("attention_inspector.css", "roi_inspector.css")

    image = traitlets.Bytes().tag(sync=True)
    size: traitlets.List[Any] = traitlets.List([1, 1]).tag(sync=True)
    regions: traitlets.List[Any] = traitlets.List().tag(sync=True)
    region = traitlets.Int(0).tag(sync=True)
    coloring = traitlets.Enum(tuple(COLORINGS), "norm").tag(sync=True)
    colorings: traitlets.List[Any] = traitlets.List([list(item) for item in COLORINGS.items()]).tag(sync=True)
    rows: traitlets.List[Any] = traitlets.List().tag(sync=True)
    box_rows: traitlets.List[Any] = traitlets.List().tag(sync=True)
    bars: traitlets.List[Any] = traitlets.List().tag(sync=True)
    similarity: traitlets.List[Any] = traitlets.List().tag(sync=True)
    controls: traitlets.List[Any] = traitlets.List().tag(sync=True)
    question = traitlets.Unicode(DEFAULT_QUESTION).tag(sync=True)
    shares = traitlets.Bytes().tag(sync=True)
    signed = traitlets.Bytes().tag(sync=True)
    summary = traitlets.Unicode().tag(sync=True)


class RoIInspector:
    """What a region is made of. Show it as the last line of a cell; move the box, and everything follows.

    The features are computed in the background, and shown when they are ready; `features` waits for them. The session's
    conversation does not change: boxes here are only for inspection. A saved notebook contains the image with its boxes
    and what is said about the region, as HTML, readable without a kernel; its maps need one.

    Args:
        session: a `RegionSession`.
        boxes: (N, 4) pixel xyxy in the original image; None takes the session's regions, or a box in the middle.
        region: number of the region to begin with, from 1.
        question: asked for the position-only control; it names <region1>.

    Raises:
        ValueError: bad boxes, or there is no such region.
        TypeError: the session's model is not a GPT4RoI, and so pools no features of a region.

    Example:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> from gpt4roi_nb.widgets import RoIInspector
        >>> scene = make_scene(5)
        >>> session = GPT4RoI.from_pretrained().session(scene.image)
        >>> inspector = RoIInspector(session, [scene.objects[0].box])  # as the last line of a cell: the view
        >>> len(inspector.features.boxes), len(inspector.features.fused_maps) == len(inspector.features.levels)
        (1, True)
        >>> inspector.close()
    """

    def __init__(
        self,
        session: RegionSession,
        boxes: ArrayLike | None = None,
        *,
        region: int = 1,
        question: str = DEFAULT_QUESTION,
    ) -> None:
        needs_gpt4roi(getattr(session, "loaded", None), "RoIInspector")
        self.session = session
        shown = display_image(session.image)
        self.view = RoIView(
            image=shown.data,
            size=list(session.image.size),
            question=question,
            shares=color_table(SHARES),
            signed=color_table(SIGNED),
        )
        self._features: RoIFeatures | None = None
        self._shown: tuple[Any, ...] = ()  # what the shown maps of the image depend on
        self._controlled: Box | None = None  # the box that the model was asked about
        self._worker = Worker(self.view)
        self._copy = StaticCopy("gpt4roi-roi-inspector", self._to_read)
        self.view.observe(lambda change: self._copy.changed(self._said()), ["regions", "summary", "bars", "controls"])
        self._places: dict[int, Box] = {}  # of the regions when they were last seen, by key
        self.canvas = RegionCanvas()
        # An empty notice would show a chat's hint, to draw what one wants to ask about.
        self.canvas.table.observe(lambda change: self._hint(), "notice")
        self._hint()
        self.canvas.set_image(session.image)
        given = [known.box for known in session.regions] if boxes is None else checked_boxes(boxes, *session.image.size)
        chosen = given or [_middle(*session.image.size)]
        if not 1 <= region <= len(chosen):
            raise ValueError(f"there is no region {region}; there are {len(chosen)}, numbered from 1")
        self.view.region = region
        self.canvas.set_boxes(chosen)
        self._update()
        self.canvas.on_change = self._follow
        self.canvas.bbox.observe(lambda change: self._select(), "selected_index")
        self.view.on_msg(self._on_message)
        self.canvas.widget.layout.width = "auto"
        inside = VBox([self.view])
        inside.add_class("gpt4roi-talk")
        self.widget = HBox([self.canvas.widget, inside])
        self.widget.add_class("gpt4roi-sides")
        self.widget.add_class("gpt4roi-roi-inspector")

    def _ipython_display_(self) -> None:
        self._copy.show(self.widget, "A RoIInspector")

    @property
    def features(self) -> RoIFeatures | None:
        """The features of the boxes, after waiting for their computation; None if there was no box yet."""
        self._worker.wait()
        return self._features

    def set_boxes(self, boxes: ArrayLike) -> None:
        """Replace the boxes: (N, 4) pixel xyxy in the original image. Raises ValueError for bad boxes."""
        self.canvas.set_boxes(boxes)

    def show(self, region: int | None = None, coloring: str | None = None) -> None:
        """Choose a region or a coloring, as clicks do.

        Args:
            region: its number, from 1.
            coloring: a key of `roi_data.COLORINGS`.

        Raises:
            ValueError: there is no such region or coloring.
        """
        if region is not None and region not in [known.number for known in self.canvas.regions]:
            raise ValueError(f"there is no region {region}; there are {len(self.canvas.regions)}, numbered from 1")
        if coloring is not None and coloring not in COLORINGS:
            raise ValueError(f"expected coloring to be one of {', '.join(COLORINGS)}, but got {coloring!r}")
        self.view.region = region or self.view.region
        self.view.coloring = coloring or self.view.coloring
        self._update()

    def close(self) -> None:
        """Remove the inspector from the page; results of running computations are discarded."""
        self._copy.close()
        self._worker.close()
        self.widget.close()

    # ------------------------------------------------------------------------------------------ what shows

    def _hint(self) -> None:
        self.canvas.table.notice = self.canvas.table.notice or HINT

    def _follow(self) -> None:
        """Show the region that was drawn or moved; otherwise the same one as before, whatever its number is now."""
        regions, before = self.canvas.regions, self._places
        moved = [region.key for region in regions if before.get(region.key) != region.box]
        looked_at = [*before][self.view.region - 1] if 0 < self.view.region <= len(before) else None
        self._look_into(moved[0] if len(moved) == 1 else looked_at)  # Python may have moved several
        self._update()

    def _select(self) -> None:
        """Show the region that was clicked on."""
        boxes, index = self.canvas.bbox.bboxes, self.canvas.bbox.selected_index
        number = self.view.region
        if 0 <= index < len(boxes):
            self._look_into(boxes[index].get("key"))
        if self.view.region != number:
            self._update()

    def _look_into(self, key: int | None) -> None:
        """Choose the region with this key, if there is one."""
        numbers = {region.key: region.number for region in self.canvas.regions}
        self.view.region = numbers.get(key, self.view.region) if key is not None else self.view.region

    def _update(self) -> None:
        """Show the features for the boxes, the chosen region and the coloring; unchanged parts are not sent."""
        view, regions = self.view, self.canvas.regions
        boxes = [region.box for region in regions]
        with self._worker.lock, view.hold_sync():
            view.problem = ""
            self._places = {region.key: region.box for region in regions}
            view.regions = region_rows((region.number, region.box) for region in regions)
            view.region = min(max(view.region, 1), len(boxes))
            if not boxes or boxes[view.region - 1] != self._controlled:
                self._worker.drop(_CONTROL)
                view.controls, self._controlled = [], None
            index, coloring = view.region - 1, view.coloring
        self._worker.drop(_FEATURES)
        self._worker.submit(
            "Computing the region’s features…",
            lambda: self._inside(boxes, index, coloring) if boxes else ({**_NOTHING}, self._features, self._shown),
            self._show_inside,
            topic=_FEATURES,
        )

    def _inside(self, boxes: list[Box], index: int, coloring: str) -> _Inside:
        """Compute everything to show about the region with this index, in the worker."""
        with self.session.hold_weights():  # the parts of a region token must come from the weights that made it
            features = self.session.roi_features(boxes, rounds=True)
            parts = bars(features, index)
        traits: dict[str, Any] = {
            "box_rows": box_rows(features, index, coloring),
            "bars": parts,
            "similarity": [round(float(value), 4) for value in features.similarity()[index]],
            "summary": _words(index + 1, boxes[index], parts, features),
        }
        # The image's maps depend on a box only if they are coloured by similarity to it.
        shown = (coloring, boxes[index] if coloring == "similarity" else None, features.weights_version)
        if shown != self._shown:
            traits["rows"] = image_rows(features, index, coloring)
        return traits, features, shown

    def _show_inside(self, inside: _Inside) -> None:
        traits, self._features, self._shown = inside
        with self.view.hold_sync():
            for name, value in traits.items():
                setattr(self.view, name, value)

    # --------------------------------------------------------------------------------------- a saved notebook

    def _said(self) -> tuple[Any, ...]:
        """What the copy for a saved notebook depends on."""
        view = self.view
        return tuple(map(str, (view.regions, view.summary, view.bars, view.similarity, view.controls)))

    def _to_read(self) -> tuple[str, str]:
        """The image with its boxes, and what is said about the chosen region, as HTML and as text."""
        view, page = self.view, StaticPage()
        page.image(
            image_address(self.session.image, [region["box"] for region in view.regions]), "The image and its boxes"
        )
        page.say(view.summary)
        page.heading("What the token is made of")
        page.table((part["name"], f"{100 * part['share']:.1f} %") for part in view.bars)
        if view.controls:
            page.heading(view.question.replace("<region1>", f"region {view.region}"))
            page.table((control["name"], control["said"]) for control in view.controls)
        if len(view.similarity) > 1:
            page.heading("How similar the regions’ tokens are")
            known = zip(view.regions, view.similarity, strict=False)
            page.table((f"region {region['number']}", f"cosine {value:.3f}") for region, value in known)
        return page.both()

    # -------------------------------------------------------------------------------------- from the browser

    def _on_message(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        kind = content.get("type")
        with problems_shown(self.view):
            if kind == "region":
                self.show(region=int(content["number"]))
            elif kind == "coloring":
                self.show(coloring=str(content["name"]))
            elif kind == "control":
                self._control()
            elif kind == "similarity" and self._features is not None:
                place = [int(content[name]) for name in ("stage", "level", "row", "column")]
                self.view.send(content, [float32_bytes(similarity_to_place(self._features, *place))])

    def _control(self) -> None:
        """Ask the model about the region with its whole token, its position alone, and its features alone."""
        with self._worker.lock:
            number = self.view.region
            box = self.canvas.regions[number - 1].box
            self.view.problem, self.view.controls, self._controlled = "", [], box
            self._worker.drop(_CONTROL)
            self._worker.submit(
                "Asking the model…", lambda: self._ask(box, number), self._show_controls, topic=_CONTROL
            )

    def _ask(self, box: Box, number: int) -> list[dict[str, str]]:
        """Ask the model, in the worker; stops early if the box moves. number: of the region for the reader."""
        (answer,) = self.session.describe([box], self.view.question, progress=False)
        texts = {"the whole region token": answer.text}
        for how, name in CONTROLS.items():
            if self._controlled != box:
                break
            texts[name] = answer.ablate(region=1, how=how).answer or ""
        # The model knows the region as region1.
        return [{"name": name, "said": readable(text, {1: number})} for name, text in texts.items()]

    def _show_controls(self, said: list[dict[str, str]]) -> None:
        self.view.controls = said


def _middle(width: int, height: int) -> Box:
    x, y = width * (1 - ADDED_SHARE) / 2, height * (1 - ADDED_SHARE) / 2
    return x, y, width - x, height - y


def _words(number: int, box: Any, parts: list[dict[str, Any]], features: RoIFeatures) -> str:
    x1, y1, x2, y2 = (round(edge) for edge in box)
    most = max(parts, key=lambda part: part["share"])
    shares = ", ".join(f"{part['name']} {100 * part['share']:.0f} %" for part in parts)
    norm = float(features.tokens[number - 1].norm())
    return (
        f"Region {number} is {x2 - x1} × {y2 - y1} pixels at ({x1}, {y1}). Its token has length {norm:.3g}, most of it "
        f"along {most['name']}: {shares}."
    )
