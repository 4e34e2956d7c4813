"""The image to draw regions on: jupyter-bbox-widget, with corrections for its misbehaviour.

The box widget sends whatever the mouse did: 0×0 boxes from plain clicks, boxes outside the image, relabelled boxes.
Here they become numbered regions inside the image, and regions that were asked about stay where they are.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from ipywidgets import VBox
from jupyter_bbox_widget import BBoxWidget
from numpy.typing import ArrayLike
from PIL import Image

from gpt4roi_nb.boxes import Box, checked_boxes, from_bbox_widget, to_bbox_widget
from gpt4roi_nb.draw import REGION_COLORS, region_color
from gpt4roi_nb.widgets.box_files import read_boxes
from gpt4roi_nb.widgets.display_image import display_image, drawing_url
from gpt4roi_nb.widgets.errors import in_words
from gpt4roi_nb.widgets.esm import module
from gpt4roi_nb.widgets.regions import DrawnRegion, RegionBook
from gpt4roi_nb.widgets.wire import MAX_UPLOAD_BYTES

_HERE = Path(__file__).parent
# The box widget colors a box by the index of its label in this list, and forgets its label when the list changes. So
# it gets a fixed list, longer than anybody draws by hand; further boxes are drawn in the first color.
_LABELS = [f"region{number}" for number in range(1, 201)]
# The largest height of a shown image, so that image and question line fit on a laptop's screen together.
MAX_SHOWN_HEIGHT = 560
MAX_SHOWN_WIDTH = 680
MIN_SHOWN_WIDTH = 160
# The region that "Add a region" puts in the middle, for people who do not draw, as shares of the image's sides.
ADDED_SHARE = 0.25

_FIXED = (
    "Region {0} has been asked about and cannot change, so that “region {0}” keeps its meaning. Draw a new one instead."
)
_MOVED = "Region {0} was moved; Ctrl+Z moves it back. To draw a new one within it, hold Shift."
_CLEARED = "Ctrl+Z brings the regions back."
_TOO_SMALL = "This box is smaller than one pixel of the image, and was not kept."


class RegionTable(anywidget.AnyWidget):
    """The controls below the image: zoom, and the regions as names and numbers. In the browser it also corrects the box
    widget's behaviour, and draws the labels.

    regions: [{"number", "color", "box": [x1, y1, x2, y2] whole pixels of the original image, "asked", "key", "name"}].
    notice: a sentence for the user. width, height: of the original image, in pixels. fineness: pixels of the image that
        was sent per pixel of the original, along a side. inspectable: whether each region has a button to look inside
        it. max_bytes: of a file with boxes.
    box_widget: the box widget above the table, by its name in the browser. heard: the browser's time of the latest
        mouse release that the kernel knows of; boxes that the kernel sends afterwards are up to date.

    Messages from the browser: {"type": "pressed"}, {"type": "released", "at", "drawn", "boxes"}, {"type": "add"},
    {"type": "box", "key", "box"}, {"type": "name", "key", "name"}, {"type": "remove", "key"}, {"type": "clear"},
    {"type": "undo"}, {"type": "boxes", "name", "text"}: a file, {"type": "locked", "region"}, {"type": "inspect",
    "key"}, and {"type": "view", "box"}: the visible part, answered with {"type": "detail", "box"} and an image file as
    a buffer. drawn: whether the mouse drew a new box.
    """

    _esm = module("zoom.js", "box_labels.js", "box_editing.js", "region_canvas.js")
    _css = _HERE / "region_canvas.css"

    regions: traitlets.List[Any] = traitlets.List().tag(sync=True)
    notice = traitlets.Unicode().tag(sync=True)
    width = traitlets.Int(1).tag(sync=True)
    height = traitlets.Int(1).tag(sync=True)
    fineness = traitlets.Float(1.0).tag(sync=True)
    max_bytes = traitlets.Int(MAX_UPLOAD_BYTES).tag(sync=True)
    inspectable = traitlets.Bool(False).tag(sync=True)
    box_widget = traitlets.Unicode().tag(sync=True)
    heard = traitlets.Float().tag(sync=True)


class RegionCanvas:
    """The image and its regions. `widget` is what the notebook shows.

    Args:
        on_change: called without arguments whenever the regions have changed.
        on_inspect: called with a region's number when somebody wants to look inside it; None shows no button for it.
    """

    def __init__(
        self, on_change: Callable[[], None] | None = None, on_inspect: Callable[[int], None] | None = None
    ) -> None:
        self.book = RegionBook()
        self.bbox = BBoxWidget(classes=_LABELS, colors=list(REGION_COLORS), hide_buttons=True)
        self.table = RegionTable(inspectable=on_inspect is not None, box_widget=f"IPY_MODEL_{self.bbox.model_id}")
        self.widget = VBox([self.bbox, self.table])
        self.widget.add_class("gpt4roi-canvas")
        self.on_change = on_change
        self._on_inspect = on_inspect
        self._image: tuple[int, int] = (1, 1)
        self._pixels: Image.Image | None = None
        self._scale = 1  # pixels of the box widget per pixel of the original
        self._sent: dict[int, dict[str, Any]] = {}
        self._past: list[tuple[DrawnRegion, ...]] = []  # the new regions before each change by hand
        self._dragging = False
        self._pressed_with = 0  # regions on the image
        self._pushing = False
        # The user draws in the kernel's main thread while a worker may lock the regions of an answer.
        self._lock = threading.RLock()
        self.bbox.observe(self._on_bboxes, names="bboxes")
        self.table.on_msg(self._on_message)

    @property
    def regions(self) -> tuple[DrawnRegion, ...]:
        """The regions on the image, by number."""
        return self.book.regions

    def set_image(self, image: Image.Image, regions: Sequence[DrawnRegion] = ()) -> None:
        """Show another image (upright RGB), with regions that were on it before."""
        with self._lock:
            self.book.restore(regions)
            self._past.clear()
            self._image = image.size
            self._pixels = image
            shown = display_image(image)
            url, self._scale = drawing_url(image, shown)
            self._dragging = False
            self._push()
            self.bbox.image_url = url
            self.table.notice = ""
            self.table.fineness = shown.scale
            self.table.width, self.table.height = image.size
            ratio = image.width / image.height
            width = max(min(MAX_SHOWN_WIDTH, MAX_SHOWN_HEIGHT * ratio), MIN_SHOWN_WIDTH)
            self.bbox.layout.max_width = f"{round(width)}px"
            self._changed()

    def set_boxes(self, boxes: ArrayLike, names: Sequence[str] | None = None) -> None:
        """Replace the regions that were not asked about.

        Args:
            boxes: (N, 4) pixel xyxy in the original image.
            names: N names that questions can use, "" for none.

        Raises:
            ValueError: bad boxes (see `gpt4roi_nb.boxes.check_boxes`) or names (see `RegionBook.rename`).
        """
        checked = checked_boxes(boxes, *self._image)
        with self._lock:
            self.book.set_new(checked, names)
            self._push()
            self._changed()

    def set_asked(self, boxes: Sequence[Box]) -> None:
        """Lock these regions, which are those of the conversation now."""
        with self._lock:
            if list(boxes) != [region.box for region in self.book.asked]:
                self._past.clear()  # what was new then is part of the conversation now, or the other way round
            self.book.set_asked(boxes)
            self._push()
            self._changed()

    def reorder(self, keys: Sequence[int]) -> None:
        """Number the regions that were not asked about in this order of their keys."""
        with self._lock:
            self.book.reorder(keys)
            self._push()
            self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    # ------------------------------------------------------------------------------------- to the browser

    def _push(self) -> None:
        """Show the regions. Nothing is sent while the mouse draws a box, which would interrupt the drawing."""
        regions = self.regions
        dicts = to_bbox_widget(
            [region.box for region in regions], [f"region{region.number}" for region in regions], self._scale
        )
        dicts = [{**entry, "key": region.key} for entry, region in zip(dicts, regions, strict=True)]
        self._sent = {entry["key"]: entry for entry in dicts}
        self.table.regions = [
            {
                "number": region.number,
                "color": region_color(region.number),
                "box": [round(edge) for edge in region.box],
                "asked": region.asked,
                "key": region.key,
                "name": region.name,
            }
            for region in regions
        ]
        if self._dragging:
            return
        self._pushing = True
        try:
            self.bbox.bboxes = dicts
            self.bbox.label = f"region{len(dicts) + 1}"  # the label of the next box while it is being drawn
        finally:
            self._pushing = False

    # ----------------------------------------------------------------------------------- from the browser

    def _on_bboxes(self, change: dict[str, Any]) -> None:
        """Handle the box widget's raw state, without trusting any of it."""
        with self._lock:
            if self._pushing:
                return
            if self._dragging and any(self._is_empty(entry) for entry in _entries(change["new"])):
                return  # the 0×0 box with which every drag begins, or one that a click has just left: see "released"
            self._dragging = False
            with self._by_hand():
                self._take(_entries(change["new"]))

    @contextmanager
    def _by_hand(self) -> Iterator[None]:
        """Remember the new regions for `_undo` if the block changes them."""
        before = self.book.new
        yield
        if self.book.new != before:
            self._past.append(before)

    def _undo(self) -> None:
        """Take back the last change by hand."""
        if self._past and not self._dragging:
            self.book.restore([*self.book.asked, *self._past.pop()])
            self.table.notice = ""
            self._push()
            self._changed()

    def _is_empty(self, entry: dict[str, Any]) -> bool:
        return entry.get("key") is None and self._read(entry) is None

    def _take(self, entries: list[dict[str, Any]]) -> None:
        before = self.regions
        # An entry at exactly a region's place is that region, sent before it had a key.
        keys = {_place(entry): key for key, entry in self._sent.items()}
        entries = [{"key": keys[_place(e)], **e} if _place(e) in keys else e for e in entries]
        by_key = {entry.get("key"): entry for entry in entries if entry.get("key") is not None}
        notice = ""
        for region in before:
            entry = by_key.get(region.key)
            if entry is not None and _place(entry) == _place(self._sent.get(region.key, {})):
                continue
            if region.asked:
                notice = _FIXED.format(region.number)
            elif entry is None:
                self.book.remove(region.key)
            elif (box := self._read(entry, self._sent.get(region.key))) is not None:
                if _size(entry) == _size(self._sent.get(region.key, {})):
                    notice = _MOVED.format(region.number)
                self.book.change(region.key, box)
        for entry in entries:
            if entry.get("key") is None and (box := self._read(entry)) is not None:
                self.book.add(box)
        if notice or self.regions != before:
            self.table.notice = notice
        self._push()
        if self.regions != before:
            self._changed()

    def _read(self, entry: dict[str, Any], before: dict[str, Any] | None = None) -> Box | None:
        """The box of a raw entry in the original image, or None if there is none."""
        if before is not None and _size(entry) == _size(before):
            # Pushed over the edge as a whole: it comes back as a whole.
            entry = {
                **entry,
                "x": min(max(entry["x"], 0), self._image[0] * self._scale - entry["width"]),
                "y": min(max(entry["y"], 0), self._image[1] * self._scale - entry["height"]),
            }
        boxes, _ = from_bbox_widget([entry], *self._image, self._scale)
        return tuple(boxes[0].tolist()) if len(boxes) else None

    def _on_message(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        """Handle a message of the table: fields, buttons, mouse presses and releases."""
        if content.get("type") == "inspect":
            number = next((region.number for region in self.regions if region.key == content["key"]), None)
            if number is not None and self._on_inspect is not None:
                self._on_inspect(number)
            return
        if content.get("type") == "undo":
            with self._lock:
                self._undo()
            return
        with self._lock, self._by_hand():
            kind = content.get("type")
            if kind == "pressed":
                self._dragging = True
                self._pressed_with = len(self.regions)
            elif kind == "released":
                self._dragging = False
                self.table.heard = max(content.get("at", 0.0), self.table.heard)
                entries = _entries(content.get("boxes", self.bbox.bboxes))
                if entries != list(self._sent.values()):
                    self._take(entries)
                if content.get("drawn") and len(self.regions) <= self._pressed_with:
                    self.table.notice = _TOO_SMALL
                # Sent again even if nothing changed: while the mouse was down, the browser did not listen.
                self.bbox.send_state("bboxes")
            elif kind == "add":
                width, height = self._image
                left, top = width * (1 - ADDED_SHARE) / 2, height * (1 - ADDED_SHARE) / 2
                self._edit(None, {"x": left, "y": top, "width": width - 2 * left, "height": height - 2 * top})
            elif kind == "box" and None in content["box"]:
                self._refuse("A region needs all four numbers; the old ones were restored.")
            elif kind == "box":
                x1, y1, x2, y2 = content["box"]
                self._edit(content["key"], {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1})
            elif kind == "name":
                self._rename(content["key"], str(content["name"]))
            elif kind == "remove":
                self._edit(content["key"], None)
            elif kind == "clear":
                self.table.notice = _CLEARED
                self.set_boxes([])
            elif kind == "boxes":
                self._load(str(content["name"]), str(content["text"]))
            elif kind == "locked":
                self.table.notice = _FIXED.format(int(content["region"]))
            elif kind == "view":
                self._send_detail(content["box"])

    def _edit(self, key: int | None, entry: dict[str, Any] | None) -> None:
        """Apply a change in the number fields, in pixels of the original image; entry=None removes the region."""
        region = next((region for region in self.book.new if region.key == key), None)
        if key is not None and region is None:
            return  # it was asked about, or removed, in the meantime
        boxes, _ = from_bbox_widget([entry] if entry else [], *self._image)
        if region is None and len(boxes):
            self.book.add(tuple(boxes[0].tolist()))
        elif region is not None and entry is None:
            self.book.remove(region.key)
        elif region is not None and len(boxes):
            self.book.change(region.key, tuple(boxes[0].tolist()))
        else:
            self._refuse("A region must cover at least one pixel of the image; the old numbers were restored.")
            return
        self.table.notice = ""
        self._push()
        self._changed()

    def _refuse(self, words: str) -> None:
        """Say why something was not done, and reset the fields to the true values."""
        self.table.notice = words
        self.table.send({"type": "refresh"})

    def _rename(self, key: int, name: str) -> None:
        try:
            self.book.rename(key, name)
        except ValueError as error:
            self._refuse(in_words(error))
            return
        given = next((region.name for region in self.regions if region.key == key), "")
        self.table.notice = f"Questions can now call it “{given}”." if given else ""
        self._push()

    def _load(self, file: str, text: str) -> None:
        """Replace the regions that were not asked about with the boxes of a file."""
        try:
            found = read_boxes(text, *self._image)
            self.set_boxes(found.boxes, found.names)
        except ValueError as error:
            self._refuse(f"{file}: {in_words(error)}")
            return
        was = "was" if found.left_out == 1 else "were"
        left_out = f"; {found.left_out} more {was} left out" if found.left_out else ""
        count = f"{len(found.boxes)} box" + ("es" if len(found.boxes) > 1 else "")
        self.table.notice = f"{count} from {file}{left_out}."

    def _send_detail(self, view: Sequence[float]) -> None:
        """Send the visible part of the image, as fine as a screen can show it. view: pixel xyxy in the original."""
        if self._pixels is None:
            return
        width, height = self._image
        left, top = max(math.floor(view[0]), 0), max(math.floor(view[1]), 0)
        right, bottom = min(math.ceil(view[2]), width), min(math.ceil(view[3]), height)
        if left < right and top < bottom:
            shown = display_image(self._pixels.crop((left, top, right, bottom)))
            self.table.send({"type": "detail", "box": [left, top, right, bottom]}, [shown.data])


def _entries(raw: Sequence[Any]) -> list[dict[str, Any]]:
    return [entry for entry in raw if isinstance(entry, dict)]


def _size(entry: dict[str, Any]) -> tuple[Any, ...]:
    return entry.get("width"), entry.get("height")


def _place(entry: dict[str, Any]) -> tuple[Any, ...]:
    return (entry.get("x"), entry.get("y"), *_size(entry))
