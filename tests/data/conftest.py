"""A small world on disk that the tests of its formats read, and the scenes that it was written from."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpt4roi_nb.data.scenes.formats.write import write_world
from gpt4roi_nb.data.scenes.scene import Scene, scenes

WORLD_IMAGES, WORLD_SEED = 40, 7


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a world of `WORLD_IMAGES` images."""
    folder = tmp_path_factory.mktemp("worlds") / "world"
    return write_world(folder, WORLD_IMAGES, seed=WORLD_SEED, workers=0, progress=False)


@pytest.fixture(scope="session")
def drawn() -> dict[int, Scene]:
    """The scene of each image, by the image's number."""
    return dict(enumerate(scenes(WORLD_SEED, WORLD_IMAGES), start=1))


@pytest.fixture(scope="session")
def read(world: Path) -> Any:
    """A function from a file's name to its content: JSON, or a list of JSON lines."""

    def read(name: str) -> Any:
        text = (world / name).read_text()
        return [json.loads(line) for line in text.splitlines()] if name.endswith(".jsonl") else json.loads(text)

    return read
