"""50,000 generated predictions on 10,000 images into FiftyOne, in a MongoDB of this run's own, and each saved view.

Seconds count here, since people wait for them: each row's ratio is to the five minutes that an import may take.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mongo import Mongo
from mongod import find_mongod
from predictions import make_images, make_predictions

IMAGES, REGIONS = 10_000, 5
IMPORT = "import, with its views"
ALLOWED = 300.0  # seconds for the first import
SHOWN = 20  # images of a view that the App asks for at first
DIMENSIONS = 256  # of the features


def timed(what: Callable[[], object]) -> float:
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def run() -> list[dict[str, object]]:
    mongod = find_mongod()
    if mongod is None:
        raise RuntimeError("no mongod in this environment: `make setup` brings one")
    with tempfile.TemporaryDirectory() as folder:
        mongo = Mongo(mongod, Path(folder) / "mongo")
        mongo.start()
        os.environ["FIFTYONE_DATABASE_URI"] = mongo.uri
        try:
            return measured(Path(folder))
        finally:
            from fiftyone.core.odm import database

            database._disconnect()
            mongo.kill()


def measured(folder: Path) -> list[dict[str, object]]:
    import numpy as np

    from gpt4roi_nb.failures import add_features, connect, field_of, tag, to_fiftyone

    images = make_images(folder / "images", IMAGES)
    first = make_predictions(images, REGIONS, classes=True)
    second = make_predictions(images, REGIONS, classes=True, seed=1, checkpoint="other 4e5f6a7b")
    count = len(first.predictions)
    connect()
    seconds = {IMPORT: timed(lambda: to_fiftyone(first, progress=False))}
    seconds["the same again"] = timed(lambda: to_fiftyone(first, progress=False))
    seconds["a second checkpoint"] = timed(lambda: to_fiftyone(second, progress=False))
    dataset, field = connect().load_dataset(first.benchmark), field_of(first)
    for name in dataset.list_saved_views():
        if name.startswith(field):

            def opened(name: str = name) -> None:
                view = dataset.load_saved_view(name)
                view.count()
                list(view.limit(SHOWN))

            seconds[f"view{name.removeprefix(field)}"] = timed(opened)
    random = np.random.default_rng(0)
    items = list(first.predictions["id"])
    vectors = dict(zip(items, random.normal(size=(count, DIMENSIONS)).astype(np.float32), strict=True))
    seconds["search and map (PCA)"] = timed(lambda: add_features(first, vectors=vectors, method="pca"))
    seconds["tag 1,000"] = timed(lambda: tag(dataset, field, items[:1000], "a tag"))
    return [
        {
            "what": f"{count:,} predictions: {name} / five minutes",
            "ratio": took / ALLOWED,
            "demand": "<= 1" if name == IMPORT else "",
            "detail": f"{took:.2f} s",
        }
        for name, took in seconds.items()
    ]
