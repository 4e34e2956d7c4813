"""Annotations as large as COCO's training set: opening them again, the memory of that and of reading them first."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES, BOXES = 118_287, 860_001
OPEN_SECONDS, OPEN_MB = 2.0, 500
POINTS = 20  # of an outline: the file gets as large as COCO's

# In a process of its own, so that its memory is that of loading alone, and so that nothing is warm but the disk.
_LOAD = """
import json, os, sys, time
import psutil
process = psutil.Process()
from gpt4roi_nb.data import load
load  # what is imported counts neither as time nor as memory of opening
import gpt4roi_nb.data.dataset, pyarrow
before, started, busy = process.memory_info().rss, time.perf_counter(), time.process_time()
dataset = load("coco", sys.argv[1], sys.argv[2], cache=sys.argv[3])
records = len(dataset)
dataset[records // 2]
seconds, busy = time.perf_counter() - started, time.process_time() - busy
after = process.memory_info().rss
import random, resource
random.seed(0)
started = time.perf_counter()
for number in random.sample(range(records), 2000):
    dataset[number]
each = (time.perf_counter() - started) / 2000
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
total = process.memory_info().rss
print(json.dumps({"seconds": seconds, "busy": busy, "grown": after - before, "total": total, "peak": peak,
                  "records": records, "each": each}))
"""


def write_annotations(file: Path, images: Path, count: int = IMAGES, boxes: int = BOXES) -> None:
    """A file of COCO's form and size, and its images as empty files."""
    rng = random.Random(0)
    images.mkdir()
    categories = [{"id": number, "name": f"category {number}"} for number in range(1, 81)]
    with file.open("w") as stream:
        stream.write('{"info": {}, "images": [')
        for number in range(count):
            name = f"{number:012d}.jpg"
            (images / name).touch()
            entry = {"id": number, "file_name": name, "width": 640, "height": 480}
            stream.write((", " if number else "") + json.dumps(entry))
        stream.write('], "annotations": [')
        outline = [[round(rng.uniform(0, 400), 2) for _ in range(2 * POINTS)] for _ in range(100)]
        for number in range(boxes):
            entry = {
                "segmentation": [outline[number % 100]], "area": 10.5, "iscrowd": int(number % 86 == 0),
                "image_id": number % count, "category_id": 1 + number % 80, "id": number,
                "bbox": [round(rng.uniform(0, 500), 2), round(rng.uniform(0, 400), 2), 50.25, 30.5],
            }  # fmt: skip
            stream.write((", " if number else "") + json.dumps(entry))
        stream.write(f'], "categories": {json.dumps(categories)}}}')


def loaded(file: Path, images: Path, cache: Path) -> dict[str, float]:
    """What a fresh process measures of loading the file."""
    command = [sys.executable, "-c", _LOAD, str(file), str(images), str(cache)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    measured: dict[str, float] = json.loads(result.stdout)
    return measured


def run() -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        file, images, cache = (Path(folder, name) for name in ("instances.json", "images", "cache"))
        write_annotations(file, images)
        first = loaded(file, images, cache)
        again = min((loaded(file, images, cache) for _ in range(3)), key=lambda measured: measured["busy"])
        size = file.stat().st_size
    mb = 1e6
    return [
        {
            "what": f"processor time of opening {BOXES:,} boxes again / {OPEN_SECONDS:g} s",
            "ratio": again["busy"] / OPEN_SECONDS,
            "demand": "<= 1",
            "detail": f"{again['busy']:.2f} s, {again['seconds']:.2f} s by the clock; "
            f"a record at random {again['each'] * 1e6:.0f} µs",
        },
        {
            "what": f"memory of the process with them open / {OPEN_MB} MB",
            "ratio": again["total"] / mb / OPEN_MB,
            "demand": "<= 1",
            "detail": f"{again['total'] / mb:.0f} MB, of which {again['grown'] / mb:.0f} by opening",
        },
        {
            "what": "peak memory of indexing / size of the file",
            "ratio": first["peak"] / size,
            "demand": "<= 3",
            "detail": f"{first['peak'] / mb:.0f} MB for {size / mb:.0f} MB, in {first['seconds']:.0f} s",
        },
    ]
