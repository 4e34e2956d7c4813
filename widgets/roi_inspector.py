"""`RoIInspector`: what a region is made of, from the tower's hidden states to its one token, while its box moves."""

from __future__ import annotations

from typing import Any

import traitlets
from ipywidgets import HBox, VBox
from numpy.typing import ArrayLike

from gpt4roi_nb import RegionSession
from gpt4roi_nb.boxes import Box, check_boxes
from gpt4roi_nb.capture import RoIFeatures
from gpt4roi_nb.capture.ablation import How
from gpt4roi_nb.prompt import DEFAULT_QUESTION
from gpt4roi_nb.widgets.colormaps import SHARES, SIGNED, color_table
from gpt4roi_nb.widgets.display_image import display_image
from gpt4roi_nb.widgets.esm import module
from gpt4roi_nb.widgets.region_canvas import ADDED_SHARE, RegionCanvas
from gpt4roi_nb.widgets.roi_data import COLORINGS, bars, box_rows, image_rows, similarity_to_place
from gpt4roi_nb.widgets.wire import float32_bytes, region_rows
from gpt4roi_nb.widgets.worker import Worker, WorkingView, problems_shown

HINT = "Draw a box, or move one, and see what it is made of."
# What a region token is cut down to, and how that is called.
CONTROLS: dict[How, str] = {"position_only": "its position alone", "feature_only": "its features alone"}
# Topics of the worker's jobs.
_FEATURES, _CONTROL = "features", "control"
# Traits of the view while there is no box.
_NOTHING: dict[str, Any] = {
    "box_rows": [], "bars": [], "similarity": [], "summary": "Draw a box to see what it is made of.",
}  # fmt: skip
# Traits of the view, the features behind them, and what the picture's maps depend on.
_Inside = tuple[dict[str, Any], RoIFeatures | None, tuple[Any, ...]]


class RoIView(WorkingView):
    """The inspector's page beside the picture. Holds numbers; what is computed is `RoIInspector`'s business.

    image, size: picture, and size of the original in pixels. regions: [{"number", "color", "box"}].
    region: the number of the one that is looked at; 0 without any. coloring: of `roi_data.COLORINGS`.
    rows: in the picture's frame. box_rows: in the box's. bars: [{"name", "share"}]. similarity: cosine of the token
    with that of each region. controls: [{"name", "said"}], what the model says of the region, and of parts of it.
    shares, signed: 256 × RGB. summary: what is seen. busy, problem: in words.

    Messages from the browser: {"type": "region", "number"}, {"type": "coloring", "name"}, {"type": "control"},
    {"type": "similarity", "stage", "level", "row", "column"}: answered with the same and a float32 buffer (S, S).
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
    similarity: traitlets.List[Any] = traitlets.List().tag(sync=True)
    controls: traitlets.List[Any] = traitlets.List().tag(sync=True)
    question = traitlets.Unicode(DEFAULT_QUESTION).tag(sync=True)
    shares = traitlets.Bytes().tag(sync=True)
    signed = traitlets.Bytes().tag(sync=True)
    summary = traitlets.Unicode().tag(sync=True)


class RoIInspector:
    """What a region holds. Show it as the last line of a cell; move the box, and everything follows.

    It is computed in the background, and shown as it comes; `features` waits for it.
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
        question: str = DEFAULT_QUESTION,
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
        self._features: RoIFeatures | None = None
        self._shown: tuple[Any, ...] = ()  # what the picture's maps depend on, as they are shown
        self._controlled: Box | None = None  # the box that the model was asked about
        self._worker = Worker(self.view)
        self._places: dict[int, Box] = {}  # of the regions that were seen last, by key
        self.canvas = RegionCanvas()
        # An empty notice is a chat's hint, to draw what one wants to ask about.
        self.canvas.table.observe(lambda change: self._hint(), "notice")
        self._hint()
        self.canvas.set_image(session.image)
        given = [known.box for known in session.regions] if boxes is None else check_boxes(boxes, *session.image.size)
        chosen = [tuple(map(float, box)) for box in given] or [_middle(*session.image.size)]
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

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget._repr_mimebundle_(**kwargs)

    @property
    def features(self) -> RoIFeatures | None:
        """What the boxes hold, when it has been computed; None where there was no box yet."""
        self._worker.wait()
        return self._features

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

    def close(self) -> None:
        """Takes the inspector off the page; what is being computed is not shown any more."""
        self._worker.close()
        self.widget.close()

    # ------------------------------------------------------------------------------------------ what shows

    def _hint(self) -> None:
        self.canvas.table.notice = self.canvas.table.notice or HINT

    def _follow(self) -> None:
        """Looks into the region that was drawn or moved; else on into the same, whatever its number is now."""
        regions, before = self.canvas.regions, self._places
        moved = [region.key for region in regions if before.get(region.key) != region.box]
        looked_at = [*before][self.view.region - 1] if 0 < self.view.region <= len(before) else None
        self._look_into(moved[0] if len(moved) == 1 else looked_at)  # Python may have moved several
        self._update()

    def _select(self) -> None:
        """Looks into the region that was clicked on."""
        boxes, index = self.canvas.bbox.bboxes, self.canvas.bbox.selected_index
        number = self.view.region
        if 0 <= index < len(boxes):
            self._look_into(boxes[index].get("key"))
        if self.view.region != number:
            self._update()

    def _look_into(self, key: int | None) -> None:
        """Chooses the region with a key, where there is one."""
        numbers = {region.key: region.number for region in self.canvas.regions}
        self.view.region = numbers.get(key, self.view.region) if key is not None else self.view.region

    def _update(self) -> None:
        """Shows what the boxes, the chosen region and the coloring ask for; what stays the same is not sent."""
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
        """In the worker: what there is to see of the region with this index."""
        with self.session.hold_weights():  # the parts of a region token are of the weights that made it
            features = self.session.roi_features(boxes, rounds=True)
            parts = bars(features, index)
        traits: dict[str, Any] = {
            "box_rows": box_rows(features, index, coloring),
            "bars": parts,
            "similarity": [round(float(value), 4) for value in features.similarity()[index]],
            "summary": _words(index + 1, boxes[index], parts, features),
        }
        # The picture's maps depend on a box only where they are coloured by similarity to it.
        shown = (coloring, boxes[index] if coloring == "similarity" else None, features.weights_version)
        if shown != self._shown:
            traits["rows"] = image_rows(features, index, coloring)
        return traits, features, shown

    def _show_inside(self, inside: _Inside) -> None:
        traits, self._features, self._shown = inside
        with self.view.hold_sync():
            for name, value in traits.items():
                setattr(self.view, name, value)

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
        """Asks the model about the region as it is, and with its position or its features alone."""
        with self._worker.lock:
            box = self.canvas.regions[self.view.region - 1].box
            self.view.problem, self.view.controls, self._controlled = "", [], box
            self._worker.drop(_CONTROL)
            self._worker.submit("Asking the model…", lambda: self._ask(box), self._show_controls, topic=_CONTROL)

    def _ask(self, box: Box) -> list[dict[str, str | None]]:
        """In the worker: the answers, as far as the box stays where it is."""
        (answer,) = self.session.describe([box], self.view.question, progress=False)
        said: list[dict[str, str | None]] = [{"name": "the whole region token", "said": answer.text}]
        for how, name in CONTROLS.items():
            if self._controlled != box:
                break
            said.append({"name": name, "said": answer.ablate(region=1, how=how).answer})
        return said

    def _show_controls(self, said: list[dict[str, str | None]]) -> None:
        self.view.controls = said


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
