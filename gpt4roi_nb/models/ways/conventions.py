"""How each family of models writes a box: one table, with the source of every row.

A wrong order or frame raises no error: the model answers about whatever lies there. So everything that a row decides is
stated here and nowhere else, and a row that no real weights have confirmed says so wherever it is shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gpt4roi_nb.boxes import Box

Frame = Literal["original", "resized", "padded"]
Order = Literal["xyxy", "yxyx"]
Rounding = Literal["floor", "round"]
Size = tuple[int, int]  # (width, height) in pixels

UNVERIFIED = "unverified: no real weights have confirmed it"
WORDS = {
    "original": "the original image",
    "resized": "the image as the model's processor resizes it",
    "padded": "the image padded to a square",
}
_ROUNDED = {"floor": "rounded down", "round": "rounded to the nearest"}


@dataclass(frozen=True)
class Convention:
    """How one family of models writes a box.

    Attributes:
        family: `model_type` of the family's configuration in transformers.
        way: the way of pointing that uses it: "text", or "native" where the form holds tokens of the model's own.
        form: the box in words, with `{0}` to `{3}` for the coordinates in their order, or `{0}` and `{1}` for the
            numbers of the two corner cells.
        source: where this was read.
        frame: of which image the coordinates are: the original, the one that the processor resizes to, or the original
            padded to a square on both sides.
        parts: into how many parts a side is divided; None counts pixels of the frame.
        last: the largest coordinate that is written; None sets no limit.
        order: of the coordinates.
        rounding: to whole numbers, or to `decimals`.
        digits: the least number of digits; shorter numbers get leading zeros.
        decimals: the most digits after the point; 0.80 is written 0.8.
        cells: `parts`, if a box is written as the numbers of its upper left and its lower right cell, counted row by
            row; None if it is written as coordinates.
        lead: a line that follows the question, once.
        verified: with which weights the row was confirmed; "" says that it was not.
    """

    family: str
    way: Literal["text", "native"]
    form: str
    source: str
    frame: Frame = "original"
    parts: int | None = None
    last: int | None = None
    order: Order = "xyxy"
    rounding: Rounding = "floor"
    digits: int = 0
    decimals: int = 0
    cells: int | None = None
    lead: str = ""
    verified: str = ""

    @property
    def status(self) -> str:
        """With which weights the row was confirmed, or that it was not."""
        return f"verified with {self.verified}" if self.verified else UNVERIFIED

    @property
    def summary(self) -> str:
        """Scale, digits, rounding, order and frame in one line, for a card."""
        digits = f" in {self.digits} digits" if self.digits else ""
        frame = f"of {WORDS[self.frame]}"
        if self.cells:
            grid = f"a grid of {self.cells} × {self.cells}, counted row by row"
            return f"numbers{digits} of the upper left and the lower right cell in {grid}, {frame}"
        if self.parts is None:
            scale = "pixels"
        elif self.parts == 1:
            scale = f"0 to 1 in {self.decimals} decimals"
        else:
            scale = f"0 to {self.parts if self.last is None else self.last}"
        order = "y before x" if self.order == "yxyx" else "x before y"
        return f"{scale}{digits}, {_ROUNDED[self.rounding]}, {order}, {frame}"

    def write(self, box: Box, size: Size, resized: Size | None = None) -> str:
        """Write a box as the family does.

        Args:
            box: pixel xyxy in the original image, checked.
            size: (width, height) of the original image.
            resized: (width, height) to which the processor resizes it; needed where `frame` is "resized".

        Raises:
            ValueError: if `resized` is needed and was not given.

        Examples:
            >>> from gpt4roi_nb.models import CONVENTIONS
            >>> CONVENTIONS["paligemma"].write((32, 16, 64, 48), (64, 64))
            '<loc0256><loc0512><loc0767><loc1023>'
            >>> CONVENTIONS["qwen2_5_vl"].write((32, 16, 64, 48), (64, 64), resized=(112, 112))
            '[56, 28, 112, 84]'
        """
        corners = self._in_order(self._scaled(box, size, resized))
        if self.cells:
            return self.form.format(*map(self._number, self._corner_cells(corners, self.cells)))
        return self.form.format(*map(self._number, corners))

    def _scaled(self, box: Box, size: Size, resized: Size | None) -> list[float]:
        """x1, y1, x2, y2 in the row's unit, not rounded."""
        width, height = size
        values = [float(value) for value in box]
        if self.frame == "padded":
            side = max(size)
            values = [
                value + (side - extent) / 2
                for value, extent in zip(values, (width, height, width, height), strict=True)
            ]
            width = height = side
        if self.frame == "resized":
            if resized is None:
                raise ValueError(
                    f"{self.family} takes pixels of the resized image, but its size was not given; give "
                    "resized=(width, height)"
                )
            values = [
                value * new / old for value, new, old in zip(values, (*resized, *resized), (*size, *size), strict=True)
            ]
            width, height = resized
        if self.parts is None:
            return values
        return [value * self.parts / side for value, side in zip(values, (width, height, width, height), strict=True)]

    def _in_order(self, values: list[float]) -> list[float]:
        x1, y1, x2, y2 = values
        return [y1, x1, y2, x2] if self.order == "yxyx" else values

    def _number(self, value: float) -> str:
        if self.decimals:
            return str(round(value, self.decimals))
        rounded = math.floor(value) if self.rounding == "floor" else round(value)
        if self.last is not None:
            rounded = min(rounded, self.last)
        return f"{max(rounded, 0):0{self.digits}d}"

    def _corner_cells(self, corners: list[float], cells: int) -> tuple[int, int]:
        """Numbers of the cells that hold the upper left and the lower right corner, given in cells."""
        x1, y1, x2, y2 = corners
        # A box that ends on the edge between two cells lies in the first.
        first = (min(math.floor(x1), cells - 1), min(math.floor(y1), cells - 1))
        last = (max(math.ceil(x2) - 1, first[0]), max(math.ceil(y2) - 1, first[1]))
        return first[1] * cells + first[0], last[1] * cells + last[0]


def _thousandths(family: str, source: str, form: str = "[{0}, {1}, {2}, {3}]") -> Convention:
    return Convention(family, "text", form, source, parts=1000, rounding="round")


_ROWS = (
    _thousandths("qwen2_vl", "arXiv 2409.12191, section 2.2; QwenLM/Qwen3-VL issues 676 and 866"),
    Convention("qwen2_5_vl", "text", "[{0}, {1}, {2}, {3}]", "QwenLM/Qwen3-VL issues 782, 866 and 1126",
               frame="resized", rounding="round"),
    _thousandths("qwen3_vl", "QwenLM/Qwen3-VL issues 1427, 1486 and 1927"),
    _thousandths("qwen3_vl_moe", "QwenLM/Qwen3-VL issues 1427, 1486 and 1927"),
    _thousandths("qwen3_5", "as Qwen3-VL (its users)"),
    _thousandths("qwen3_5_moe", "as Qwen3-VL (its users)"),
    Convention("kosmos-2", "native", "<object><patch_index_{0}><patch_index_{1}></object>",
               "transformers, processing_kosmos2.py; card of microsoft/kosmos-2-patch14-224",
               parts=32, digits=4, cells=32),
    Convention("florence2", "native", "<loc_{0}><loc_{1}><loc_{2}><loc_{3}>",
               "transformers, processing_florence2.py (quantize)", parts=1000, last=999),
    Convention("paligemma", "native", "<loc{0}><loc{1}><loc{2}><loc{3}>",
               "arXiv 2407.07726; google-research/big_vision, pp/proj/paligemma/segmentation.py (binned_loc)",
               parts=1023, last=1023, order="yxyx", rounding="round", digits=4),
    Convention("perception_lm", "text", "[{0},{1},{2},{3}]",
               "facebookresearch/perception_models, core/transforms/region_transform.py; notebook image_grounding",
               parts=1000, last=999, digits=3, lead="The region is in the format of [x1, y1, x2, y2]."),
    Convention("video_llama_3", "text", "[{0}, {1}, {2}, {3}]",
               "DAMO-NLP-SG/VideoLLaMA3, inference/notebooks/03_visual_referring_and_grounding.ipynb",
               parts=1000, last=1000),
    _thousandths("internvl", "OpenGVLab/InternVL issue 710 (of answers; rounding is not stated)",
                 "<box>[[{0}, {1}, {2}, {3}]]</box>"),
    Convention("llava", "text", "[{0}, {1}, {2}, {3}]",
               "WisconsinAIVision/ViP-LLaVA issue 23, haotian-liu/LLaVA issue 606 (its users)",
               frame="padded", parts=1, rounding="round", decimals=2),
)  # fmt: skip

# By `model_type`. Families that are not listed get a box as a drawing or a crop.
CONVENTIONS: dict[str, Convention] = {row.family: row for row in _ROWS}
