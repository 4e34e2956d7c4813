"""A small world on disk to measure on, and a model of random weights that has room for its prompts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from tiny import tiny_config, tiny_gpt4roi

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.scenes.formats.write import write_world
from gpt4roi_nb.evaluate.metrics import captions
from gpt4roi_nb.evaluate.metrics.captions import Meteor, meteor

IMAGES = 32  # images 1, 11, 21 and 31 are for validation


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a world of `IMAGES` images."""
    folder = tmp_path_factory.mktemp("worlds") / "world"
    return write_world(folder, IMAGES, seed=11, size=96, n_objects=(4, 5), workers=0, progress=False)


@pytest.fixture(scope="session")
def gpt4roi() -> GPT4RoI:
    """Random weights, and room for VCR's prompts."""
    text_config = {**tiny_config().to_dict()["text_config"], "max_position_embeddings": 2048}
    return tiny_gpt4roi(text_config=text_config)


@pytest.fixture(scope="session")
def running() -> Iterator[Meteor]:
    """A METEOR with its paraphrases, which take about 12 seconds of processor time to load."""
    if shutil.which("java") is None:
        pytest.skip("no Java: `make test` as root installs it, else `sudo apt install default-jre-headless`")
    with meteor() as scorer:
        yield scorer


@pytest.fixture
def one_meteor(running: Meteor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions are scored by `running`; that each scoring starts and ends its own is tested in `test_captions.py`."""
    monkeypatch.setattr(captions, "meteor", lambda **given: nullcontext(running))
