"""VCR of the generated world: one choice of four is right by what the scene holds; texts point at its objects."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gpt4roi_nb.data.scenes.formats.claims import CHOICES, Choice, Claim, items
from gpt4roi_nb.data.scenes.formats.expressions import OPPOSITE, stands
from gpt4roi_nb.data.scenes.question_kinds import comparable, value_of
from gpt4roi_nb.data.scenes.scene import Scene, make_scene

FIELDS = {
    "movie", "objects", "interesting_scores", "answer_likelihood", "img_fn", "metadata_fn", "answer_orig",
    "question_orig", "rationale_orig", "question", "answer_match_iter", "answer_sources", "answer_choices",
    "answer_label", "rationale_choices", "rationale_sources", "rationale_match_iter", "rationale_label", "img_id",
    "question_number", "annot_id", "match_fold", "match_index",
}  # fmt: skip


def number_of(record: dict[str, Any]) -> int:
    return int(record["img_id"].split("-")[1])


@pytest.fixture(scope="module")
def records(read: Any) -> list[dict[str, Any]]:
    return [record for split in ("train", "val") for record in read(f"vcr/{split}.jsonl")]


def spoken(tokens: list[str | list[int]]) -> str:
    """Tokens as text in which objects are `#0`, `#1` …"""
    return " ".join(t if isinstance(t, str) else " and ".join(f"#{k}" for k in t) for t in tokens)


def is_so(scene: Scene, text: str) -> bool:
    """Whether a choice is true, read anew from its words alone."""
    facts = []
    phrase = r"an? (?P<phrase>\w+ \w+ \w+ \w+)"
    for match in re.finditer(rf"#(\d+) (?:is|,) {phrase}", text):
        facts.append(scene.objects[int(match[1])].phrase == match["phrase"])
    for match in re.finditer(r"#(\d+) is to the (left|right) of #(\d+) and (in front of|behind) #\d+", text):
        one, other = (scene.objects[int(match[k])] for k in (1, 3))
        facts.append((one.box[0] + one.box[2] < other.box[0] + other.box[2]) == (match[2] == "left"))
        facts.append((one.position[1] < other.position[1]) == (match[4] != "behind"))
    for match in re.finditer(r"I count (\d+) besides|there are (\d+) ,", text):
        facts.append(len(scene.objects) - 1 == int(match[1] or match[2]))
    if match := re.fullmatch(r"#(\d+) , the (\w+) (\w+) , is larger \.", text):
        thing = scene.objects[int(match[1])]
        facts += [thing.size == "large", (thing.colour, thing.category) == (match[2], match[3])]
    if match := re.fullmatch(r"Yes , #(\d+) and #(\d+) are both (\w+) \.", text):
        word = {"wood": "wooden"}.get(match[3], match[3])
        both = [set(scene.objects[int(match[k])].phrase.split()) for k in (1, 2)]
        facts += [word in words or word.removesuffix("s") in words for words in both]
    for match in re.finditer(r"#(\d+) is (?:an? )?(\w+) (?=and #|\.)", text):
        word = {"wood": "wooden"}.get(match[2], match[2])
        facts.append(word in scene.objects[int(match[1])].phrase.split())
    assert facts, text
    return all(facts)


@pytest.mark.parametrize("part", ["answer", "rationale"])
def test_the_labelled_choice_is_right_and_the_others_are_wrong(
    records: list[dict[str, Any]], drawn: dict[int, Scene], part: str
) -> None:
    for record in records:
        scene = drawn[number_of(record)]
        truth = [is_so(scene, spoken(choice)) for choice in record[f"{part}_choices"]]
        label = record[f"{part}_label"]
        assert truth == [k == label for k in range(CHOICES)], record[f"{part}_choices"]


def holds(scene: Scene, claim: Claim) -> bool:
    """Whether a claim is true of a scene."""
    if claim.what == "besides":
        return len(scene.objects) - 1 == claim.value
    if claim.what in OPPOSITE:
        return stands(scene, claim.subject, claim.what, int(claim.value))
    return value_of(scene.objects[claim.subject], claim.what) == claim.value


def is_true(scene: Scene, choice: Choice) -> bool:
    """Whether everything that a choice claims is true of a scene."""
    return all(holds(scene, claim) for claim in choice.claims)


@pytest.mark.parametrize("seed", range(20))
def test_claims_and_words_agree_on_what_is_right(seed: int) -> None:
    scene = make_scene(seed, size=168, n_objects=(2, 9))
    for item in items(scene, np.random.default_rng(seed), 6):
        for choices in (item.answers, item.rationales):
            truth = [is_true(scene, choice) for choice in choices]
            assert truth == [True] + [False] * (CHOICES - 1)
            texts = [spoken([t if isinstance(t, str) else list(t) for t in choice.tokens]) for choice in choices]
            assert [is_so(scene, text) for text in texts] == truth
            assert len(set(texts)) == CHOICES


@pytest.mark.parametrize("part", ["answer", "rationale"])
def test_the_right_choice_is_not_the_one_most_like_the_others(records: list[dict[str, Any]], part: str) -> None:
    """Changing the right choice into three wrong ones, each by itself, would leave it in their middle."""
    hits = 0.0
    for record in records:
        words = [set(spoken(choice).split()) for choice in record[f"{part}_choices"]]
        likeness = [sum(len(one & other) for other in words) for one in words]
        best = [k for k, value in enumerate(likeness) if value == max(likeness)]
        hits += (record[f"{part}_label"] in best) / len(best)
    assert 0.15 < hits / len(records) < 0.4


def test_labels_are_spread_evenly(records: list[dict[str, Any]]) -> None:
    for part in ("answer", "rationale"):
        counts = Counter(record[f"{part}_label"] for record in records)
        assert min(counts[k] for k in range(CHOICES)) > 0.12 * len(records)


def test_records_have_vcrs_fields(world: Path, records: list[dict[str, Any]]) -> None:
    for record in records:
        assert set(record) == FIELDS
        assert "@" in record["img_fn"]
        assert (world / "vcr" / "vcr1images" / record["img_fn"]).is_file()
        assert record["annot_id"].startswith(record["img_id"].split("-")[0])
    assert len({record["annot_id"] for record in records}) == len(records)


def test_index_lists_and_numbered_texts_name_the_same_objects(records: list[dict[str, Any]]) -> None:
    several = 0
    for record in records:
        right = {part: record[f"{part}_choices"][record[f"{part}_label"]] for part in ("answer", "rationale")}
        for name, tokens in {"question": record["question"], **right}.items():
            lists = [token for token in tokens if isinstance(token, list)]
            assert all(0 <= k < len(record["objects"]) for token in lists for k in token)
            several += any(len(token) > 1 for token in lists)
            numbered = " ".join(
                token if isinstance(token, str) else " and ".join(str(k + 1) for k in token) for token in tokens
            )
            assert record[f"{name}_orig"] == numbered
    assert several


def test_some_texts_hold_ordinary_numbers(records: list[dict[str, Any]]) -> None:
    ordinary = [
        record
        for record in records
        if any(isinstance(t, str) and t.isdigit() for choice in record["answer_choices"] for t in choice)
    ]
    assert 0.05 * len(records) < len(ordinary) < 0.5 * len(records)


def test_metadata_holds_the_objects_of_the_scene(
    read: Any, records: list[dict[str, Any]], drawn: dict[int, Scene]
) -> None:
    for record in records:
        scene = drawn[number_of(record)]
        metadata = read(f"vcr/vcr1images/{record['metadata_fn']}")
        assert set(metadata) == {"boxes", "segms", "names", "width", "height"}
        assert metadata["names"] == record["objects"] == [thing.category for thing in scene.objects]
        for k, thing in enumerate(scene.objects):
            *box, score = metadata["boxes"][k]
            assert tuple(box) == thing.box
            assert 0 < score <= 1
            points = np.concatenate([np.array(polygon) for polygon in metadata["segms"][k]])
            assert (*points.min(0), *points.max(0)) == thing.box


def test_outlines_are_the_masks_to_a_border_of_a_pixel(read: Any, records: list[dict[str, Any]], drawn: Any) -> None:
    for record in records[::8]:
        metadata = read(f"vcr/vcr1images/{record['metadata_fn']}")
        for polygons, mask in zip(metadata["segms"], drawn[number_of(record)].masks, strict=True):
            canvas = Image.new("1", (metadata["width"], metadata["height"]))
            for polygon in polygons:
                ImageDraw.Draw(canvas).polygon([tuple(point) for point in polygon], fill=1)
            union = np.asarray(canvas) | mask
            assert (np.asarray(canvas) & mask).sum() > 0.8 * union.sum()


def test_places_are_asked_only_where_they_are_clear(drawn: dict[int, Scene], records: list[dict[str, Any]]) -> None:
    for record in records:
        for match in re.finditer(r"#(\d+) is to the \w+ of #(\d+)", spoken(record["answer_choices"][0])):
            one, other = int(match[1]), int(match[2])
            scene = drawn[number_of(record)]
            assert comparable(scene, "left_right", one, other)
            assert comparable(scene, "front_behind", one, other)
