"""50,000 generated predictions on 10,000 images into FiftyOne, in a MongoDB of this run's own, and each saved view.

Seconds count here, since people wait for them: each row's ratio is to the five minutes that an import may take, by the
clock, since MongoDB works in a process of its own. Each is done once, but for the views.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mongo import Mongo
from mongod import find_mongod
from predictions import make_images, make_predictions
from timing import Seconds, measured, timed

IMAGES, REGIONS = 10_000, 5
IMPORT = "import, with its views"
ALLOWED = 300.0  # seconds for the first import
SHOWN = 20  # images of a view that the App asks for at first
DIMENSIONS = 256  # of the features
REPEATS = 3  # of each view


def run() -> Iterator[dict[str, object]]:
    mongod = find_mongod()
    if mongod is None:
        raise RuntimeError("no mongod in this environment: `make setup` brings one")
    with tempfile.TemporaryDirectory() as folder:
        mongo = Mongo(mongod, Path(folder) / "mongo")
        mongo.start()
        os.environ["FIFTYONE_DATABASE_URI"] = mongo.uri
        try:
            for name, took in works(Path(folder)):
                yield row(name, took)
        finally:
            from fiftyone.core.odm import database

            database._disconnect()
            mongo.kill()


def row(name: str, took: Seconds) -> dict[str, object]:
    return {
        "what": f"{IMAGES * REGIONS:,} predictions: {name} / five minutes",
        "ratio": took.wall / ALLOWED,
        "demand": "<= 1" if name == IMPORT else "",
        "detail": str(took),
    }


def works(folder: Path) -> Iterator[tuple[str, Seconds]]:
    import numpy as np

    from gpt4roi_nb.failures import add_features, connect, field_of, tag, to_fiftyone

    images = make_images(folder / "images", IMAGES)
    first = make_predictions(images, REGIONS, classes=True)
    second = make_predictions(images, REGIONS, classes=True, seed=1, checkpoint="other 4e5f6a7b")
    connect()
    yield IMPORT, timed(lambda: to_fiftyone(first, progress=False))
    yield "the same again", timed(lambda: to_fiftyone(first, progress=False))
    yield "a second checkpoint", timed(lambda: to_fiftyone(second, progress=False))
    dataset, field = connect().load_dataset(first.benchmark), field_of(first)

    def opened(name: str) -> None:
        view = dataset.load_saved_view(name)
        view.count()
        list(view.limit(SHOWN))

    views = {name: partial(opened, name) for name in dataset.list_saved_views()}
    yield from ((f"view {name!r}", took) for name, took in measured(views, REPEATS).items())
    random = np.random.default_rng(0)
    items = list(first.predictions["id"])
    vectors = dict(zip(items, random.normal(size=(len(items), DIMENSIONS)).astype(np.float32), strict=True))
    yield "search and map (PCA)", timed(lambda: add_features(first, vectors=vectors, method="pca"))
    yield "tag 1,000", timed(lambda: tag(dataset, field, items[:1000], "a tag"))
