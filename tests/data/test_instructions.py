"""Wording: repeatable, varied, and always with boxes that are those of the regions it names."""

import json
import pickle
import re
from pathlib import Path
from string import ascii_letters
from typing import Any

import annotation_files as files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4roi_nb.data import instruction_texts
from gpt4roi_nb.data.dataset import FORMATS
from gpt4roi_nb.data.instructions import instruct
from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.data.protocol_texts import choice_question
from gpt4roi_nb.data.record import (
    CAPTION,
    CATEGORY,
    DETECTED_DIALOGUE,
    EXPRESSION,
    GROUNDING,
    Annotation,
    Record,
    harmless,
    one_line,
)
from gpt4roi_nb.prompt import check_turns, references, region

SIDE = 1000
# Every thing is called by its box, so that any mix-up of numbers shows.
corners = st.tuples(st.integers(0, 900), st.integers(0, 900), st.integers(2, 90), st.integers(2, 90))
things = st.lists(corners, min_size=1, max_size=25, unique=True)
# What people write that looks like a reference, and is none.
nasty = st.sampled_from(["", " ", "<region1>", "< region 2 >", "<<region3>>", "<REGION4", "\ud800", "<image>", "###"])
words = st.text(ascii_letters + " <>region12", min_size=1, max_size=12)


def name_of(box: Any) -> str:
    return "thing-" + "-".join(str(int(value)) for value in box)


def xyxy(xywh: tuple[int, int, int, int]) -> list[int]:
    x, y, w, h = xywh
    return [x, y, x + w, y + h]


def told(annotation: Annotation, seed: int) -> tuple[Record, list[tuple[str, int]]]:
    """The record, and each (name of a thing, number of the region) that its texts put side by side."""
    record = instruct(annotation, seed)
    check_turns(record.turns)
    asked = {number for role, text in record.turns if role == "user" for number in references(text)}
    assert asked == set(range(1, len(record.boxes) + 1))
    pairs = []
    if annotation.kind in instruct_one_by_one:
        for (_, question), (_, answer) in zip(record.turns[::2], record.turns[1::2], strict=True):
            (number,) = references(question)
            pairs += [(name, number) for name in re.findall(r"thing[-\d]+", answer)]
    else:
        for _, text in record.turns:
            pairs += [(name, int(number)) for name, number in re.findall(r"(thing[-\d]+) \(?<region(\d+)>", text)]
    return record, pairs


instruct_one_by_one = ("category", "expression", "caption")


def parsed(format: str, folder: Path, content: Any, **options: Any) -> list[Annotation]:
    file = folder / "annotations.json"
    file.write_text(json.dumps(content))
    problems = Problems()
    found = list(FORMATS[format](file, problems, folder, **options))
    assert not problems.counts()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    files.image_files(folder, "1.jpg")
    return folder


def agree(annotations: list[Annotation], seed: int) -> int:
    pairs = 0
    for annotation in annotations:
        record, found = told(annotation, seed)
        for name, number in found:
            assert name_of(record.boxes[number - 1]) == name
        pairs += len(found)
    return pairs


def coco_like(boxes: list[tuple[int, int, int, int]], **of_image: Any) -> dict[str, Any]:
    image = {"id": 1, "file_name": "1.jpg", "width": SIDE, "height": SIDE, **of_image}
    annotations = [
        {"id": k, "image_id": 1, "bbox": list(box), "category_id": k, "caption": name_of(xyxy(box))}
        for k, box in enumerate(boxes)
    ]
    categories = [{"id": k, "name": name_of(xyxy(box))} for k, box in enumerate(boxes)]
    return {"images": [image], "annotations": annotations, "categories": categories}


@given(boxes=things, seed=st.integers(0, 99))
def test_regions_and_boxes_agree_in_coco_and_visual_genome(folder: Path, boxes: Any, seed: int) -> None:
    content = coco_like(boxes)
    expected = min(len(boxes), 15)
    assert agree(parsed("coco", folder, content), seed) == len(boxes)
    assert agree(parsed("visual_genome", folder, content), seed) == expected
    regions = [dict(zip(("x", "y", "width", "height"), box, strict=True)) for box in boxes]
    for entry, box in zip(regions, boxes, strict=True):
        entry["phrase"] = name_of(xyxy(box))
    assert agree(parsed("visual_genome", folder, [{"id": 1, "regions": regions}]), seed) == expected


@given(boxes=things, seed=st.integers(0, 99))
def test_regions_and_boxes_agree_in_refcoco(folder: Path, boxes: Any, seed: int) -> None:
    images = [
        {"id": k, "file_name": "1.jpg", "width": str(SIDE), "height": SIDE, "caption": name_of(xyxy(box))}
        for k, box in enumerate(boxes)
    ]
    annotations = [{"id": k, "image_id": k, "bbox": list(box)} for k, box in enumerate(boxes)]
    assert agree(parsed("refcoco", folder, {"annotations": annotations, "images": images}), seed) == len(boxes)


@given(boxes=things, seed=st.integers(0, 99), form=st.sampled_from(["refs", "captions"]), data=st.data())
def test_regions_and_boxes_agree_in_refcoco_beside_an_instances_file(
    folder: Path, boxes: Any, seed: int, form: str, data: Any
) -> None:
    """UNC's pickles, and captions by annotation id; neither names its objects in the order of the instances."""
    instances = coco_like(boxes)
    order = data.draw(st.permutations(list(enumerate(boxes))))
    if form == "refs":
        file = folder / "refs(unc).p"
        refs = [
            {"ann_id": k, "image_id": 1, "split": "train", "sentences": [{"sent_id": k, "sent": name_of(xyxy(box))}]}
            for k, box in order
        ]
        file.write_bytes(pickle.dumps(refs))
    else:
        captions = {str(k): [{"image_id": 1, "id": k, "caption": [name_of(xyxy(box))]}] for k, box in order}
        file = files.write(folder / "captions.json", captions)
    problems = Problems()
    options = {"instances": files.write(folder / "instances.json", instances)}
    assert agree(list(FORMATS["refcoco"](file, problems, folder, **options)), seed) == len(boxes)
    assert not problems.counts()


@given(boxes=things, filler=st.lists(words | nasty, min_size=25, max_size=25), data=st.data())
def test_regions_and_boxes_agree_in_flickr(folder: Path, boxes: Any, filler: list[str], data: Any) -> None:
    caption, spans = "", []
    for box, word in zip(boxes, filler, strict=False):
        caption += f"{word} "
        spans.append([len(caption), len(caption) + len(name_of(xyxy(box)))])
        caption += f"{name_of(xyxy(box))} "
    content = coco_like(boxes, caption=caption)
    for entry, span in zip(content["annotations"], spans, strict=True):
        entry["tokens_positive"] = [span]
    content["annotations"] = data.draw(st.permutations(content["annotations"]))
    assert agree(parsed("flickr30k", folder, content), 0) == len(boxes)


@given(
    boxes=things,
    rendering=st.sampled_from(["all", "single", "several", "choice"]),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_regions_and_boxes_agree_in_vcr(folder: Path, boxes: Any, rendering: str, seed: int, data: Any) -> None:
    index = st.integers(0, len(boxes) - 1)
    cited = index.map(lambda k: [name_of(xyxy(boxes[k])), [k]])
    said = st.lists(cited | st.lists(words | nasty, min_size=1, max_size=2), min_size=1, max_size=4).map(
        lambda pieces: ["so", *(token for piece in pieces for token in piece)]
    )
    line = files.vcr_line(
        objects=["person"] * len(boxes), metadata_fn="1.json", img_fn="1.jpg", question=data.draw(said),
        answer_choices=data.draw(st.lists(said, min_size=4, max_size=4)),
        rationale_choices=data.draw(st.lists(said, min_size=4, max_size=4)),
    )  # fmt: skip
    files.write(folder / "1.json", {"boxes": [[*xyxy(box), 0.9] for box in boxes], "width": SIDE, "height": SIDE})
    named = agree(parsed("vcr", folder, line, rendering=rendering), seed)
    if rendering == "all":  # where every line fits; it says the question, the right answer and the right rationale
        told = (line["question"], line["answer_choices"][1], line["rationale_choices"][0])
        assert named == sum(isinstance(token, list) for tokens in told for token in tokens)


@given(boxes=things, first=words | nasty, answer=words | nasty, seed=st.integers(0, 9))
def test_regions_and_boxes_agree_in_llava(folder: Path, boxes: Any, first: str, answer: str, seed: int) -> None:
    rows = [[value / SIDE for value in xyxy(box)] + [1 - k / 100] for k, box in enumerate(boxes)]
    np.savez(folder / "boxes.npz", filename=["1.jpg"], offsets=[0, len(rows)], pred_bboxes=rows)
    turns = [{"from": "human", "value": f"<image>\nq{first}"}, {"from": "gpt", "value": f"a{answer}"}]
    content = [{"id": "1", "image": "1.jpg", "conversations": turns}]
    if "<image>" in first + answer:
        return
    problems = Problems()
    file = files.write(folder / "annotations.json", content)
    (annotation,) = FORMATS["llava"](file, problems, folder, boxes=folder / "boxes.npz", min_side=0, fallback=0)
    record = instruct(annotation, seed, shown=1)
    size = np.array([files.WIDTH, files.HEIGHT] * 2)
    kept = [row for row in rows if min((np.array(row[:4]) * size)[2:] - (np.array(row[:4]) * size)[:2]) >= 1]
    assert len(record.boxes) == len(kept)  # of less than a pixel, none
    order = [
        row[:4] for row in rows if any(np.allclose(np.array(row[:4]) * size, box, atol=1e-3) for box in record.boxes)
    ]
    np.testing.assert_allclose(record.boxes, np.array(order).reshape(-1, 4) * size, atol=1e-3)


@given(text=st.lists(words | nasty, max_size=6).map("".join))
def test_no_text_of_a_file_becomes_a_reference(text: str) -> None:
    for made in (one_line(text), harmless(text)):
        assert references(made) == []
        check_turns([("user", f"x {made}")])


def test_wording_depends_on_seed_source_and_id_alone_and_varies() -> None:
    def one(number: int, source: str = "refcoco") -> Annotation:
        return Annotation(EXPRESSION, "1.jpg", np.array([[0, 0, 9, 9]], np.float32), ("it",), source, str(number))

    forward = [instruct(one(number), 7) for number in range(200)]
    backward = [instruct(one(number), 7) for number in reversed(range(200))]
    assert forward == backward[::-1]
    questions = {record.turns[0][1] for record in forward}
    assert len(questions) >= 10
    others = (
        [instruct(one(n), 8) for n in range(200)],
        [instruct(one(n, "refcocog"), 7) for n in range(200)],
        [instruct(one(n), 7, epoch=1) for n in range(200)],
    )
    for other in others:
        assert [record.turns for record in other] != [record.turns for record in forward]


@pytest.mark.parametrize("name", [name for name, group in vars(instruction_texts).items() if isinstance(group, tuple)])
def test_there_are_at_least_ten_different_wordings(name: str) -> None:
    variants = getattr(instruction_texts, name)
    assert len(set(variants)) == len(variants) >= 10


def test_of_many_boxes_some_are_chosen_and_each_keeps_its_name() -> None:
    boxes = np.array([[k, 0, k + 2, 9] for k in range(40)], np.float32)
    annotation = Annotation(CATEGORY, "1.jpg", boxes, tuple(name_of(box) for box in boxes), "coco", "1")
    record = instruct(annotation, 0, max_regions=5)
    assert len(record.boxes) == 5
    assert [answer for role, answer in record.turns if role == "assistant"] == [name_of(box) for box in record.boxes]


@pytest.mark.parametrize(("kind", "most"), [(CATEGORY, 100), (EXPRESSION, 15), (CAPTION, 15), (GROUNDING, 150)])
def test_as_published_a_conversation_has_at_most_so_many_regions(kind: str, most: int) -> None:
    boxes = np.array([[k, 0, k + 2, 9] for k in range(160)], np.float32)
    said = tuple(name_of(box) for box in boxes)
    if kind == GROUNDING:
        said = ("things " + "".join(f"{name} ({region(k)})" for k, name in enumerate(said, 1)),)
    annotation = Annotation(kind, "1.jpg", boxes, said, "x", "1")
    assert [len(instruct(annotation, max_regions=count).boxes) for count in (None, 7, 1000)] == [most, 7, 160]


def test_a_caption_keeps_the_references_to_the_regions_that_are_chosen() -> None:
    caption = "a man (<region1>) beside (as it were) two dogs (<region2> and <region3>), a cat (<region4>)"
    boxes = np.array([[k, 0, k + 2, 9] for k in range(4)], np.float32)
    seen = set()
    for epoch in range(40):
        record = instruct(Annotation(GROUNDING, "1.jpg", boxes, (caption,), "x", "1"), epoch=epoch, max_regions=2)
        chosen = tuple(int(box[0]) for box in record.boxes)
        answer = record.turns[1][1]
        seen.add(chosen)
        assert (chosen != (0, 3)) or answer == "a man (<region1>) beside (as it were) two dogs, a cat (<region2>)"
        assert (chosen != (1, 2)) or answer == ("a man beside (as it were) two dogs (<region1> and <region2>), a cat")
    assert {(0, 3), (1, 2)} <= seen


def test_half_of_the_dialogues_have_their_detected_boxes_with_what_they_may_be() -> None:
    boxes = np.array([[0, 0, 9, 9], [9, 9, 20, 20]], np.float32)
    given = Annotation(DETECTED_DIALOGUE, "1.jpg", boxes, ("dog", "toy car", "What is it?", "A dog."), "llava", "1")
    records = [instruct(given, epoch=epoch) for epoch in range(200)]
    shown = [record for record in records if len(record.boxes)]
    assert 70 < len(shown) < 130
    assert all("<region1> may feature a dog, <region2> may feature a toy car" in r.turns[0][1] for r in shown)
    assert all(record.turns[0][1].endswith("What is it?") and record.turns[1][1] == "A dog." for record in records)
    assert {len(instruct(given, epoch=epoch, shown=0).boxes) for epoch in range(9)} == {0}


def test_a_record_whose_text_and_boxes_disagree_is_refused() -> None:
    box = np.array([[0, 0, 9, 9]], np.float32)
    for turns in ((("user", "What?"), ("assistant", "x")), (("user", "<region1>?"), ("assistant", "<region2>"))):
        with pytest.raises(ValueError, match=r"name each region from 1 to 1"):
            Record("1.jpg", box, turns, "coco", "1")


def test_a_choice_without_regions_has_no_opening() -> None:
    assert choice_question(0, "Why?", ["a", "b", "c", "d"]).startswith("Question: Why?")
