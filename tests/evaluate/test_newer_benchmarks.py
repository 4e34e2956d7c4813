"""GAR-Bench-VQA, V*Bench and Ref-L4: questions, cases worked out by hand, and broken files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco_mask

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.data.run_lengths import compressed
from gpt4roi_nb.evaluate import BENCHMARKS, evaluate
from gpt4roi_nb.evaluate.__main__ import main
from gpt4roi_nb.evaluate.benchmarks import captions, gar_bench, vstar
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.benchmarks.registry import check_files
from gpt4roi_nb.evaluate.predict import BatchedPredictor

NAMES = ("gar_bench", "vstar_bench", "ref_l4")  # and folders
SIZE = 96  # of the world's images


def listed(name: str, root: Path, split: str | None = None) -> tuple[list[Item], Problems]:
    problems = Problems()
    return list(BENCHMARKS[name].items(EvalConfig(root, split or BENCHMARKS[name].splits[0]), problems)), problems


def scored(name: str, items: list[Item], answers: list[str], size: int = SIZE) -> Scores:
    said = [
        Prediction(item.id, answer, -0.5, None, 0.1, size, size) for item, answer in zip(items, answers, strict=True)
    ]
    return BENCHMARKS[name].score(items, said, EvalConfig(Path("."), BENCHMARKS[name].splits[0]))


def figures(scores: Scores) -> dict[str, float]:
    return {name: metric.value for name, metric in scores.metrics.items()}


@pytest.fixture
def own(world: Path, tmp_path: Path) -> Path:
    """The three datasets of the world, to be damaged."""
    for folder in NAMES:
        shutil.copytree(world / folder, tmp_path / folder)
    return tmp_path


def other(item: Item) -> str:
    """A wrong option."""
    return item.options[(item.options.index(item.target) + 1) % len(item.options)]


# ------------------------------------------------------------------------------------------------ GAR-Bench-VQA


def test_gar_bench_asks_in_the_protocols_words_with_boxes_for_masks(world: Path) -> None:
    items, problems = listed("gar_bench", world)
    entries = json.loads((world / "gar_bench" / "GAR-Bench-VQA.json").read_text())
    assert not list(problems) and len(items) == len(entries) >= 8
    assert {item.kind for item in items} == {"color", "shape", "material", "relation"}
    for item, entry in zip(items, entries, strict=True):
        text = "\n".join([f"Question: {entry['question']}", "Options:", *entry["choices"]])
        for number in range(len(entry["mask_rles"])):
            text = text.replace(f"<Prompt{number}>", f"<region{number + 1}>")
        assert item.question == f"{text}\nAnswer with the correct option's letter directly."
        assert item.target == entry["answer"] and item.options == ("A", "B", "C", "D")[: len(entry["choices"])]
        for box, lengths in zip(item.boxes, entry["mask_rles"], strict=True):
            x, y, width, height = coco_mask.toBbox(lengths)
            assert box == (x, y, x + width, y + height)


def test_gar_bench_counts_the_letter_and_nothing_else(world: Path) -> None:
    items, _ = listed("gar_bench", world)
    items = [item for item in items if item.kind in ("color", "relation")]
    colors = [item for item in items if item.kind == "color"]
    answers = {item.id: item.target for item in items}
    answers[colors[0].id] = f" {colors[0].target.lower()}\n"  # still the letter
    answers[colors[1].id] = f"({colors[1].target})"
    answers[colors[2].id] = other(colors[2])
    scores = scored("gar_bench", items, [answers[item.id] for item in items])
    n = len(items)
    expected = {"overall": 100 * (n - 2) / n, "color": 100 * (len(colors) - 2) / len(colors), "relation": 100}
    assert figures(scores) == pytest.approx(expected)
    assert scores.counts[gar_bench.IN_OTHER_WORDS] == 1
    assert scores.counts[gar_bench.BOXES] == sum(len(item.boxes) for item in items)
    assert scores.columns["mask"] == [item.facts["masks"][item.region - 1].counts for item in items]
    assert "published" in scores.notes[0].lower() and "outline" in scores.notes[0]
    elsewhere = scored("gar_bench", items, [item.target for item in items], size=64)
    assert elsewhere.counts[gar_bench.OTHER_SIZE] == n and set(elsewhere.columns["mask"]) == {None}


def test_masks_that_hardly_fill_their_box_are_on_the_card(own: Path) -> None:
    file = own / "gar_bench" / "GAR-Bench-VQA.json"
    (entry, *_) = json.loads(file.read_text())
    corners = [0, 1, SIZE * SIZE - 2, 1]  # two pixels, and the whole image as their box
    entry["mask_rles"] = [{"size": [SIZE, SIZE], "counts": compressed(corners)}]
    file.write_text(json.dumps([entry]))
    items, problems = listed("gar_bench", own)
    assert not list(problems) and items[0].boxes == ((0, 0, SIZE, SIZE),)
    counts = scored("gar_bench", items, [items[0].target]).counts
    assert counts == {gar_bench.BOXES: 1, gar_bench.THIN: 1}


@pytest.mark.parametrize("scorer", ["generate", "likelihood"])
def test_a_stub_that_is_right_on_half_gets_fifty(world, gpt4roi: GPT4RoI, monkeypatch, scorer: str) -> None:
    half: list[str] = []

    def answers(self: Any, asked: Any, *_: Any) -> list[tuple[str, float, None]]:
        for question in asked:
            half.append(question.item.target if len(half) % 2 else other(question.item))
        return [(answer, -0.1, None) for answer in half[-len(asked) :]]

    monkeypatch.setattr(BatchedPredictor, "_write" if scorer == "generate" else "_choose", answers)
    for name, key in (("gar_bench", "overall"), ("vstar_bench", "overall")):
        half.clear()
        result = evaluate(name, gpt4roi, world, scorer=scorer, progress=False)
        right = result.predictions["correct"]
        assert right.mean() == 0.5 == right.sum() / len(result.predictions)
        part = right[~result.predictions["kind"].str.endswith(vstar.WITH_BOXES)]
        assert result.metrics[key] == pytest.approx(100 * part.mean())
    assert "without and with the boxes" in result.card.dataset


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"type": "taste"}, "wrong type", "'type' must be one of color"),
        ({"type": None}, "missing field", "no 'type'"),
        ({"choices": ["A. Red."]}, "wrong type", "two to four texts"),
        ({"choices": ["A. 1", "B. 2", "C. 3", "D. 4", "E. 5"]}, "wrong type", "two to four texts"),
        ({"choices": ["A. Red.", "C. Blue."]}, "wrong type", "two to four texts"),
        ({"choices": ["A. Red.", "B.  "]}, "wrong type", "two to four texts"),
        ({"choices": ["A. Red.", 2]}, "wrong type", "two to four texts"),
        ({"choices": "A. Red."}, "wrong type", "'choices' must be a list"),
        ({"answer": "E"}, "index out of range", "'answer' must be one of A, B"),
        ({"answer": "A. Red."}, "index out of range", "'answer' must be one of A, B"),
        ({"question": "  "}, "missing field", "'question' is empty"),
        ({"question": "What is <Prompt1>?"}, "index out of range", "there are 1 masks"),
        ({"question": "What is it?"}, "index out of range", "there are 1 masks"),
        ({"question": "What is <Prompt0> and <region2>?"}, "index out of range", "there are 1 masks"),
        ({"question": "What is <Prompt" + "9" * 5000 + ">?"}, "index out of range", "there are 1 masks"),
        ({"mask_rles": []}, "index out of range", "there are 0 masks"),
        ({"mask_rles": [{"size": [9, 9], "counts": "1"}]}, "wrong type", "do not add up"),
        ({"image": "../a.jpg"}, "path leaves its folder", "'..'"),
        ({"image": "/etc/passwd"}, "path leaves its folder", "must be a path below"),
    ],
)
def test_gar_bench_tells_what_is_wrong_with_a_question(own: Path, changes: dict, reason: str, words: str) -> None:
    file = own / "gar_bench" / "GAR-Bench-VQA.json"
    whole = json.loads(file.read_text())
    good = next(entry for entry in whole if entry["type"] == "color")
    bad = {**good, "choices": ["A. Red.", "B. Blue."], "answer": "A"} | changes
    file.write_text(json.dumps([good, bad, good]))
    items, problems = listed("gar_bench", own)
    assert len(items) == 2
    (problem,) = problems
    assert problem["reason"] == reason and words in problem["detail"] and "question 1" in problem["where"]


def test_gar_bench_is_read_in_its_repositorys_own_folder(own: Path) -> None:
    (own / "GAR-Bench").mkdir()
    (own / "gar_bench").rename(own / "GAR-Bench" / "annotations")
    check_files("gar_bench", own / "GAR-Bench", "test")
    items, problems = listed("gar_bench", own / "GAR-Bench")
    assert items and not list(problems) and Path(items[0].image).is_file()


# ------------------------------------------------------------------------------------------------ V*Bench


def test_vstar_asks_without_boxes_and_again_with_them(world: Path) -> None:
    items, problems = listed("vstar_bench", world)
    lines = [json.loads(line) for line in (world / "vstar_bench" / "test_questions.jsonl").read_text().splitlines()]
    assert not list(problems) and len(items) == 2 * len(lines) >= 8
    assert {len(item.options) for item in items if item.kind.startswith("relative")} == {2}
    for plain, boxed, line in zip(items[::2], items[1::2], lines, strict=True):
        assert (plain.question, plain.boxes, plain.target) == (line["text"], (), f"({line['label']})")
        facts = json.loads((world / "vstar_bench" / line["image"]).with_suffix(".json").read_text())
        things = "; ".join(f"{name} <region{k}>" for k, name in enumerate(facts["target_object"], 1))
        assert boxed.question == f"Additional visual information to focus on: {things}.\n{line['text']}"
        assert boxed.boxes == tuple((x, y, x + w, y + h) for x, y, w, h in facts["bbox"])
        assert (plain.kind + ", boxes given", plain.group) == (boxed.kind, boxed.group)


def test_vstar_keeps_the_figures_with_boxes_apart(world: Path) -> None:
    items, _ = listed("vstar_bench", world)
    kinds = [item.kind for item in items]
    n, m = kinds.count("direct_attributes"), kinds.count("relative_position")
    wrong = {kinds.index("direct_attributes"), kinds.index("relative_position, boxes given")}
    answers = [other(item) if k in wrong else item.target for k, item in enumerate(items)]
    scores = scored("vstar_bench", items, answers)
    assert figures(scores) == pytest.approx(
        {
            "overall": 100 * (n + m - 1) / (n + m),
            "attribute": 100 * (n - 1) / n,
            "spatial": 100,
            "overall (boxes given)": 100 * (n + m - 1) / (n + m),
            "attribute (boxes given)": 100,
            "spatial (boxes given)": 100 * (m - 1) / m,
        }
    )
    silent = scored("vstar_bench", items, ["I do not know"] * len(items))
    assert silent.counts == {"answers without a letter": len(items)} and set(figures(silent).values()) == {0}


def vstar_line(**changes: Any) -> dict[str, Any]:
    line = {"image": "direct_attributes/sa_1.jpg", "text": "What?\n(A) red\n(B) blue\nAnswer.", "label": "A"}
    return line | {"category": "direct_attributes", "question_id": 0} | changes


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"category": "OCR"}, "wrong type", "'category' must be one of direct_attributes"),
        ({"label": "C"}, "index out of range", "'label' must be a letter of (A), (B)"),
        ({"label": None}, "missing field", "no 'label'"),
        ({"text": "What?\n(A) red"}, "wrong type", "two to four lines"),
        ({"text": "What?\n(B) red\n(A) blue"}, "wrong type", "two to four lines"),
        ({"text": "What? (A) red (B) blue"}, "wrong type", "two to four lines"),
        ({"text": "?\n(A) 1\n(B) 2\n(C) 3\n(D) 4\n(E) 5"}, "wrong type", "two to four lines"),
        ({"text": ""}, "missing field", "'text' is empty"),
        ({"question_id": None}, "missing field", "no 'question_id'"),
        ({"image": "direct_attributes/../../a.jpg"}, "path leaves its folder", "'..'"),
    ],
)
def test_vstar_tells_what_is_wrong_with_a_question(own: Path, changes: dict, reason: str, words: str) -> None:
    lines = [vstar_line(), vstar_line(**{"question_id": "1"} | changes)]
    (own / "vstar_bench" / "test_questions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{broken\n")
    items, problems = listed("vstar_bench", own)
    assert [item.id for item in items] == ["vstar_bench/0", "vstar_bench/0/boxes"]
    bad, broken = sorted(problems, key=lambda problem: problem["where"])
    assert bad["reason"] == reason and words in bad["detail"] and "line 2" in bad["where"]
    assert broken["reason"] == "broken JSON" and "line 3" in broken["where"]


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (None, "missing field", "there is no file"),
        ("[1]", "broken JSON", "must hold a JSON object"),
        ("{", "broken JSON", "truncated or not a JSON file"),
        ('{"bbox": [[1, 2, 3, 4]]}', "missing field", "no 'target_object'"),
        ('{"bbox": [], "target_object": []}', "wrong type", "must name each box"),
        ('{"bbox": [[1, 2, 3, 4]], "target_object": ["a", "b"]}', "wrong type", "must name each box"),
        ('{"bbox": [[1, 2, 3, 4]], "target_object": [" "]}', "wrong type", "must name each box"),
        ('{"bbox": [[1, 2, 0, 4]], "target_object": ["a"]}', "box without area", "less than a pixel"),
        ('{"bbox": [[1, 2, NaN, 4]], "target_object": ["a"]}', "wrong type", "finite numbers"),
        ('{"bbox": [1, 2, 3, 4], "target_object": ["a", "b", "c", "d"]}', "wrong type", "four numbers"),
    ],
)
def test_without_usable_boxes_a_question_is_asked_of_the_image_alone(
    own: Path, content: str | None, reason: str, words: str
) -> None:
    file = own / "vstar_bench" / "direct_attributes" / "sa_1.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    (own / "vstar_bench" / "test_questions.jsonl").write_text(json.dumps(vstar_line()))
    items, problems = listed("vstar_bench", own)
    assert [item.id for item in items] == ["vstar_bench/0"]
    (problem,) = problems
    assert problem["reason"] == reason and words in problem["detail"]
    assert "attribute (boxes given)" not in figures(scored("vstar_bench", items, ["(A)"]))


def test_boxes_that_a_link_leads_elsewhere_for_are_not_read(own: Path, tmp_path: Path) -> None:
    file = own / "vstar_bench" / "direct_attributes" / "sa_1.json"
    file.rename(tmp_path / "outside.json")
    file.symlink_to(tmp_path / "outside.json")
    (own / "vstar_bench" / "test_questions.jsonl").write_text(json.dumps(vstar_line()))
    items, problems = listed("vstar_bench", own)
    assert len(items) == 1 and problems.counts() == {"path leaves its folder": 1}


# ------------------------------------------------------------------------------------------------ Ref-L4


def rows_of(root: Path) -> list[dict[str, Any]]:
    return pq.read_table(root / "ref_l4" / "ref-l4-val.parquet").to_pylist()


def write_rows(root: Path, rows: list[dict[str, Any]], split: str = "val") -> None:
    pq.write_table(pa.Table.from_pylist(rows), root / "ref_l4" / f"ref-l4-{split}.parquet")


def test_ref_l4_asks_about_a_box_once_and_takes_all_its_expressions(world: Path) -> None:
    items, problems = listed("ref_l4", world)
    rows = rows_of(world)
    assert not list(problems) and len(rows) == 2 * len(items) >= 16
    by_box: dict[tuple, list[str]] = {}
    for row in rows:
        by_box.setdefault((row["file_name"], *row["bbox"]), []).append(row["caption"])
    for item in items:
        x1, y1, x2, y2 = item.boxes[0]
        assert item.facts["references"] == by_box[Path(item.image).name, x1, y1, x2 - x1, y2 - y1]
        assert item.target == item.facts["references"][0] and Path(item.image).is_file()


def test_ref_l4_is_scored_as_captions_are_and_says_what_does_not_compare(world: Path, monkeypatch) -> None:
    items, _ = listed("ref_l4", world)
    asked: list[int] = []

    def score(items: Any, predictions: Any, config: EvalConfig) -> Scores:
        asked.append(len(items))
        return Scores({}, {}, {}, ["a note"])

    monkeypatch.setattr(captions, "score", score)
    scores = scored("ref_l4", items, [item.target for item in items])
    assert asked == [len(items)] and scores.notes[0] == "a note"
    assert "published" in scores.notes[1] and "GPT-4o" in scores.notes[1]


def test_ref_l4_reads_both_splits_and_lists_in_json(own: Path) -> None:
    rows = rows_of(own)
    write_rows(own, [row | {"id": row["id"] + 10**6, "split": "test"} for row in rows[:4]], "test")
    whole, problems = listed("ref_l4", own, "all")
    assert len(whole) == len(rows) // 2 and not list(problems)
    assert [len(item.facts["references"]) for item in whole] == [4, 4, *[2] * (len(whole) - 2)]
    (own / "ref_l4" / "ref-l4-val.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"annotations of val: .*ref-l4-val\.parquet"):
        check_files("ref_l4", own, "val")
    (own / "ref_l4" / "ref-l4-val.json").write_text(json.dumps(rows))
    check_files("ref_l4", own, "val")
    items, problems = listed("ref_l4", own)
    assert len(items) == len(rows) // 2 and not list(problems)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"caption": " "}, "missing field"),
        ({"caption": None}, "missing field"),
        ({"bbox": [1.0, 2.0, 3.0]}, "wrong type"),
        ({"bbox": [1.0, 2.0, float("nan"), 4.0]}, "wrong type"),
        ({"bbox": [1.0, 2.0, 0.0, 4.0]}, "box without area"),
        ({"bbox": [200.0, 2.0, 30.0, 4.0]}, "box outside the image"),
        ({"file_name": "../a.jpg"}, "path leaves its folder"),
        ({"id": None}, "missing field"),
        ({"width": -1}, "wrong type"),
    ],
)
def test_ref_l4_tells_what_is_wrong_with_an_annotation(own: Path, changes: dict, reason: str) -> None:
    rows = rows_of(own)[::2]
    rows[1] |= changes
    write_rows(own, rows)
    items, problems = listed("ref_l4", own)
    assert problems.counts() == {reason: 1} and len(items) == len(rows) - 1
    assert next(iter(problems))["where"] == "ref-l4-val.parquet: annotation 1"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[: len(data) // 2], "is damaged or not a Parquet file"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "is damaged or not a Parquet file"),
        (lambda data: b"", "is damaged or not a Parquet file"),
    ],
)
def test_a_damaged_parquet_file_is_said_to_be_one(own: Path, damage: Callable[[bytes], bytes], words: str) -> None:
    file = own / "ref_l4" / "ref-l4-val.parquet"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=words):
        listed("ref_l4", own)
    write_rows(own, [{"id": 1, "caption": "a cup"}])
    with pytest.raises(ValueError, match="lacks the column 'bbox'"):
        listed("ref_l4", own)


# ------------------------------------------------------------------------------------------------ all three


def test_the_command_checks_the_newer_benchmarks(own: Path, capsys) -> None:
    assert main([*NAMES, "--root", str(own), "--check"]) == 0
    assert "complete for gar_bench, vstar_bench, ref_l4" in capsys.readouterr().out
    shutil.rmtree(own / "vstar_bench" / "relative_position")
    shutil.rmtree(own / "gar_bench" / "images")
    for name, lacking in (("gar_bench", "images: "), ("vstar_bench", "images and boxes of relative_position: ")):
        assert main([name, "--root", str(own), "--check"]) == 1
        assert lacking in capsys.readouterr().err
