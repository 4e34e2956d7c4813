"""An oracle in a model's place: it reads where a prompt or the pixels point, and answers from the generated world.

Everything here is written from the families' documents, not from the package: what the package writes must be read back
by somebody else's rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gpt4roi_nb.data.scenes.scene import make_scene

Box = tuple[float, float, float, float]
MARGINS = (90, 20)  # grey, left of and above the scene: so that no side, order or frame looks like another
SIZE = (500, 260)  # (width, height) of a world's image
RESIZED = (252, 140)  # and of the same as a processor might make it


@dataclass(frozen=True)
class World:
    """image: RGB; things: (name, box) of all that can be pointed at."""

    image: Image.Image
    things: tuple[tuple[str, Box], ...]

    @classmethod
    def of(cls, seed: int) -> World:
        scene = make_scene(seed, size=224)
        image = Image.new("RGB", SIZE, (90, 90, 90))
        image.paste(Image.fromarray(scene.image), MARGINS)
        dx, dy = MARGINS
        boxes = [(x1 + dx, y1 + dy, x2 + dx, y2 + dy) for x1, y1, x2, y2 in (thing.box for thing in scene.objects)]
        return cls(
            image,
            tuple(
                (f"{index}: {o.phrase}", box) for index, (o, box) in enumerate(zip(scene.objects, boxes, strict=True))
            ),
        )

    def named(self, box: Box) -> str:
        """The thing whose box is most like this one."""
        return max(self.things, key=lambda thing: iou(thing[1], box))[0]


def strip(tall: bool) -> World:
    """A long image with four things in shades of their own, at both ends and between; none is red."""
    boxes = [(10, 60, 90, 200), (250, 20, 370, 120), (560, 100, 700, 280), (800, 80, 895, 220)]
    shades = [(40, 60, 60), (120, 160, 160), (20, 90, 200), (60, 200, 90)]
    image = Image.new("RGB", (900, 300), (90, 90, 90))
    for box, shade in zip(boxes, shades, strict=True):
        image.paste(shade, box)
    if tall:
        image = image.transpose(Image.Transpose.TRANSPOSE)
        boxes = [(y1, x1, y2, x2) for x1, y1, x2, y2 in boxes]
    return World(image, tuple((str(shade), box) for shade, box in zip(shades, boxes, strict=True)))


def iou(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


# How each family's numbers are read: pattern of one box, and what it means in pixels of a (width, height) image, which
# the family's processor resizes to another.
Size = tuple[int, int]
Reading = Callable[[list[float], Size, Size], Box]
NUMBER = r"(\d+(?:\.\d+)?)"
LIST = rf"\[{NUMBER}, ?{NUMBER}, ?{NUMBER}, ?{NUMBER}\]"


def _of_a_side(parts: float) -> Reading:
    def read(values: list[float], size: Size, resized: Size) -> Box:
        (x1, y1, x2, y2), (width, height) = values, size
        return x1 * width / parts, y1 * height / parts, x2 * width / parts, y2 * height / parts

    return read


def _of_resized(values: list[float], size: Size, resized: Size) -> Box:
    (x1, y1, x2, y2), (width, height) = values, size
    across, down = width / resized[0], height / resized[1]
    return x1 * across, y1 * down, x2 * across, y2 * down


def _of_square(values: list[float], size: Size, resized: Size) -> Box:
    (x1, y1, x2, y2), (width, height) = values, size
    side = max(size)
    left, top = (side - width) / 2, (side - height) / 2
    return x1 * side - left, y1 * side - top, x2 * side - left, y2 * side - top


def _of_cells(values: list[float], size: Size, resized: Size) -> Box:
    first, last = map(int, values)
    across, down = size[0] / 32, size[1] / 32
    return first % 32 * across, first // 32 * down, (last % 32 + 1) * across, (last // 32 + 1) * down


def _y_first(values: list[float], size: Size, resized: Size) -> Box:
    y1, x1, y2, x2 = values
    return _of_a_side(1023)([x1, y1, x2, y2], size, resized)


READERS: dict[str, tuple[str, Reading]] = {
    "qwen2_vl": (LIST, _of_a_side(1000)),
    "qwen2_5_vl": (LIST, _of_resized),
    "qwen3_vl": (LIST, _of_a_side(1000)),
    "qwen3_vl_moe": (LIST, _of_a_side(1000)),
    "qwen3_5": (LIST, _of_a_side(1000)),
    "qwen3_5_moe": (LIST, _of_a_side(1000)),
    "kosmos-2": (r"<object><patch_index_(\d{4})><patch_index_(\d{4})></object>", _of_cells),
    "florence2": (r"<loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)>", _of_a_side(1000)),
    "paligemma": (r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>", _y_first),
    "perception_lm": (r"\[(\d{3}),(\d{3}),(\d{3}),(\d{3})\]", _of_a_side(1000)),
    "video_llama_3": (LIST, _of_a_side(1000)),
    "internvl": (rf"<box>\[{LIST}\]</box>", _of_a_side(1000)),
    "llava": (LIST, _of_square),
}


def read_boxes(text: str, family: str, size: Size, resized: Size = RESIZED) -> list[Box]:
    """The boxes that a text names, in its order."""
    pattern, meaning = READERS[family]
    found = re.finditer(pattern, text)
    return [meaning([float(number) for number in match.groups()], size, resized) for match in found]


def answer(text: str, images: Sequence[Image.Image], world: World, family: str, resized: Size = RESIZED) -> list[str]:
    """The things that a prompt points at, in the order of its words."""
    if named := read_boxes(text, family, world.image.size, resized) if family in READERS else []:
        return [world.named(box) for box in named]
    found = []
    for match in re.finditer(
        r"(?:within|inside) the (?P<colour>\w+) rectangle|marked (?P<mark>\d+)"
        r"|(?P<middle>in the middle of )?(?:the )?image ?(?P<number>\d+)?",
        text,
    ):
        if match["colour"]:
            found.append(world.named(_drawn(images[0], match["colour"])))
        elif match["mark"]:
            found.append(_marked(images[0], int(match["mark"]), world))
        else:
            x1, y1, x2, y2 = _lies_at(images[int(match["number"] or 1) - 1], world.image)
            across, down = ((x2 - x1) / 4, (y2 - y1) / 4) if match["middle"] else (0, 0)
            found.append(world.named((x1 + across, y1 + down, x2 - across, y2 - down)))
    return found


COLOURS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}


def _drawn(image: Image.Image, colour: str) -> Box:
    """The box of a rectangle of a colour."""
    rows, columns = np.nonzero((np.asarray(image) == COLOURS[colour]).all(-1))
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def _marked(image: Image.Image, number: int, world: World) -> str:
    """The thing that a line runs round in the colour of the patch on which a number is written."""
    written = {read: colour for colour, ink in _patches(image, world.image) if (read := read_number(ink))}
    if number not in written:
        return "nothing"
    same = (np.asarray(image) == written[number]).all(-1)

    def lined(box: Box) -> float:
        shares = []
        for out in range(1, 7):
            left, top = max(int(box[0]) - out, 0), max(int(box[1]) - out, 0)
            right, bottom = min(int(box[2]) + out, same.shape[1]) - 1, min(int(box[3]) + out, same.shape[0]) - 1
            edge = [
                same[top, left : right + 1],
                same[bottom, left : right + 1],
                same[top : bottom + 1, left],
                same[top : bottom + 1, right],
            ]
            shares.append(float(np.concatenate(edge).mean()))
        return max(shares)

    return max(world.things, key=lambda thing: lined(thing[1]))[0]


def _patches(image: Image.Image, before: Image.Image) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """The filled patches that were drawn on an image, whatever their colours: colour, and how white each pixel is."""
    pixels = np.asarray(image)
    shades = pixels.astype(int) @ (1 << 16, 1 << 8, 1)
    drawn = (pixels != np.asarray(before)).any(-1)
    found = []
    for shade, count in zip(*np.unique(shades[drawn], return_counts=True), strict=True):
        if count <= 40 or shade == 0xFFFFFF:
            continue
        same = (shades == shade) & drawn
        height, width = same.shape
        # A line of two pixels has no three by three of its colour.
        solid = np.all([same[y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3)], axis=0)
        if solid.any():
            rows, columns = np.nonzero(solid)
            # Without its round corners, in which there is the patch's white edge.
            part = pixels[rows.min() + 2 : rows.max() + 1, columns.min() + 2 : columns.max() + 1].astype(float)
            colour = np.array([shade >> 16, shade >> 8 & 255, shade & 255])
            found.append((tuple(colour.tolist()), (part - colour).sum(-1) / (255.0 - colour).sum()))
    return found


@cache
def _digits(number: int) -> Image.Image:
    """A number in Pillow's font, white on black, without what is black around it."""
    canvas = Image.new("L", (100, 100))
    ImageDraw.Draw(canvas).text((20, 20), str(number), fill=255, font=ImageFont.load_default(40), stroke_width=1)
    return canvas.crop(canvas.getbbox())


def read_number(ink: np.ndarray) -> int | None:
    """The number from 1 to 12 whose digits white ink, in shares, looks like; None if it looks like none."""
    rows, columns = np.nonzero(ink > 0.3)
    if not len(rows):
        return None
    ink = np.pad(ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].clip(0, 1), 1)

    def likeness(number: int) -> float:
        digits, height = _digits(number), len(ink) - 2
        small = digits.resize((max(1, round(digits.width * height / digits.height)), height), Image.Resampling.BOX)
        written = np.pad(ink, ((0, 0), (0, max(0, small.width + 2 - ink.shape[1]))))
        wanted = np.zeros_like(written)
        wanted[1:-1, 1 : small.width + 1] = np.asarray(small) / 255
        size = np.sqrt((wanted**2).sum() * (written**2).sum())
        places = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        return max(float((np.roll(wanted, place, (0, 1)) * written).sum() / size) for place in places)

    best = max(range(1, 13), key=likeness)
    return best if likeness(best) > 0.8 else None


def _lies_at(part: Image.Image, image: Image.Image) -> Box:
    """Where a part of an image was cut out."""
    wanted, whole = np.asarray(part), np.asarray(image)
    height, width = wanted.shape[:2]
    # A pixel that is rare in the image says most.
    row, column = height // 2, width // 2
    rows, columns = np.nonzero((whole == wanted[row, column]).all(-1))
    for y, x in zip((rows - row).tolist(), (columns - column).tolist(), strict=True):
        if y >= 0 and x >= 0 and np.array_equal(whole[y : y + height, x : x + width], wanted):
            return float(x), float(y), float(x + width), float(y + height)
    raise AssertionError("this is no part of the image")


def seen(pixel_values: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """What a processor really made, as an image: (3, H, W) normalised to (H, W, 3) in [0, 255]."""
    return 255 * (pixel_values.transpose(1, 2, 0) * std + mean)


def answer_from_pixels(pixels: np.ndarray, world: World) -> str:
    """The thing within the red line of a padded square, (S, S, 3); "nothing" if no line is to be seen."""
    red = pixels[..., 0] - pixels[..., 1:].max(-1) > 60  # also where the line was blended with what is beside it
    if not red.any():
        return "nothing"
    rows, columns = np.nonzero(red)
    scale = max(world.image.size) / len(pixels)
    left, top = ((max(world.image.size) - side) / 2 for side in world.image.size)
    box = (columns.min() * scale - left, rows.min() * scale - top)
    box += ((columns.max() + 1) * scale - left, (rows.max() + 1) * scale - top)
    thing = max(world.things, key=lambda one: iou(one[1], box))
    return thing[0] if iou(thing[1], box) > 0.7 else "nothing"


def shade_at(text: str, pixels: np.ndarray, units: tuple[float, float]) -> str:
    """The colour in the middle of the box that a text names, in an image (H, W, 3); units: pixels of one in x and y."""
    (match,) = re.finditer(LIST, text)
    x1, y1, x2, y2 = map(float, match.groups())
    row, column = int((y1 + y2) / 2 * units[1]), int((x1 + x2) / 2 * units[0])
    found = pixels[min(row, pixels.shape[0] - 1), min(column, pixels.shape[1] - 1)]
    return str(tuple(int(one) for one in np.round(found)))
