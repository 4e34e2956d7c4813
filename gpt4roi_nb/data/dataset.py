"""`load`: open an annotation file of any known format as a data set of numbered records."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gpt4roi_nb.arguments import real_number, whole_number
from gpt4roi_nb.boxes import BoxClippedWarning, check_boxes
from gpt4roi_nb.data.coco import read_instances
from gpt4roi_nb.data.conversations import read_conversations
from gpt4roi_nb.data.flickr import read_flickr
from gpt4roi_nb.data.image_files import Folder, linked_folders
from gpt4roi_nb.data.index import Index, open_index
from gpt4roi_nb.data.instructions import SHOWN, instruct
from gpt4roi_nb.data.llava import read_llava
from gpt4roi_nb.data.problems import OUTSIDE, UNREADABLE_IMAGE, BadRecord, Problems
from gpt4roi_nb.data.record import Annotation, Record
from gpt4roi_nb.data.refcoco import read_refcoco
from gpt4roi_nb.data.vcr import read_vcr
from gpt4roi_nb.data.visual_genome import read_visual_genome
from gpt4roi_nb.files import check_name, check_regular_file
from gpt4roi_nb.images import load_image

FORMATS: dict[str, Callable[..., Iterator[Annotation]]] = {
    "coco": read_instances,
    "refcoco": read_refcoco,
    "flickr30k": read_flickr,
    "visual_genome": read_visual_genome,
    "vcr": read_vcr,
    "llava": read_llava,
    "conversations": read_conversations,
}
FILE_OPTIONS = (
    "instances",
    "image_data",
    "boxes",
    "categories",
    "metadata",
)  # options of formats that name a file or a folder
SEEN = "problems_seen.jsonl"

logger = logging.getLogger(__name__)


class RegionDataset:
    """The records of one annotation file: `len(dataset)`, `dataset[3]`, and `read(3)` with the image.

    `load` makes one. It can be pickled for any number of workers, which share the index in memory.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from gpt4roi_nb.data import load
        >>> Path("images").mkdir()
        >>> Image.new("RGB", (100, 80)).save("images/a.jpg")
        >>> turns = [{"from": "human", "value": "What is <region1>?"}, {"from": "gpt", "value": "a cup"}]
        >>> entry = {"id": "1", "image": "a.jpg", "boxes": [[10, 20, 50, 60]], "conversations": turns}
        >>> _ = Path("mine.json").write_text(json.dumps([entry]))
        >>> dataset = load("conversations", "mine.json", "images", cache="cache")
        >>> len(dataset), dataset[0].turns[1]
        (1, ('assistant', 'a cup'))
        >>> image, record = dataset.read(0)
        >>> image.size, record.boxes.shape
        ((100, 80), (1, 4))
    """

    def __init__(
        self,
        index: Index,
        images: Path | None,
        problems: Problems,
        *,
        name: str,
        seed: int = 0,
        max_regions: int | None = None,
        shown: float = SHOWN,
        rows: np.ndarray[Any, np.dtype[np.int32]] | None = None,
    ) -> None:
        self.index = index
        self.images = images
        self.problems = problems
        self.name = name
        self.seed = seed
        self.max_regions = max_regions
        self.shown = shown
        self._rows = rows  # the usable rows of the index; None if all are

    def __len__(self) -> int:
        return len(self.index) if self._rows is None else len(self._rows)

    def __getitem__(self, number: int) -> Record:
        return self.record(number)

    def __iter__(self) -> Iterator[Record]:
        return (self.record(number) for number in range(len(self)))

    def annotation(self, number: int) -> Annotation:
        """Return the facts of a record, before they are put into words.

        Raises:
            IndexError: there is no such record.
        """
        count = len(self)
        if not -count <= number < count:
            raise IndexError(f"{self.name} has {count} records, numbered from 0; there is no {number}")
        number %= count
        return self.index[number if self._rows is None else int(self._rows[number])]

    def record(self, number: int, epoch: int = 0) -> Record:
        """Return a record by number. Other epochs have other wordings.

        Raises:
            IndexError: there is no such record.
        """
        return instruct(self.annotation(number), self.seed, epoch=epoch, max_regions=self.max_regions, shown=self.shown)

    def located(self, number: int, epoch: int = 0) -> Record:
        """As `record`, but with the whole path of its image."""
        record = self.record(number, epoch)
        return replace(record, image=str(self.path(record).absolute()))

    def path(self, record: Record) -> Path:
        """Return the path of a record's image.

        Raises:
            ValueError: the data set was loaded without an image folder.
        """
        if self.images is None:
            raise ValueError(f"{self.name} was loaded without its image folder; name it: load(…, images='train2017')")
        return self.images / record.image

    def read(self, number: int, epoch: int = 0) -> tuple[Image.Image, Record] | None:
        """Read an image and its record.

        Returns:
            The upright RGB image, and the record with its boxes clipped to the image; None if the image is damaged or a
            box lies outside it, which is noted in `problems`.

        Raises:
            IndexError: there is no such record.
            ValueError: the data set was loaded without an image folder.
            BadRecord: the image or a box is bad, and the data set was loaded with strict=True.
        """
        record = self.record(number, epoch)
        where = f"{self.name}: record {record.id}, {record.image}"
        file = self.path(record)
        try:
            image = load_image(file)
        except (OSError, ValueError) as error:
            self.problems.add(BadRecord(UNREADABLE_IMAGE, str(error)), where)
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", BoxClippedWarning)  # some files do not give the sizes of images
                boxes = check_boxes(record.boxes, *image.size)
        except ValueError as error:
            self.problems.add(BadRecord(OUTSIDE, str(error)), where)
            return None
        return image, replace(record, boxes=boxes)

    def report(self) -> str:
        """Return a table of what was left out and why."""
        return self.problems.table(f"{self.name}: {len(self):,} records; bad records or boxes")


def load(
    format: str,
    annotations: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    also: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    seed: int = 0,
    max_regions: int | None = None,
    shown: float = SHOWN,
    strict: bool = False,
    problems: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    rebuild: bool = False,
    **options: Any,
) -> RegionDataset:
    """Open an annotation file as a data set of records.

    The first call reads the file and writes an index of it; later calls open the index at once.

    Args:
        format: one of `FORMATS`: "coco", "refcoco", "flickr30k", "visual_genome", "vcr", "llava",
            "conversations".
        annotations: the annotation file.
        images: the image folder. Records whose image is missing are left out and counted. Without it, no image is
            looked for.
        also: one or several folders that links in `images` may lead to; links that lead elsewhere are not followed.
        seed: decides wordings, and which of many boxes are used.
        max_regions: most regions per conversation, where each region has a turn or one caption names all. None is the
            published number: 100 for COCO, 150 for Flickr30k Entities, 15 for RefCOCO/+/g and Visual Genome.
        shown: share, from 0 to 1, of LLaVA's conversations that show their detector's boxes; which ones changes with
            the epoch.
        strict: raise BadRecord at the first bad record instead of counting bad records.
        problems: the file that lists bad records; by default one beside the index.
        cache: folder of the indexes, `~/.cache/gpt4roi_nb` by default.
        rebuild: read the file again even if it has not changed.
        **options: of the format; see its parser, such as `gpt4roi_nb.data.vcr.read_vcr`.

    Returns:
        The data set. What it leaves out is logged as a warning; see also its `report()`.

    Raises:
        ValueError: an unknown format or option, a value out of range, or a file of another format.
        TypeError: an argument that is not the number it should be, such as max_regions=2.5.
        FileNotFoundError, IsADirectoryError, NotADirectoryError: no such annotation file or folder.
        BadRecord: a record is bad, and `strict` is set.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from gpt4roi_nb.data import load
        >>> turns = [{"from": "human", "value": "What is <region1>?"}, {"from": "gpt", "value": "a cup"}]
        >>> entry = {"id": "1", "image": "a.jpg", "boxes": [[10, 20, 50, 60]], "conversations": turns}
        >>> _ = Path("mine.json").write_text(json.dumps([entry]))
        >>> dataset = load("conversations", "mine.json", cache="cache")
        >>> dataset[0].turns
        (('user', 'What is <region1>?'), ('assistant', 'a cup'))
        >>> dataset[0].boxes
        array([[10., 20., 50., 60.]], dtype=float32)
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(map(repr, FORMATS))}, but is {format!r}")
    read = FORMATS[format]
    known = set(read.__kwdefaults__ or {}) - {"also"}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"{format!r} has no option {unknown[0]!r}; it has {', '.join(sorted(known))}")
    options = {
        key: Path(value) if key in FILE_OPTIONS and value is not None else value for key, value in options.items()
    }
    source, folder = Path(annotations), Path(images) if images is not None else None
    others = linked_folders(also)
    files = [source, *(value for value in options.values() if isinstance(value, Path))]
    seed = whole_number(seed, "seed")
    max_regions = None if max_regions is None else whole_number(max_regions, "max_regions", least=1)
    shown = real_number(shown, "shown")
    if not 0 <= shown <= 1:
        raise ValueError(f"shown must lie between 0 and 1, but is {shown}")
    for file in [*files, *([folder] if folder is not None else [])]:
        check_name(file)
        if not file.exists():
            raise FileNotFoundError(f"there is no {str(file)!r} in {os.getcwd()!r}; check the path and its spelling")
    if folder is not None and not folder.is_dir():
        raise NotADirectoryError(f"images must be a folder, but {str(folder)!r} is a file")
    check_regular_file(source)

    # The indexes of these formats also hold what was read from the image folder, so a change there counts.
    read_from = [*files, folder] if folder is not None and format in ("llava", "vcr", "visual_genome") else files
    links = {"also": tuple(one.resolve() for one in others)} if others and "also" in (read.__kwdefaults__ or {}) else {}
    index = open_index(
        Path(cache) if cache is not None else Path.home() / ".cache" / "gpt4roi_nb",
        format,
        read_from,
        {**options, **links, "images": folder.resolve() if folder is not None else None},
        lambda noted: read(source, noted, folder, **options, **links),
        strict=strict,
        rebuild=rebuild,
    )
    name = str(options.get("name") or format)
    noted, rows = Problems(strict=strict), None
    if folder is not None and (unusable := Folder(folder, others).unusable(index.distinct_images())):
        present = []
        for row, (image, record) in enumerate(zip(index.images(), index.ids(), strict=True)):
            if image in unusable:
                noted.add(unusable[image], f"{source.name}: record {record}")
            else:
                present.append(row)
        rows = np.array(present, np.int32)
    seen = Problems(Path(problems) if problems is not None else index.folder / SEEN, strict=strict)
    seen.begin_with(Problems(index.problems), noted)
    seen.left_out = index.left_out
    dataset = RegionDataset(index, folder, seen, name=name, seed=seed, max_regions=max_regions, shown=shown, rows=rows)
    if seen.counts():
        logger.warning("%s", dataset.report())
    return dataset
