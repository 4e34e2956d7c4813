"""Read an annotation file once into an Arrow file, which is opened by mapping it into memory.

Opening takes no time and no memory, whatever the size. Any entry is read by its number, and all processes of a machine
share one copy. An index is a folder: `annotations.arrow`, `problems.jsonl` and `manifest.json`. It is written under
another name and renamed when complete, and rebuilt when a file that it was read from has changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.data.record import Annotation
from gpt4roi_nb.files import read_json, write_json

VERSION = 4  # of what parsers yield and of the layout: a higher one rebuilds every index
ROWS = 2048  # per batch; only the last may have fewer
ANNOTATIONS, PROBLEMS, MANIFEST = "annotations.arrow", "problems.jsonl", "manifest.json"
_KEY_LENGTH = 16

logger = logging.getLogger(__name__)


class Index:
    """The annotations of an index by number, in the order of the file they were read from.

    A pickled index is only a path: a worker maps the same file again.

    Raises:
        ValueError: one of its files is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.manifest = read_json(folder / MANIFEST)
        except ValueError as error:
            raise ValueError(f"the index is damaged: {error}; rebuild=True builds it again") from error
        rows, left_out = self.manifest.get("rows"), self.manifest.get("left_out")
        counts = [rows, *left_out.values()] if isinstance(left_out, dict) else [None]
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(
                f"the index is damaged: {str(folder / MANIFEST)!r} must say how many 'rows' there are and what was "
                "'left_out'; rebuild=True builds it again"
            )
        self._batches: list[Any] | None = None
        self._sound: set[int] = set()

    def __len__(self) -> int:
        return int(self.manifest["rows"])

    @property
    def left_out(self) -> Counter[str]:
        """How many entries were rightly left out, by what they are."""
        return Counter(self.manifest["left_out"])

    @property
    def problems(self) -> Path:
        """The file that lists the bad records."""
        return self.folder / PROBLEMS

    def __getitem__(self, row: int) -> Annotation:
        if not 0 <= row < len(self):
            raise IndexError(f"the index holds {len(self)} annotations, numbered from 0; there is no {row}")
        batch = self._batch(row // ROWS)
        values = {name: batch.column(name)[row % ROWS] for name in batch.schema.names}
        return Annotation(
            kind=values["kind"].as_py(),
            image=values["image"].as_py(),
            # Through a list, since pyarrow's to_numpy imports pandas: a second and 60 MB in each worker.
            boxes=np.array(values["boxes"].as_py(), np.float32).reshape(-1, 4),
            texts=tuple(values["texts"].as_py()),
            source=values["source"].as_py(),
            id=values["id"].as_py(),
            choice=values["choice"].as_py(),
        )

    def images(self) -> list[str]:
        """Return the image of each annotation."""
        return self._column("image")

    def ids(self) -> list[str]:
        """Return the id of each annotation."""
        return self._column("id")

    def distinct_images(self) -> list[str]:
        """Return each image once."""
        return list(dict.fromkeys(self.images()))

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "manifest": self.manifest, "_batches": None, "_sound": set()}

    def _column(self, name: str) -> list[str]:
        return [
            value for number in range(len(self._opened())) for value in self._batch(number).column(name).to_pylist()
        ]

    def _batch(self, number: int) -> Any:
        """A batch, checked before its first use, since Arrow ends the process if one is damaged."""
        batch = self._opened()[number]
        if number not in self._sound:
            import pyarrow as pa

            try:
                batch.validate(full=True)
            except pa.ArrowException as error:
                raise ValueError(self._damaged(str(error))) from error
            self._sound.add(number)
        return batch

    def _damaged(self, why: str) -> str:
        return f"the index is damaged: {str(self.folder / ANNOTATIONS)!r}: {why}; rebuild=True builds it again"

    def _opened(self) -> list[Any]:
        if self._batches is None:
            import pyarrow as pa

            file = self.folder / ANNOTATIONS
            try:
                reader = pa.ipc.open_file(pa.memory_map(str(file)))
                batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            except (OSError, pa.ArrowException) as error:
                raise ValueError(self._damaged(str(error))) from error
            rows = [min(ROWS, len(self) - first) for first in range(0, len(self), ROWS)]
            if [batch.num_rows for batch in batches] != rows or not reader.schema.equals(_schema()):
                raise ValueError(self._damaged(f"it does not agree with {MANIFEST} beside it"))
            self._batches = batches
        return self._batches


def open_index(
    cache: Path,
    name: str,
    sources: Iterable[Path],
    options: Mapping[str, Any],
    read: Callable[[Problems], Iterable[Annotation]],
    *,
    strict: bool = False,
    rebuild: bool = False,
) -> Index:
    """Open the index of these files; build it first if there is none or a file has changed.

    Args:
        cache: folder of all indexes.
        name: the format, for the folder's name.
        sources: the files that it is read from; their sizes and modification times tell whether it is up to date.
        options: what else decides its contents.
        read: yields the annotations; called only if the index must be built.
        strict: raise BadRecord at the first bad record, even if an index that lists it exists.
        rebuild: build it in any case.

    Returns:
        The index.

    Raises:
        ValueError: the existing index is damaged; the message names the file.
        BadRecord: a record is bad, and `strict` is set.
    """
    sources = [source.resolve() for source in sources]
    what = json.dumps([name, [str(source) for source in sources], options], sort_keys=True, default=str)
    states = [(stat.st_size, stat.st_mtime_ns) for stat in map(Path.stat, sources)]
    prefix = f"{name}-{_digest(what)}"
    folder = cache / f"{prefix}-{_digest(json.dumps([VERSION, states]))}"
    if rebuild or not (folder / MANIFEST).is_file() or (strict and (folder / PROBLEMS).is_file()):
        _build(folder, what, read, strict, rebuild)
        for older in cache.glob(f"{prefix}-*"):
            if older != folder and ".part" not in older.name:
                shutil.rmtree(older, ignore_errors=True)
    index = Index(folder)
    index._opened()
    return index


def _build(
    folder: Path, what: str, read: Callable[[Problems], Iterable[Annotation]], strict: bool, rebuild: bool
) -> None:
    logger.info("reading %s into %s, once", what, folder)
    partial = folder.with_name(f"{folder.name}.part{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        problems = Problems(partial / PROBLEMS, strict=strict)
        rows = _write(partial / ANNOTATIONS, read(problems))
        write_json(partial / MANIFEST, {"rows": rows, "left_out": dict(problems.left_out), "of": json.loads(what)})
        if rebuild or not (folder / MANIFEST).is_file():
            shutil.rmtree(folder, ignore_errors=True)
        try:
            partial.rename(folder)
        except OSError:
            if not (folder / MANIFEST).is_file():
                raise
            # Another process has built the same index meanwhile.
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(file: Path, annotations: Iterable[Annotation]) -> int:
    import pyarrow as pa

    schema = _schema()
    rows = 0
    with pa.OSFile(str(file), "wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        columns: dict[str, list[Any]] = {name: [] for name in schema.names}

        def flush() -> None:
            arrays = [pa.array(columns[column.name], column.type) for column in schema]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            for values in columns.values():
                values.clear()

        for rows, annotation in enumerate(annotations, 1):
            for name, values in columns.items():
                value = getattr(annotation, name)
                values.append(value.ravel() if name == "boxes" else value)
            if rows % ROWS == 0:
                flush()
        if columns["id"]:
            flush()
    return rows


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        {
            "kind": pa.string(),
            "image": pa.string(),
            "boxes": pa.list_(pa.float32()),
            "texts": pa.list_(pa.string()),
            "source": pa.string(),
            "id": pa.string(),
            "choice": pa.int8(),
        }
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]
