"""RefCOCO/+/g, Visual Genome, Flickr30k and LLaVA of the generated world: true, and in the published forms."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4roi_nb.data.scenes.formats.expressions import Expression, by_looks, by_neighbour, by_place
from gpt4roi_nb.data.scenes.scene import (
    CATEGORIES,
    COLOURS,
    MATERIALS,
    MAX_OBJECTS,
    SIZES,
    Scene,
    SceneObject,
    make_scene,
)

DATASETS = ("refcoco", "refcoco+", "refcocog")
REFS = {"refcoco": "refs(unc).p", "refcoco+": "refs(unc).p", "refcocog": "refs(umd).p"}
SIDES = {
    "left": ("left",),
    "right": ("right",),
    "front": ("front", "closest", "closer", "nearest"),
    "back": ("back", "behind", "furthest", "further"),
}


def look_words(text: str) -> set[str]:
    return set(text.split()) & {*CATEGORIES, *COLOURS, *MATERIALS, *SIZES}


def looks_of(thing: SceneObject) -> set[str]:
    return set(thing.phrase.split())


def understood(scene: Scene, text: str) -> list[int]:
    """Which objects a referring expression fits, read anew from its words alone."""
    if match := re.fullmatch(
        r"(.+?)(?: that is)? (to the left of|left of|to the right of|right of|in front of|closer than|behind|"
        r"further back than) (the .+)",
        text,
    ):
        head, relation, tail = match.groups()
        landmarks = understood(scene, tail)
        assert len(landmarks) == 1, text
        landmark = scene.objects[landmarks[0]]
        found = []
        for index in understood(scene, head):
            thing = scene.objects[index]
            middle, other = (sum(t.box[::2]) / 2 for t in (thing, landmark))
            nearer = thing.position[1] < landmark.position[1]
            so = {"left": middle < other, "right": middle > other, "front": nearer, "closer": nearer}
            word = next((word for word in so if word in relation.split()), "")
            if index != landmarks[0] and so.get(word, not nearer):
                found.append(index)
        return found
    found = [k for k, thing in enumerate(scene.objects) if look_words(text) <= looks_of(thing)]
    words = text.split()
    side = next((side for side, names in SIDES.items() if {side, f"{side}most"} & set(words)), None)
    if side is None:
        side = "front" if {"closest", "nearest"} & set(words) else "back" if "furthest" in words else None
    if side is None:
        return found
    reach = {
        "left": lambda thing: -thing.box[0] - thing.box[2],
        "right": lambda thing: thing.box[0] + thing.box[2],
        "front": lambda thing: -thing.position[1],
        "back": lambda thing: thing.position[1],
    }[side]
    return [max(found, key=lambda index: reach(scene.objects[index]))]


def refs(world: Path, dataset: str) -> Any:
    return pickle.loads((world / dataset / REFS[dataset]).read_bytes())


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_expression_picks_exactly_the_object_it_belongs_to(
    world: Path, drawn: dict[int, Scene], dataset: str
) -> None:
    count = 0
    for ref in refs(world, dataset):
        index = (ref["ann_id"] - 1) % MAX_OBJECTS
        for sentence in ref["sentences"]:
            assert understood(drawn[ref["image_id"]], sentence["sent"]) == [index], sentence["sent"]
            count += 1
    assert count > 200


@pytest.mark.parametrize("seed", range(12))
def test_expressions_are_checked_against_all_other_objects(seed: int) -> None:
    scene = make_scene(seed, size=168, n_objects=9)
    rng = np.random.default_rng(seed)
    for index in range(len(scene.objects)):
        for draft in (*by_looks(scene, index), *by_place(scene, index), *by_neighbour(scene, index, rng)):
            assert understood(scene, draft.words(rng)) == [index], draft


def test_a_side_too_close_to_call_picks_nothing() -> None:
    scene = make_scene(3, n_objects=8)
    for side in ("left", "right", "front", "back"):
        found = Expression((), side).chosen(scene)
        assert len(found) <= 1


def test_refcoco_plus_says_nothing_about_place_and_refcocog_says_more(world: Path) -> None:
    texts = {name: [s["sent"] for ref in refs(world, name) for s in ref["sentences"]] for name in DATASETS}
    places = {word for words in SIDES.values() for word in words} | {"leftmost", "rightmost", "of", "on", "in", "at"}
    assert not [text for text in texts["refcoco+"] if places & set(text.split())]
    assert sum(bool(places & set(text.split())) for text in texts["refcoco"]) > 0.2 * len(texts["refcoco"])
    words = {name: np.mean([len(text.split()) for text in texts[name]]) for name in DATASETS}
    assert words["refcocog"] > 1.5 * words["refcoco"]


@pytest.mark.parametrize("dataset", DATASETS)
def test_refs_have_uncs_fields(world: Path, read: Any, dataset: str) -> None:
    instances = read(f"{dataset}/instances.json")
    images = {record["id"]: record["file_name"] for record in instances["images"]}
    annotations = {record["id"]: record for record in instances["annotations"]}
    found = refs(world, dataset)
    for ref in found:
        assert set(ref) == {
            "sent_ids", "file_name", "ann_id", "ref_id", "image_id", "split", "sentences", "category_id",
        }  # fmt: skip
        assert not (world / "coco" / "train2014" / ref["file_name"]).exists()
        assert (world / "coco" / "train2014" / images[ref["image_id"]]).is_file()
        annotation = annotations[ref["ann_id"]]
        assert (annotation["image_id"], annotation["category_id"]) == (ref["image_id"], ref["category_id"])
        assert ref["split"] == ("val" if ref["image_id"] % 10 == 1 else "train")
        for sentence, sent_id in zip(ref["sentences"], ref["sent_ids"], strict=True):
            assert set(sentence) == {"tokens", "raw", "sent_id", "sent"}
            assert sentence["sent_id"] == sent_id
            assert " ".join(sentence["tokens"]) == sentence["sent"] == sentence["raw"].lower()
    assert any(s["raw"].isupper() for ref in found for s in ref["sentences"])
    ids = [sent_id for ref in found for sent_id in ref["sent_ids"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("dataset", DATASETS)
def test_mdetr_files_hold_one_record_per_sentence(world: Path, read: Any, dataset: str) -> None:
    sentences = {s["sent_id"]: (s["sent"], ref) for ref in refs(world, dataset) for s in ref["sentences"]}
    seen = set()
    for split in ("train", "val"):
        content = read(f"{dataset}/finetune_{dataset}_{split}.json")
        annotations = {record["image_id"]: record for record in content["annotations"]}
        for image in content["images"]:
            text, ref = sentences[image["id"]]
            seen.add(image["id"])
            assert image["caption"] == text == text.lower()
            assert (image["original_id"], image["dataset_name"]) == (ref["image_id"], dataset)
            assert (world / "coco" / "train2014" / image["file_name"]).is_file()
            annotation = annotations[image["id"]]
            assert annotation["original_id"] == ref["ann_id"]
            assert annotation["tokens_positive"] == [[0, len(text)]]
    assert seen == set(sentences)


def test_flickr_phrases_own_the_boxes_of_all_that_they_mean(read: Any, drawn: dict[int, Scene]) -> None:
    several = 0
    for split in ("train", "val"):
        content = read(f"flickr30k/final_flickr_separateGT_{split}.json")
        owned: dict[tuple[int, int, int], list[list[float]]] = {}
        for record in content["annotations"]:
            ((start, end),) = record["tokens_positive"]
            owned.setdefault((record["image_id"], start, end), []).append(record["bbox"])
        for image in content["images"]:
            assert (image["height"], image["width"]) == ("336", "336")
            scene = drawn[image["original_img_id"]]
            spans = [tuple(span) for (span,) in image["tokens_positive_eval"]]
            boxes = []
            for start, end in spans:
                phrase = image["caption"][start:end]
                words = {word.removesuffix("s") if word != "cylinders" else "cylinder" for word in phrase.split()}
                meant = [thing for thing in scene.objects if words & looks_of(thing) == look_words(" ".join(words))]
                found = owned[image["id"], start, end]
                assert sorted(found) == sorted(xywh(thing) for thing in meant), phrase
                several += len(found) > 1
                boxes += found
            assert len(boxes) == len(scene.objects)
    assert several


def xywh(thing: SceneObject) -> list[float]:
    x1, y1, x2, y2 = thing.box
    return [x1, y1, x2 - x1, y2 - y1]


def test_visual_genomes_phrases_are_true_of_their_regions(world: Path, read: Any, drawn: dict[int, Scene]) -> None:
    coco_like = {
        record["id"]: record for split in ("train", "val") for record in read(f"vg/{split}.json")["annotations"]
    }
    untidy = 0
    for image in read("vg/region_descriptions.json"):
        things = drawn[image["id"]].objects
        for region in image["regions"]:
            box = [region["x"], region["y"], region["width"], region["height"]]
            assert all(type(value) is int for value in box)
            record = coco_like.pop(region["region_id"])
            assert (record["bbox"], record["caption"], record["image_id"]) == (box, region["phrase"], image["id"])
            untidy += region["phrase"].endswith(" ")
            phrase = region["phrase"].replace("wood", "wooden").replace("woodenen", "wooden")
            whole = [thing for thing in things if xywh(thing) == box]
            if whole and " of " not in phrase.replace("made of", ""):
                assert look_words(phrase) <= looks_of(whole[0]), phrase
    assert not coco_like
    assert untidy
    for record in read("vg/image_data.json"):
        assert (world / "vg" / "/".join(record["url"].split("/")[-2:])).is_file()


@pytest.mark.samples
def test_visual_genome_has_the_genuine_fields(samples: Path, read: Any) -> None:
    genuine = json.loads((samples / "visual_genome" / "region_descriptions_sample.json").read_text())[0]
    ours = read("vg/region_descriptions.json")[0]
    assert set(ours) == set(genuine)
    assert set(ours["regions"][0]) == set(genuine["regions"][0])


def test_conversations_take_turns_and_show_the_image_once(world: Path, read: Any) -> None:
    ends = set()
    for record in read("llava/llava_instruct_150k.json"):
        assert set(record) == {"id", "image", "conversations"}
        assert (world / "coco" / "train2017" / record["image"]).is_file()
        assert record["image"] == f"{record['id']}.jpg"
        speakers = [turn["from"] for turn in record["conversations"]]
        assert speakers == ["human", "gpt"] * (len(speakers) // 2)
        assert speakers
        first, *rest = [turn["value"] for turn in record["conversations"]]
        assert not any("<image>" in text or "<region" in text for text in rest)
        ends.add((first.startswith("<image>\n"), first.endswith("\n<image>")))
    assert ends == {(True, False), (False, True)}


def test_conversations_about_one_thing_are_right(read: Any, drawn: dict[int, Scene]) -> None:
    checked = 0
    for record in read("llava/llava_instruct_150k.json"):
        things = drawn[int(record["id"])].objects
        for turn in record["conversations"]:
            if turn["from"] == "gpt" and (match := re.match(r"The (.+?) is (?:made of )?(.+)\.$", turn["value"])):
                noun, value = match.groups()
                meant = [thing for thing in things if look_words(noun) <= looks_of(thing)]
                assert len(meant) == 1
                assert {"wood": "wooden"}.get(value, value.split()[-1]) in looks_of(meant[0])
                checked += 1
    assert checked > 20


def test_detections_are_the_same_in_both_files_and_hold_the_boxes(world: Path, drawn: dict[int, Scene]) -> None:
    records = pickle.loads((world / "llava" / "llava_150k_bbox_pred_results.pkl").read_bytes())
    with np.load(world / "llava" / "llava_150k_bbox_pred_results.npz", allow_pickle=False) as arrays:
        parts = np.split(arrays["pred_bboxes"], arrays["offsets"][1:-1])
        assert arrays["filename"].tolist() == [record["filename"] for record in records]
        assert np.array_equal(arrays["labels"], np.concatenate([record["labels"] for record in records]))
    categories = json.loads((world / "lvis" / "lvis_v1_val.json").read_text())["categories"]
    for number, (record, part) in enumerate(zip(records, parts, strict=True), start=1):
        assert set(record) == {"filename", "pred_bboxes", "labels"}
        named = [categories[label]["name"] for label in record["labels"]]  # a label counts LVIS's categories from 0
        assert all(name.startswith(thing.colour) for name, thing in zip(named, drawn[number].objects, strict=True))
        assert record["filename"] == f"{number:012d}.jpg"
        assert np.array_equal(record["pred_bboxes"], part)
        truth = [thing.box for thing in drawn[number].objects]
        assert np.allclose(record["pred_bboxes"][:, :4] * 336, truth, atol=1e-3)
        assert np.all((record["pred_bboxes"][:, 4] >= 0.5) & (record["pred_bboxes"][:, 4] <= 1))
