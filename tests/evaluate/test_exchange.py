"""Questions leave as a file and answers come back as one: the same figures, and nothing wrong is taken in silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.problems import BadRecord, Problems
from gpt4roi_nb.data.run_lengths import mask_from_lengths
from gpt4roi_nb.evaluate import BENCHMARKS, Result, compare, evaluate, export_questions, import_answers
from gpt4roi_nb.evaluate.__main__ import main
from gpt4roi_nb.evaluate.answers_in import INCOMPLETE, NO_ANSWER
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.benchmarks.masks import run_lengths_of
from gpt4roi_nb.evaluate.benchmarks.vcr import SUBMISSION
from gpt4roi_nb.evaluate.metrics.scorers import PYCOCOTOOLS
from gpt4roi_nb.evaluate.metrics.statistics import mean_metric

CASES = [(name, scorer) for name, one in BENCHMARKS.items() for scorer in one.scoring]
# The scorers of these need no sentence embedder and no Java; `test_right_answers_score_100` has the others.
QUICK = {(), (PYCOCOTOOLS,)}
MASKED = [
    ("coco", None), ("lvis", None), ("lvis", "val"), ("paco", None), ("paco", "val"), ("cityscapes", None),
    ("ade20k", None), ("gar_bench", None), ("vcr", None),
]  # fmt: skip


def read(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    header, *lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return header, lines


def write(file: Path, lines: Sequence[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def exact(items: Sequence[Item], predictions: Sequence[Prediction], config: EvalConfig) -> Scores:
    """Score how much of the target's beginning each answer has, in place of tools that take long to load."""
    pairs = list(zip(items, predictions, strict=True))
    shares = [sum(a == b for a, b in zip(one.answer, item.target, strict=False)) / 10 for item, one in pairs]
    units = [item.image for item in items]
    return Scores({"length": mean_metric([len(one.answer) for _, one in pairs], units)}, {"score": shares})


def test_a_file_without_a_name_is_called_after_the_benchmark(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export_questions("lvis", world).resolve() == tmp_path / "lvis.questions.jsonl"


@pytest.fixture(scope="module")
def asked(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The questions of COCO."""
    return export_questions("coco", world, out=tmp_path_factory.mktemp("asked") / "questions.jsonl")


@pytest.fixture
def answered(asked: Path, tmp_path: Path) -> Path:
    """Answers to them, all the same."""
    header, lines = read(asked)
    return write(tmp_path / "answers.jsonl", [header | {"model": "m"}, *(line | {"answer": "mug"} for line in lines)])


@pytest.mark.parametrize(("name", "scorer"), CASES)
def test_every_benchmark_comes_back_with_the_figures_of_evaluate(
    world: Path, gpt4roi: GPT4RoI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, scorer: str
) -> None:
    if BENCHMARKS[name].scorers not in QUICK:
        monkeypatch.setitem(BENCHMARKS, name, replace(BENCHMARKS[name], score=exact, scorers=(), mapping=""))
    config = {"scorer": scorer, "limit": 2, "seed": 3}
    ours = evaluate(name, gpt4roi, world, max_new_tokens=4, progress=False, **config)
    header, lines = read(export_questions(name, world, out=tmp_path / "questions.jsonl", **config))
    assert (header["benchmark"], header["scorer"], header["count"]) == (name, scorer, len(lines))
    assert all((world / line["image"]).is_file() for line in lines)
    said = {row["id"]: row for row in ours.predictions.to_dict("records")}
    assert said.keys() == {line["id"] for line in lines}
    answers = [header | {"model": "tiny", "regions": "region tokens"}]
    for line in reversed(lines):  # in any order
        row = said[line["id"]]
        assert row["question"] == line["question"]
        if scorer == "likelihood":
            answers.append({"id": line["id"], "option_logprobs": [one - 2.5 for one in row["option_logprobs"]]})
        else:
            answers.append({"id": line["id"], "answer": row["answer"]})
            if not pd.isna(row["logprob"]):
                answers[-1]["logprob"] = row["logprob"]
    theirs = import_answers(write(tmp_path / "answers.jsonl", answers), world)
    assert theirs.metrics and theirs.metrics == pytest.approx(ours.metrics, nan_ok=True)
    assert theirs.intervals == ours.intervals and theirs.notes == ours.notes
    tables = [one.predictions.drop(columns="seconds") for one in (theirs, ours)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-9)
    assert set(theirs.card.differences(ours.card)) == {"checkpoint", "decoding", "dtype", "processor", "seen"}
    assert (theirs.card.checkpoint_name, theirs.card.complete) == ("tiny", True)
    assert theirs.card.way == "region tokens"
    assert not len(compare(theirs, ours).changed)


RIGHT = {
    "lvis": ("SS", "S-IoU"),
    "cityscapes": ("accuracy", "PQ (lexical)", "mIoU (lexical)"),
    "refcocog": ("ROUGE-L", "BLEU-4"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xdist_group("captions" if name == "refcocog" else "sentences"))
        for name in RIGHT
    ],
)
def test_right_answers_score_100(world: Path, tmp_path: Path, request: pytest.FixtureRequest, name: str) -> None:
    if name == "refcocog":
        request.getfixturevalue("one_meteor")  # in the worker that has it
    header, lines = read(export_questions(name, world, out=tmp_path / "questions.jsonl"))
    config = EvalConfig(world, header["split"])
    targets = {item.id: item.target for item in BENCHMARKS[name].items(config, Problems())}
    answers = [header | {"model": "right"}, *({"id": line["id"], "answer": targets[line["id"]]} for line in lines)]
    result = import_answers(write(tmp_path / "answers.jsonl", answers), world)
    assert {figure: result.metrics[figure] for figure in RIGHT[name]} == pytest.approx(
        dict.fromkeys(RIGHT[name], 100), abs=1e-3
    )


def test_the_right_answers_stay_here(asked: Path) -> None:
    header, lines = read(asked)
    assert len(lines) > 10 and header["split"] == "val"
    assert {*lines[0]} == {"id", "image", "width", "height", "question", "boxes", "masks", "options", "region"}
    assert all(line["question"] == header["prompt"] and "<region1>" in line["question"] for line in lines)


@pytest.mark.parametrize(("name", "split"), MASKED)
def test_masks_are_those_of_the_boxes(world: Path, tmp_path: Path, name: str, split: str | None) -> None:
    _, lines = read(export_questions(name, world, out=tmp_path / "questions.jsonl", split=split))
    for line in lines:
        masks = [mask_from_lengths(mask) for mask in line["masks"]]
        assert [list(mask.box) for mask in masks] == line["boxes"]
        assert all(mask.size == (line["height"], line["width"]) for mask in masks)
    assert any(mask_from_lengths(mask).fill < 1 for line in lines for mask in line["masks"])


def test_benchmarks_of_boxes_have_no_masks(world: Path, tmp_path: Path) -> None:
    for name in ("visual7w", "vg", "vstar_bench"):
        assert all(line["masks"] is None for line in read(export_questions(name, world, out=tmp_path / name))[1])


def test_a_mask_that_cannot_be_used_is_null_and_said(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "coco", tmp_path / "coco")
    file = tmp_path / "coco/annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    first, second = [one for one in content["annotations"] if not one["iscrowd"]][:2]
    first["segmentation"], second["segmentation"] = [[1, 2, 3]], {"size": [96, 96], "counts": [5, -1]}
    file.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="2 masks cannot be used and are null"):
        _, lines = read(export_questions("coco", tmp_path, out=tmp_path / "questions.jsonl"))
    masks = {line["id"]: line["masks"] for line in lines}
    assert masks[f"coco/{first['id']}"] == masks[f"coco/{second['id']}"] == [None]
    assert sum(one != [None] for one in masks.values()) == len(masks) - 2


@pytest.mark.parametrize(
    "segmentation",
    [
        None, 3, [], [[]], [[0, 0, 4, 0]], [[0, 0, 4, 0, 4]], [[0, 0, 4, 0, 4, float("nan")]], [[0, 0, 4, 0, 4, True]],
        ["ab"], {"size": [6, 8]}, {"size": [6, 8], "counts": [1, 2]}, {"size": [6, 8], "counts": ["1"]},
        {"size": [6, 8], "counts": "61"}, {"size": None, "counts": [48]}, {"size": [6, 8], "counts": [48]},
    ],
)  # fmt: skip
def test_what_is_no_mask_is_refused(segmentation: Any) -> None:
    with pytest.raises(BadRecord):
        run_lengths_of(segmentation, 8, 6)


def test_polygons_are_cut_to_the_image() -> None:
    far = run_lengths_of([[2, 1, 1e12, 1, 1e12, 1e12, 2, 1e12]], 8, 6)
    assert far == run_lengths_of([[2, 1, 8, 1, 8, 6, 2, 6]], 8, 6)
    assert mask_from_lengths(far).box == (2, 1, 8, 6)


def changed(**values: Any) -> Callable[[list[Any]], list[Any]]:
    """Change the header."""
    return lambda lines: [{key: value for key, value in {**lines[0], **values}.items() if value is not ...}, *lines[1:]]


def third(**values: Any) -> Callable[[list[Any]], list[Any]]:
    """Change line 3."""
    return lambda lines: [*lines[:2], {**lines[2], **values}, *lines[3:]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed(format="x"), r"line 1 .* must be the header that `export_questions` wrote.*copy the first line"),
        (lambda lines: lines[1:], r"line 1 .* must be the header"),
        (changed(benchmark="cocoa"), r"line 1 .*'benchmark' must be one of vcr, .* but is 'cocoa'"),
        (changed(benchmark=[]), r"line 1 .*'benchmark' must be one of"),
        (changed(split="test"), r"line 1 .*'split' must be one of val, train, but is 'test'"),
        (changed(scorer="likelihood"), r"line 1 .*'scorer' must be one of generate, but is 'likelihood'"),
        (changed(limit=0), r"line 1 .*'limit' must be null or a whole number from 1, but is 0"),
        (changed(seed=True), r"line 1 .*'seed' must be a whole number"),
        (changed(question=3), r"line 1 .*'question' must be null or a text"),
        (changed(wording=[]), r"line 1 .*'wording' must be null or a text"),
        (changed(wording="own"), "there is no wording 'own' of coco, which has one alone"),
        (changed(questions="abc"), r"line 1 .*'questions' must be a hash"),
        (changed(questions="0" * 12), r"answers other questions of coco \(000000000000\) than those of"),
        (changed(seed=1), None),  # COCO's questions do not depend on it
        (changed(model=...), r"line 1 .*'model' must be a text.*add it to the header, .* line --model\), but is None"),
        (changed(model=" "), r"line 1 .*'model' must be a text"),
        (changed(regions=""), r"line 1 .*'regions' must be a text"),
        (third(id="coco/0"), r"line 3 .*'id' must be that of an exported question, but is 'coco/0'"),
        (third(id=7), r"line 3 .*'id' must be that of an exported question, but is 7"),
        (lambda lines: [*lines, lines[2]], r"line \d+ .* answers 'coco/\d+' again, which line 3 did"),
        (third(answer=None), r"line 3 .*'answer' must be the text that the model wrote, but is None"),
        (third(answer=["mug"]), r"line 3 .*'answer' must be the text"),
        (third(logprob="-1"), r"line 3 .*'logprob' must be a number or absent, but is '-1'"),
        (third(logprob=float("nan")), r"line 3 .*'logprob' must be a number"),
        (third(seconds=True), r"line 3 .*'seconds' must be a number"),
        (lambda lines: [*lines[:2], [3], *lines[2:]], r"line 3 .* must be a JSON object, but is \[3\]"),
        (lambda lines: lines[:1], r"have no answer in .*too few are left for any metric"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_answer_file_is_told_with_its_line(
    world: Path, answered: Path, change: Callable[[list[Any]], list[Any]], words: str | None
) -> None:
    header, lines = read(answered)
    write(answered, change([header, *lines]))
    if words is None:
        assert import_answers(answered, world).card.complete
        return
    with pytest.raises(ValueError, match=words):
        import_answers(answered, world)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty; its first line"), (b'{"format": "gpt', "line 1 .* is truncated"), (b"\xff\n", "is not UTF-8")],
)
def test_a_damaged_file_is_said_to_be_one(world: Path, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "answers.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        import_answers(tmp_path / "answers.jsonl", world)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        import_answers(tmp_path / "absent.jsonl", world)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        import_answers(tmp_path, world)


@pytest.mark.parametrize("given", [None, "[]", [0.1, 0.2, 0.3], [0, 0, 0, None], [0, 0, 0, float("inf")]])
def test_options_need_a_number_each(world: Path, tmp_path: Path, given: Any) -> None:
    header, lines = read(export_questions("vcr", world, out=tmp_path / "questions.jsonl", limit=1))
    answers = [header | {"model": "m"}, *({"id": line["id"], "option_logprobs": given} for line in lines)]
    assert "option_logprobs" in header["answers"]
    with pytest.raises(ValueError, match=r"line 2 .*each of the options \(A\), \(B\), \(C\), \(D\): 4 numbers"):
        import_answers(write(tmp_path / "answers.jsonl", answers), world)


def test_missing_answers_are_counted_with_what_goes_with_them(world: Path, tmp_path: Path, answered: Path) -> None:
    header, lines = read(answered)
    gone = lines.pop(5)
    write(answered, [header, *lines])
    with pytest.warns(UserWarning, match=f"1 of {header['count']} questions have no answer in .*{gone['id']}"):
        result = import_answers(answered, world, folder=tmp_path / "kept")
    beside = sum(line["image"] == gone["image"] for line in lines)
    assert beside and len(result.predictions) == len(lines) - beside
    assert not result.card.complete and "NOT COMPLETE" in str(result.table())
    assert result.card.left_out[NO_ANSWER] == 1 and result.card.left_out[INCOMPLETE] == beside
    assert Result.load(tmp_path / "kept").card == result.card


def test_an_empty_answer_is_wrong_and_counted(world: Path, answered: Path) -> None:
    header, lines = read(answered)
    write(answered, [header, {**lines[0], "answer": " "}, *lines[1:]])
    result = import_answers(answered, world)
    assert result.card.counts["empty answers"] == 1 and result.card.complete
    assert not result.predictions.set_index("id").loc[lines[0]["id"], "correct"]


def test_an_image_that_is_missing_or_leads_outside_is_not_asked_about(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "coco", tmp_path / "data" / "coco")
    missing, leading, *_ = sorted((tmp_path / "data/coco/val2017").iterdir())
    leading.rename(tmp_path / leading.name)
    leading.symlink_to(tmp_path / leading.name)
    missing.unlink()
    with pytest.warns(UserWarning, match="images are missing"):
        header, lines = read(export_questions("coco", tmp_path / "data", out=tmp_path / "questions.jsonl"))
    assert lines and not {line["image"].rpartition("/")[2] for line in lines} & {missing.name, leading.name}
    answers = [header | {"model": "m"}, *(line | {"answer": "mug"} for line in lines)]
    result = import_answers(write(tmp_path / "answers.jsonl", answers), tmp_path / "data")
    assert result.card.complete and len(result.predictions) == len(lines)
    assert result.card.left_out["no such image"] and result.card.left_out["path leaves its folder"]


def test_the_card_tells_two_ways_of_one_model_apart(world: Path, tmp_path: Path, answered: Path) -> None:
    header, lines = read(answered)
    one = import_answers(answered, world, model="Osprey-7b")
    other = import_answers(
        write(tmp_path / "boxes.jsonl", [header | {"model": "Osprey-7b", "regions": "box", "revision": "a1"}, *lines]),
        world,
    )
    assert one.card.checkpoint_name == other.card.checkpoint_name == "Osprey-7b"
    assert (one.card.way, other.card.way, other.card.revision) == ("not stated", "box", "a1")
    assert one.card.checkpoint != other.card.checkpoint and len(one.card.checkpoint) == 12
    assert one.card.differences(other.card).keys() == {"checkpoint", "way"}
    assert other.metrics == one.metrics


def test_the_folder_of_another_run_is_left_as_it_is(world: Path, tmp_path: Path, answered: Path) -> None:
    first = import_answers(answered, world, folder=tmp_path / "kept")
    again = import_answers(answered, world, folder=tmp_path / "kept")
    assert again.metrics == first.metrics == Result.load(tmp_path / "kept").metrics
    with pytest.raises(ValueError, match="holds another run"):
        import_answers(answered, world, folder=tmp_path / "kept", model="another")
    assert Result.load(tmp_path / "kept").card.checkpoint_name == "m"


def test_vcrs_test_split_gets_its_submission(world: Path, tmp_path: Path) -> None:
    own = shutil.copytree(world / "vcr", tmp_path / "vcr")
    shutil.copyfile(own / "val.jsonl", own / "test.jsonl")  # its labels are not read
    header, lines = read(export_questions("vcr", own, out=tmp_path / "questions.jsonl", split="test"))
    answers = [header | {"model": "m"}, *({"id": line["id"], "option_logprobs": [0, -1, -2, -3]} for line in lines)]
    file = write(tmp_path / "answers.jsonl", answers)
    with pytest.raises(ValueError, match="give the folder to write it into"):
        import_answers(file, own)
    assert not import_answers(file, own, folder=tmp_path / "kept").metrics
    assert (tmp_path / "kept" / SUBMISSION).read_text().count("\n") == len(lines) / 5 + 1


def test_wrong_arguments_are_told_before_a_file_is_written(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "questions.jsonl"
    for name, options, words in [
        ("cocoa", {}, "no benchmark 'cocoa'"),
        ("coco", {"split": "test"}, "split must be one of 'val', 'train'"),
        ("coco", {"scorer": "likelihood"}, "scorer must be one of 'generate'"),
        ("coco", {"limit": 0}, "limit"),
        ("vcr", {"question": "What is <region1>?"}, "fixes its wording"),
        ("visual7w", {"wording": "own"}, "no wording 'own' of visual7w, which has 'vcr', 'vip-llava'"),
    ]:
        with pytest.raises(ValueError, match=words):
            export_questions(name, world, out=out, **options)
    assert not out.exists()
    header, lines = read(export_questions("visual7w", world, out=out, wording="vip-llava", limit=1))
    assert header["wording"] == "vip-llava" and set(lines[0]["options"]) == {"A", "B", "C", "D"}
    own = read(export_questions("coco", world, out=out, question="Name <region1>."))
    assert own[0]["prompt"] == own[1][0]["question"] == "Name <region1>."


def test_the_commands(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "questions.jsonl"
    assert main(["export", "coco", "--root", str(world), "--out", str(out), "--limit", "3"]) == 0
    header, lines = read(out)
    assert str(out) in capsys.readouterr().out and header["limit"] == 3
    file = write(tmp_path / "answers.jsonl", [header, *(line | {"answer": "mug"} for line in lines)])
    command = ["import", str(file), "--root", str(world), "--out", str(tmp_path / "kept")]
    assert main(command) == 1
    assert "'model' must be a text" in capsys.readouterr().err
    assert main([*command, "--model", "DAM-3B"]) == 0
    said = capsys.readouterr().out
    assert "accuracy" in said and "(DAM-3B)" in said
    assert Result.load(tmp_path / "kept").card.checkpoint_name == "DAM-3B"
    write(file, [header | {"model": "DAM-3B"}, *(line | {"answer": "mug"} for line in lines[:-1])])
    with pytest.warns(UserWarning, match="have no answer"):
        assert main(command[:4]) == 130
