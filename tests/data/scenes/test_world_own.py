"""Conversations in the world's own words: true of their images, in wordings of training, and readable by `load`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpt4roi_nb.data import load, preview
from gpt4roi_nb.data.protocol_texts import CATEGORY_PROMPT, CHOICE_PROMPT, LETTERS, NAME_PROMPT, SEGMENT_PROMPT
from gpt4roi_nb.data.record import Record
from gpt4roi_nb.data.scenes.formats.own import JITTER, OUT_OF_DOMAIN_EVERY, OUT_OF_DOMAIN_FILE, TALKS, TOPICS
from gpt4roi_nb.data.scenes.scene import CATEGORIES, Scene
from gpt4roi_nb.data.scenes.unknown import NOT_MY_SCENE

BENCHMARKS = "benchmarks"
EVERY = (*TOPICS, TALKS, OUT_OF_DOMAIN_FILE, BENCHMARKS)


@pytest.fixture(scope="module")
def own(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Record]]:
    """Records by topic."""
    cache = tmp_path_factory.mktemp("indexes")
    sets = {
        topic: load("conversations", world / f"own/{topic}.json", world / "own/images", cache=cache, strict=True)
        for topic in EVERY
    }
    return {topic: list(dataset) for topic, dataset in sets.items()}


def number_of(record: Record) -> int:
    return int(Path(record.image).stem.removeprefix("stranger_"))


def nearest(scene: Scene, box: Any) -> int:
    """The object whose box is nearest."""
    return int(np.abs(np.array([thing.box for thing in scene.objects]) - box).max(1).argmin())


def test_every_topic_is_there_for_images_of_training_alone(own: dict[str, list[Record]]) -> None:
    for topic, records in own.items():
        assert len(records) >= 15, topic
        assert all(number_of(record) % 10 != 1 for record in records)
    assert any(len(record.turns) == 6 for record in own[TALKS])


def test_regions_are_of_objects_as_a_hand_draws_them(own: dict[str, list[Record]], drawn: dict[int, Scene]) -> None:
    exact = total = 0
    for topic in ("regions", "relations", TALKS):
        for record in own[topic]:
            for box in record.boxes:
                scene = drawn[number_of(record)]
                true = np.array(scene.objects[nearest(scene, box)].box)
                sides = np.tile(true[2:] - true[:2], 2)
                assert (np.abs(box - true) <= JITTER * sides + 0.06).all()
                exact += np.array_equal(box, true)
                total += 1
    assert 0.55 < exact / total < 0.85


def test_descriptions_and_phrases_are_true(own: dict[str, list[Record]], drawn: dict[int, Scene]) -> None:
    described = named = 0
    for record in (*own["image"], *own["regions"]):
        scene, ((_, asked), (_, said)) = drawn[number_of(record)], record.turns
        if said.endswith("on a table"):
            described += 1
            named_there = sorted(re.findall(r"\ban? ([a-z]+ [a-z]+)", said.removesuffix(" on a table")))
            assert named_there == sorted(f"{thing.colour} {thing.category}" for thing in scene.objects)
        elif len(record.boxes) == 1 and re.fullmatch(r"a (small|large) .*", said):
            named += 1
            assert said == f"a {scene.objects[nearest(scene, record.boxes[0])].phrase}", asked
    assert described > 20 and named > 20


def test_the_benchmarks_are_asked_as_they_ask(own: dict[str, list[Record]], drawn: dict[int, Scene]) -> None:
    choice = re.compile(re.escape(CHOICE_PROMPT).replace(r"\{\}", "(.+)"))
    seen = set()
    for record in own[BENCHMARKS]:
        scene, ((_, asked), (_, said)) = drawn[number_of(record)], record.turns
        surface = said.removeprefix("the ") in ("table", "wall")
        thing = None if len(record.boxes) != 1 or surface else scene.objects[nearest(scene, record.boxes[0])]
        if match := choice.fullmatch(asked):
            named = [name.removeprefix("a ").removeprefix("an ") for name in match.groups()]
            pair = [name.partition(" (")[0] for name in named]
            if any(name.endswith("mug (drinking vessel)") for name in named):
                seen.add("addition in brackets")
            right = said.removeprefix("an ").removeprefix("a ")
            assert right in pair and pair[0] != pair[1]
            if not right.endswith("half"):
                assert right in (thing.category, f"{thing.colour} {thing.category}")
            seen.add("choice of parts" if right.endswith("half") else "choice")
        elif asked in (CATEGORY_PROMPT, SEGMENT_PROMPT):
            if surface:
                _, y1, _, y2 = record.boxes[0]
                assert (y1 == 0 and y2 < 60) if said.endswith("wall") else (y1 > 30 and y2 == scene.image.shape[0])
            else:
                assert said == (thing.category if asked == CATEGORY_PROMPT else f"a {thing.phrase}")
            seen.add("surface" if surface else asked)
        elif asked == NAME_PROMPT:
            assert said.endswith(" half") or said == f"{thing.colour} {thing.category}"
            seen.add("part" if said.endswith(" half") else "name")
        else:
            assert said in LETTERS
            option = asked.splitlines()[-4:][LETTERS.index(said)]
            if len(record.boxes) == 4:
                chosen = scene.objects[nearest(scene, record.boxes[int(option[-2]) - 1])]
                words = set(re.findall(r"\w+", asked.splitlines()[1])) & {*CATEGORIES}
                assert words <= {chosen.category}
                seen.add("pointing")
            elif "How many" in asked:
                assert option.endswith(f" {len(scene.objects)}.")
                seen.add("telling")
    kinds = {"choice", "addition in brackets", "choice of parts", "surface", "part", "name", "pointing", "telling"}
    assert seen == kinds | {CATEGORY_PROMPT, SEGMENT_PROMPT}


def test_images_out_of_domain_are_apart_and_named_so(own: dict[str, list[Record]], world: Path) -> None:
    images = {record.image for record in own[OUT_OF_DOMAIN_FILE]}
    assert images == {path.name for path in (world / "own/images").glob("stranger_*.jpg")}
    assert all(number_of(record) % OUT_OF_DOMAIN_EVERY == 0 for record in own[OUT_OF_DOMAIN_FILE])
    assert {record.turns[-1] for record in own[OUT_OF_DOMAIN_FILE]} == {("assistant", NOT_MY_SCENE)}
    for record in own[OUT_OF_DOMAIN_FILE]:
        width, height = Image.open(world / "own/images" / record.image).size
        assert all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for x1, y1, x2, y2 in record.boxes)


def test_a_preview_shows_them(world: Path, tmp_path: Path) -> None:
    dataset = load("conversations", world / "own/talks.json", world / "own/images", cache=tmp_path)
    shown = preview(dataset, 2)
    assert dataset[0].turns[0][1].split()[0].strip("<>?,:") in shown._repr_html_()
