"""`RoIInspector`: what a region is made of, from the tower's hidden states to its one token, while its box moves."""

from __future__ import annotations

import time
from typing import Any

import anywidget
import numpy as np
import traitlets
from ipywidgets import HBox, VBox
from numpy.typing import ArrayLike

from gpt4roi_nb import RegionSession
from gpt4roi_nb.boxes import check_boxes
from gpt4roi_nb.capture import RoIFeatures
from gpt4roi_nb.capture.ablation import How
from gpt4roi_nb.draw import region_color
from gpt4roi_nb.widgets.colormaps import SHARES, SIGNED, color_table
from gpt4roi_nb.widgets.display_image import display_image
from gpt4roi_nb.widgets.errors import in_words, strip_traceback
from gpt4roi_nb.widgets.esm import module
from gpt4roi_nb.widgets.region_canvas import ADDED_SHARE, RegionCanvas
from gpt4roi_nb.widgets.roi_data import COLORINGS, bars, box_rows, image_rows, likeness

QUESTION = "What is <region1>?"
# What a region token is cut down to, and how that is called.
CONTROLS: dict[How, str] = {"position_only": "its position alone", "feature_only": "its features alone"}


class RoIView(anywidget.AnyWidget):
    """The inspector's page beside the picture. Holds numbers; what is computed is `RoIInspector`'s business.

    image, size: picture, and size of the original in pixels. regions: [{"number", "color", "box"}].
    region: the number of the one that is looked at; 0 without any. coloring: of `roi_data.COLORINGS`.
    rows: in the picture's frame. box_rows: in the box's. bars: [{"name", "share"}]. likeness: cosine of the token with
    that of each region. controls: [{"name", "said"}], what the model says of the region, and of parts of it.
    shares, signed: 256 × RGB. summary: what is seen, in words. problem: what went wrong.

    Messages from the browser: {"type": "region", "number"}, {"type": "coloring", "name"}, {"type": "control"},
    {"type": "like", "stage", "level", "row", "column"}, which is answered with the same and a float32 buffer (S, S).
    """

    _esm = module("map_canvas.js", "roi_inspector.js")
    _css = module("attention_inspector.css", "roi_inspector.css")

    image = traitlets.Bytes().tag(sync=True)
    size: traitlets.List[Any] = traitlets.List([1, 1]).tag(sync=True)
    regions: traitlets.List[Any] = traitlets.List().tag(sync=True)
    region = traitlets.Int(0).tag(sync=True)
    coloring = traitlets.Enum(tuple(COLORINGS), "norm").tag(sync=True)
    colorings: traitlets.List[Any] = traitlets.List([list(item) for item in COLORINGS.items()]).tag(sync=True)
    rows: traitlets.List[Any] = traitlets.List().tag(sync=True)
    box_rows: traitlets.List[Any] = traitlets.List().tag(sync=True)
    bars: traitlets.List[Any] = traitlets.List().tag(sync=True)
    likeness: traitlets.List[Any] = traitlets.List().tag(sync=True)
    controls: traitlets.List[Any] = traitlets.List().tag(sync=True)
    question = traitlets.Unicode(QUESTION).tag(sync=True)
    shares = traitlets.Bytes().tag(sync=True)
    signed = traitlets.Bytes().tag(sync=True)
    summary = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)


class RoIInspector:
    """What a region holds. Show it as the last line of a cell; move the box, and everything follows.

    The session's conversation stays as it is: boxes here are for looking only.

    Args:
        session: a `RegionSession`.
        boxes: (N, 4) pixel xyxy in the original image; None takes the session's regions, or one in the middle.
        region: number of the one to begin with, from 1.
        question: what the model is asked for the position-only control; it names <region1>.

    Raises:
        ValueError: for bad boxes, or a region that there is not.
    """

    def __init__(
        self,
        session: RegionSession,
        boxes: ArrayLike | None = None,
        *,
        region: int = 1,
        question: str = QUESTION,
    ) -> None:
        self.session = session
        picture = display_image(session.image)
        self.view = RoIView(
            image=picture.data,
            size=list(session.image.size),
            question=question,
            shares=color_table(SHARES),
            signed=color_table(SIGNED),
        )
        self.features: RoIFeatures | None = None
        self.update_seconds = 0.0  # of the last update, for a move of the box
        self._shown: tuple[Any, ...] = ()  # what the picture's maps depend on, as they are shown
        self._controlled: Any = None  # the box that the model was asked about
        self.canvas = RegionCanvas()
        self.canvas.set_image(session.image)
        given = [known.box for known in session.regions] if boxes is None else check_boxes(boxes, *session.image.size)
        chosen = [tuple(map(float, box)) for box in given] or [_middle(*session.image.size)]
        if not 1 <= region <= len(chosen):
            raise ValueError(f"there is no region {region}; there are {len(chosen)}, numbered from 1")
        self.view.region = region
        self.canvas.set_boxes(chosen)
        self._update()
        self.canvas.on_change = self._update
        self.view.on_msg(self._told)
        self.canvas.widget.layout.width = "auto"
        inside = VBox([self.view])
        inside.add_class("gpt4roi-talk")
        self.widget = HBox([self.canvas.widget, inside])
        self.widget.add_class("gpt4roi-sides")
        self.widget.add_class("gpt4roi-roi-inspector")

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget._repr_mimebundle_(**kwargs)

    def set_boxes(self, boxes: ArrayLike) -> None:
        """Moves the boxes: (N, 4) pixel xyxy in the original image."""
        self.canvas.set_boxes(boxes)

    def show(self, region: int | None = None, coloring: str | None = None) -> None:
        """Chooses a region by its number, or one of `COLORINGS`, as clicks do."""
        if region is not None and region not in [known.number for known in self.canvas.regions]:
            raise ValueError(f"there is no region {region}; there are {len(self.canvas.regions)}, numbered from 1")
        if coloring is not None and coloring not in COLORINGS:
            raise ValueError(f"expected coloring to be one of {', '.join(COLORINGS)}, but got {coloring!r}")
        self.view.region = region or self.view.region
        self.view.coloring = coloring or self.view.coloring
        self._update()

    def control(self) -> None:
        """Asks the model about the region as it is, and with its position or its features alone."""
        box = self.canvas.regions[self.view.region - 1].box
        (answer,) = self.session.describe([box], self.view.question, progress=False)
        said: list[dict[str, str | None]] = [{"name": "the whole region token", "said": answer.text}]
        for how, name in CONTROLS.items():
            said.append({"name": name, "said": answer.ablate(region=1, how=how).answer})
        self.view.controls, self._controlled = said, box

    def close(self) -> None:
        """Takes the inspector off the page."""
        self.widget.close()

    # ------------------------------------------------------------------------------------------ what shows

    def _update(self) -> None:
        """Computes what the boxes, the chosen region and the coloring ask for; what stays the same is not sent."""
        started = time.perf_counter()
        regions = self.canvas.regions
        view = self.view
        try:
            with view.hold_sync():
                view.problem = ""
                self._show_regions()
                if regions:
                    self._show_inside([region.box for region in regions])
        except Exception as error:  # noqa: BLE001  # a move of the mouse led here, and nobody else would see it
            view.problem = in_words(error)
            strip_traceback(error)
        self.update_seconds = time.perf_counter() - started

    def _show_regions(self) -> None:
        view, regions = self.view, self.canvas.regions
        view.regions = [
            {"number": region.number, "color": region_color(region.number), "box": list(region.box)}
            for region in regions
        ]
        view.region = min(max(view.region, 1), len(regions))
        if not regions:
            view.box_rows = view.bars = view.likeness = []
        if not regions or regions[view.region - 1].box != self._controlled:
            view.controls = []
        if not regions:
            view.summary = "Draw a box to see what it is made of."

    def _show_inside(self, boxes: list[Any]) -> None:
        view = self.view
        self.features = features = self.session.roi_features(boxes, rounds=True)
        region = view.region - 1
        # The picture's maps depend on a box only where they are coloured by likeness to it.
        shown = (view.coloring, boxes[region] if view.coloring == "similarity" else None)
        if shown != self._shown:
            view.rows, self._shown = image_rows(features, region, view.coloring), shown
        view.box_rows = box_rows(features, region, view.coloring)
        view.bars = bars(features, region)
        similar = features.similarity()[region]
        view.likeness = [round(float(value), 4) for value in similar]
        view.summary = _words(view.region, boxes[region], view.bars, features)

    # -------------------------------------------------------------------------------------- from the browser

    def _told(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        kind = content.get("type")
        try:
            if kind == "region":
                self.show(region=int(content["number"]))
            elif kind == "coloring":
                self.show(coloring=str(content["name"]))
            elif kind == "control":
                self.view.problem = ""
                self.control()
            elif kind == "like" and self.features is not None:
                place = [int(content[name]) for name in ("stage", "level", "row", "column")]
                values = np.ascontiguousarray(likeness(self.features, *place), dtype="<f4")
                self.view.send(content, [values.tobytes()])
        except Exception as error:  # noqa: BLE001  # nobody else would see what a click led to
            self.view.problem = in_words(error)
            strip_traceback(error)


def _middle(width: int, height: int) -> tuple[float, ...]:
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
