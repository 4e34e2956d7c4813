"""What an image adds to the world's files, and how an annotation file is assembled from what all images added."""

import json
import pickle
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

Record = dict[str, Any]
_BLOCK = 2**20  # bytes of a spool in memory
_UP = 2  # PNG's filter that gives the difference to the row above; above the first there are zeros


@dataclass
class Added:
    """What one image adds.

    rows: (file, list in the file, record); the file's name is relative to the world's folder. links: further names of
    the image's file. pngs: by name, (H, W) or (H, W, 3) uint8, or (H, W) uint16. texts: by name, the content of a JSON
    file of its own. images: by name, (H, W, 3) uint8 RGB of another image, not of a scene, written as JPEG.
    """

    rows: list[tuple[str, str, Record]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    pngs: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, Record] = field(default_factory=dict)
    images: dict[str, np.ndarray] = field(default_factory=dict)

    def row(self, file: str, name: str, record: Record) -> None:
        """Add a record to the list `name` of a file ("" if it has no lists)."""
        self.rows.append((file, name, record))


@dataclass(frozen=True)
class JsonFile:
    """A JSON object with a head and then lists of records; or, without lists, one list; or JSON Lines.

    lists: their names. head: what comes before them.
    """

    path: str
    lists: tuple[str, ...] = ()
    head: Record = field(default_factory=dict)
    lines: bool = False

    def write(self, path: Path, spools: dict[str, Path]) -> None:
        """Write the file. spools: by list name ("" without lists), a file of JSON records, one per line."""
        with path.open("wb") as file:
            if self.lines:
                file.writelines(_lines(spools.get("")))
                return
            if not self.lists:
                file.write(b"[")
                _separated(file.write, spools.get(""))
                file.write(b"]")
                return
            opening = dumps(self.head)[:-1]
            file.write(opening)
            for index, name in enumerate(self.lists):
                file.write(b'%s"%s":[' % (b"," if index or self.head else b"", name.encode()))
                _separated(file.write, spools.get(name))
                file.write(b"]")
            file.write(b"}")


@dataclass(frozen=True)
class ObjectFile:
    """A file that cannot be written record by record: `build` makes its bytes from the records of list `source`.

    source: the name under which images add records; several files may share one.
    """

    path: str
    source: str
    build: Callable[[list[Record]], bytes]

    def write(self, path: Path, spools: dict[str, Path]) -> None:
        """Read the records from their spool and write the file."""
        path.write_bytes(self.build([json.loads(line) for line in _lines(spools.get(""))]))


def dumps(record: Any) -> bytes:
    """Write a record as one line of JSON."""
    return orjson.dumps(record)


def pickled(records: list[Record]) -> bytes:
    """Pickle with protocol 2, as the published files are. Records come from `json`, so equal ones give equal bytes.

    orjson would share keys with whatever the process read before, which a pickle shows."""
    return pickle.dumps(records, protocol=2)


def png(pixels: np.ndarray) -> bytes:
    """Write label pixels as a PNG file: (H, W) uint8 grey, (H, W) uint16 grey of 16 bits, or (H, W, 3) uint8 RGB.

    Pillow tries five filters on every row, which takes half of the time of writing a world. In a map of labels, most
    rows repeat the one above, so this always uses the filter "up", which leaves runs.
    """
    height, width = pixels.shape[:2]
    depth, colour_type = 8 * pixels.itemsize, 2 if pixels.ndim == 3 else 0
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0], filtered[0, 1:] = _UP, rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    packer = zlib.compressobj(strategy=zlib.Z_RLE, memLevel=5)  # runs need little memory, and small tables are faster
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)),
        (b"IDAT", packer.compress(filtered.data) + packer.flush()),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def _lines(spool: Path | None) -> Iterable[bytes]:
    if spool is None or not spool.is_file():
        return
    with spool.open("rb") as file:
        yield from file


def _separated(write: Callable[[bytes], object], spool: Path | None) -> None:
    """Write a spool's records with commas between them. No record has a line break of its own: JSON escapes them."""
    if spool is None or not spool.is_file():
        return
    with spool.open("rb") as file:
        left = spool.stat().st_size - 1  # all but the last line's end
        while left > 0 and (block := file.read(min(left, _BLOCK))):
            write(block.replace(b"\n", b","))
            left -= len(block)
