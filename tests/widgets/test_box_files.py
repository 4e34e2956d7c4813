"""Boxes from a file: CSV with and without a header, COCO's annotations and results, and errors in files."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from mutations import cases, ends_well, garbled, mutated, written

from gpt4roi_nb.widgets.box_files import MAX_BOXES, read_boxes

SIZE = (640, 480)
BOX = (10.0, 20.0, 40.0, 60.0)


@pytest.mark.parametrize(
    "text",
    [
        "x1,y1,x2,y2\n10,20,40,60",
        "10,20,40,60\n",
        "score;X;Y;Width;Height\n0.5;10;20;30;40\n\n",
        "\ufeffx\ty\twidth\theight\n10\t20\t30\t40",
        json.dumps([{"image_id": 1, "bbox": [10, 20, 30, 40], "category_id": 3, "score": 0.5}]),
        "\ufeff" + json.dumps([{"image_id": 1, "bbox": [10, 20, 30, 40]}]),
        json.dumps({"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [10, 20, 30, 40]}]}),
    ],
)
def test_a_box_in_each_form(text: str) -> None:
    found = read_boxes(text, *SIZE)
    assert (found.boxes, found.names, found.left_out) == ((BOX,), ("",), 0)


def test_names_are_told_apart_and_what_cannot_be_one_is_left_out() -> None:
    text = "x1,y1,x2,y2,label\n" + "".join(f"0,0,{9 + i},9,{name}\n" for i, name in enumerate(
        ["cup", "Cup", "cup 2", "region 1", "7", "a" * 99, "cup"]))  # fmt: skip
    assert read_boxes(text, *SIZE).names == ("cup", "Cup 2", "cup 2 2", "", "", "a" * 37, "cup 3")


def test_of_a_coco_file_the_image_of_this_size_is_meant() -> None:
    images = [{"id": 1, "width": 640, "height": 480}, {"id": 2, "width": 100, "height": 100}]
    annotations = [{"image_id": i, "bbox": [10, 20, 30, 40], "category_id": i} for i in (2, 1)]
    categories = [{"id": 1, "name": "kettle"}, {"id": 2, "name": "cup"}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    assert read_boxes(json.dumps(coco), *SIZE).names == ("kettle",)
    with pytest.raises(ValueError, match="boxes of 2 images"):
        read_boxes(json.dumps(coco), 50, 50)


def test_boxes_outside_are_left_out_and_the_surest_are_taken() -> None:
    rows = [f"0,0,{i + 2},10,,{i}" for i in range(MAX_BOXES + 5)] + ["700,0,800,10,,99", "0,0,nan,9,,99"]
    found = read_boxes("x1,y1,x2,y2,name,score\n" + "\n".join(rows), *SIZE)
    assert len(found.boxes) == MAX_BOXES
    assert found.left_out == 7
    assert found.boxes[0][2] == MAX_BOXES + 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "columns are missing"),
        ("a,b\n1,2", "columns are a, b"),
        ("{", "not a JSON file"),
        ("[" * 100_000, "nests lists or objects more than 100 deep"),
        ('{"annotations": 5}', "its annotations are no list: 5"),
        ('[{"image_id": [1], "bbox": [1, 2, 30, 40]}]', "no annotations"),
        ("x1,y1,x2,y2,name\n1,1,20,30," + "a" * 200_000, "cannot be read as a table: field larger than field limit"),
        ("[]", "no annotations"),
        ("x1,y1,x2,y2\n900,900,950,950", "no box of the file is in this image of 640 × 480"),
        ('[{"image_id": 1, "bbox": "box"}]', "four numbers"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_boxes(text, *SIZE)


def test_a_line_break_of_unicode_is_part_of_a_name() -> None:
    found = read_boxes("x1,y1,x2,y2,name\n1,1,20,30,red\u2028cup\n1,1,20,30,tea\x85pot\r\n1,1,20,30,mug", *SIZE)
    assert found.names == ("red cup", "tea pot", "mug")


def test_an_entry_that_is_no_box_is_counted() -> None:
    box = {"image_id": 1, "bbox": [10, 20, 30, 40]}
    found = read_boxes(json.dumps([box, 5, {**box, "image_id": [1]}, {**box, "bbox": None}]), *SIZE)
    assert (found.boxes, found.left_out) == ((BOX,), 3)


def test_a_damaged_file() -> None:
    csv = b"x1,y1,x2,y2,name,score\n10,20,40,60,cup,0.5\n1,2,30,40,tea pot,0.25\n"
    coco = {
        "images": [{"id": 1, "width": 640, "height": 480}, {"id": 2, "width": 64, "height": 48}],
        "annotations": [
            {"image_id": i, "bbox": [10, 20, 30, 40], "category_id": i, "score": 0.5} for i in (1, 1, 2)
        ],
        "categories": [{"id": 1, "name": "kettle"}, {"id": 2, "name": "cup"}],
    }  # fmt: skip

    @cases
    def case(rng: random.Random) -> None:
        content = rng.choice((coco, coco["annotations"][:2]))
        data = garbled(csv, rng) if rng.random() < 0.4 else written(mutated(content, rng), rng)
        with ends_well():
            found = read_boxes(data.decode("utf-8", "replace"), *SIZE)
            assert len(found.boxes) == len(found.names) and found.left_out >= 0
            x1, y1, x2, y2 = np.array(found.boxes).T
            assert (x1 >= 0).all() and (x1 < x2).all() and (x2 <= 640).all() and (y2 <= 480).all() and (y1 < y2).all()
            "".join(found.names).encode()  # as JSON to the browser

    case()
