"""A run that is killed, split over processes or given bad data ends with the table of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import warnings
import weakref
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny import tiny_gpt4roi

from gpt4roi_nb import GPT4RoI, memory
from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.data.scenes.formats.write import WORLD
from gpt4roi_nb.evaluate import Result, evaluate, journal, questions, run
from gpt4roi_nb.evaluate.__main__ import main
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig
from gpt4roi_nb.evaluate.benchmarks.registry import BENCHMARKS
from gpt4roi_nb.evaluate.benchmarks.vcr import HEAD, SUBMISSION, check_submission
from gpt4roi_nb.evaluate.journal import Journal, outcome_id
from gpt4roi_nb.evaluate.predict import BatchedPredictor
from gpt4roi_nb.evaluate.questions import draw, unusable_images
from gpt4roi_nb.inference.likelihoods import ContinuationScorer

SMALL = {"batch_size": 4, "progress": False}


def same(one: Result, other: Result) -> None:
    """The two results agree except for the time that they took."""
    pd.testing.assert_frame_equal(
        one.predictions.drop(columns="seconds"), other.predictions.drop(columns="seconds"), check_exact=True
    )
    assert one.metrics == other.metrics
    assert one.intervals == other.intervals
    assert not one.card.differences(other.card)


@pytest.fixture
def own(world: Path, tmp_path: Path) -> Path:
    """A copy of the world's VCR and COCO parts, to be damaged."""
    for name in ("vcr", "coco"):
        shutil.copytree(world / name, tmp_path / "own" / name)
    shutil.copy(world / WORLD, tmp_path / "own")  # the same card
    return tmp_path / "own"


@pytest.fixture(scope="module")
def whole(world: Path, gpt4roi) -> Result:
    return evaluate("vcr", gpt4roi, world, **SMALL)


def test_a_result_on_generated_data_says_so_wherever_it_names_the_dataset(own, whole, gpt4roi):
    assert "VCR (generated world), val" in whole.card.text()
    assert whole.card.line().startswith("VCR (generated world) val")
    assert str(whole.table()).startswith("VCR (generated world), val")
    (own / WORLD).unlink()  # now files of unknown origin in the dataset's form
    assert evaluate("vcr", gpt4roi, own, **SMALL).card.dataset == "VCR"


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_run_that_was_killed_goes_on_to_the_same_table(world, gpt4roi, whole, tmp_path, monkeypatch, after):
    class Killed(BaseException):
        """Like a kill, which the program cannot notice."""

    written = []
    add = Journal.add

    def dies(journal, outcomes, batch_size):
        if len(written) == after:
            with (tmp_path / "answers-0.jsonl").open("a") as stream:
                stream.write('{"batch_size": 4, "rows": [{"id": "vcr/val-')  # cut in the middle of a line
            raise Killed
        written.append(outcome_id(outcomes[0]))
        add(journal, outcomes, batch_size)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", dies)
        with pytest.raises(Killed):
            evaluate("vcr", gpt4roi, world, folder=tmp_path, **SMALL)
    again = []

    def asks(journal, outcomes, batch_size):
        again.append(outcome_id(outcomes[0]))
        add(journal, outcomes, batch_size)

    monkeypatch.setattr(Journal, "add", asks)
    same(evaluate("vcr", gpt4roi, world, folder=tmp_path, **SMALL), whole)
    assert not {*again} & {*written}  # nothing is asked twice
    assert len(again) + len(written) > after + 1
    asked = []
    monkeypatch.setattr(BatchedPredictor, "answer", lambda *arguments: asked.append(arguments))
    same(evaluate("vcr", gpt4roi, world, folder=tmp_path, **SMALL), whole)
    assert not asked
    same(Result.load(tmp_path), whole)


def test_an_interrupt_keeps_what_was_answered(world, gpt4roi, whole, tmp_path, monkeypatch):
    add = Journal.add
    left = iter([False, False, False, True])

    def interrupts(journal, outcomes, batch_size):
        add(journal, outcomes, batch_size)
        if next(left):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", interrupts)
        with pytest.warns(UserWarning, match="the same call continues from there"):
            part = evaluate("vcr", gpt4roi, world, folder=tmp_path, **SMALL)
    assert not part.card.complete and "NOT COMPLETE" in str(part.table())
    assert 0 < len(part.predictions) < len(whole.predictions)
    assert set(part.predictions["id"].str.rpartition("/")[0].value_counts()) == {2}  # no half annotations
    same(evaluate("vcr", gpt4roi, world, folder=tmp_path, **SMALL), whole)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
]


def running_out(monkeypatch, errors, most=0, whole=2) -> list[int]:
    """Let memory run out, once for each of `errors`, after `whole` batches, in a batch of more than `most` questions.

    Returns a list that grows by the size of each batch that is read.
    """
    read, rest, sizes = BatchedPredictor._read, list(errors), []

    def runs_out(predictor, questions, shared):
        sizes.append(len(questions))
        if len(sizes) > whole and len(questions) > most and rest:
            raise rest.pop(0)
        return read(predictor, questions, shared)

    monkeypatch.setattr(BatchedPredictor, "_read", runs_out)
    return sizes


def close(one: Result, other: Result) -> None:
    """The two results agree except for the last digits of log-probabilities."""
    numbers = ["logprob", "margin", "option_logprobs", "score"]
    pd.testing.assert_frame_equal(
        one.predictions.drop(columns=["seconds", *numbers]), other.predictions.drop(columns=["seconds", *numbers])
    )
    assert list(one.predictions["logprob"]) == pytest.approx(list(other.predictions["logprob"]), abs=1e-4)
    assert one.metrics == other.metrics and not one.card.differences(other.card)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_where_memory_runs_out_batches_are_halved_and_the_answers_stay(
    world, gpt4roi, whole, tmp_path, monkeypatch, error
):
    with monkeypatch.context() as patch:
        sizes = running_out(patch, [error, error], most=1)  # from four to two to one
        with pytest.warns(UserWarning, match="memory ran out; continuing with 2 questions at a time") as warned:
            found = evaluate("vcr", gpt4roi, world, folder=tmp_path, **SMALL)
    assert len(warned) == 1  # said once
    assert sizes[2:4] == [4, 2] and set(sizes[4:]) == {1}
    close(found, whole)
    assert found.card.batch_sizes == [4, 1] and whole.card.batch_sizes == [4]
    assert "4 and 1 (may change the last digit" in found.card.text() and "last digit" not in whole.card.text()
    same(Result.load(tmp_path), found)
    # Another batch size is the same run, and nothing is asked again.
    with monkeypatch.context() as patch:
        patch.setattr(BatchedPredictor, "answer", None)
        close(evaluate("vcr", gpt4roi, world, folder=tmp_path, batch_size=16, progress=False), whole)


def test_where_memory_runs_out_while_answers_are_written_they_are_written_anew(world, gpt4roi, tmp_path, monkeypatch):
    """In the middle of a batch, with some tokens of each answer there; the failed pass's tensors are gone by then."""
    asked = {"limit": 4, "batch_size": 4, "scorer": "generate", "progress": False}
    whole = evaluate("vcr", gpt4roi, world, **asked)
    language, calls, lost = gpt4roi.model.language_model, [], []

    def runs_out(module, args, named):
        if lost:
            assert lost[0]() is None
        calls.append(len(named["inputs_embeds"]))
        if len(calls) == 12:
            embeddings = named["inputs_embeds"].clone()
            lost.append(weakref.ref(embeddings))
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with (
        language.register_forward_pre_hook(runs_out, with_kwargs=True),
        pytest.warns(UserWarning, match="memory ran out; continuing with 2 questions at a time"),
    ):
        found = evaluate("vcr", gpt4roi, world, folder=tmp_path, **asked)
    assert lost and len(calls) > 12
    close(found, whole)


def test_where_memory_runs_out_while_options_are_scored_later_batches_are_smaller(
    world, gpt4roi, tmp_path, monkeypatch
):
    """Also in the middle of a batch, after its prompts were read."""
    read, many = ContinuationScorer.__call__, []

    def runs_out(self, continuations, owners):
        many.append(len(continuations))
        if len(continuations) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return read(self, continuations, owners)

    monkeypatch.setattr(ContinuationScorer, "__call__", runs_out)
    with pytest.warns(UserWarning, match="memory ran out; continuing with 2 questions at a time") as warned:
        found = evaluate("vcr", gpt4roi, world, folder=tmp_path, **SMALL)
    assert len(warned) == 1 and many[0] == 4 and set(many[1:]) == {2}
    assert found.card.batch_sizes == [2]


def test_a_run_that_memory_ended_goes_on_with_another_batch_size(world, gpt4roi, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        running_out(patch, ERRORS * 3)
        with (
            pytest.warns(UserWarning, match="memory ran out"),
            pytest.raises(
                MemoryError,
                match=r'the questions one at a time: ask with fewer .*; load the model with quantization="8bit"',
            ),
        ):
            evaluate("vcr", gpt4roi, world, folder=tmp_path, **SMALL)
    kept = Journal(tmp_path)
    kept.read()
    assert len(kept.done()) == 6  # two batches
    found = evaluate("vcr", gpt4roi, world, folder=tmp_path, batch_size=3, progress=False)
    close(found, whole)
    assert found.card.batch_sizes == [4, 3]


def test_another_error_is_no_want_of_memory(world, gpt4roi, monkeypatch):
    running_out(monkeypatch, [RuntimeError("the weights have another shape")])
    with pytest.raises(RuntimeError, match="another shape"):
        evaluate("vcr", gpt4roi, world, **SMALL)


def test_little_memory_makes_batches_smaller_before_the_first(world, gpt4roi, whole, monkeypatch):
    cost = []
    fit = run.BatchSize.fit

    def notes(batch, model, needed):
        cost.append(needed)
        monkeypatch.setattr(memory, "free_bytes", lambda device: (needed(2) + needed(3)) // 2)
        fit(batch, model, needed)

    monkeypatch.setattr(run.BatchSize, "fit", notes)
    with pytest.warns(UserWarning, match=r"^4 questions at a time need .* are free; continuing with 2 at a time$"):
        found = evaluate("vcr", gpt4roi, world, **SMALL)
    close(found, whole)
    assert found.card.batch_sizes == [2]
    assert cost[0](1) < cost[0](2) < cost[0](3)


def test_the_command_says_in_words_what_memory_lacks(world, gpt4roi, tmp_path, monkeypatch, capsys):
    gpt4roi.save_pretrained(tmp_path / "model")
    command = ["coco", "--checkpoint", str(tmp_path / "model"), "--root", str(world), "--device", "cpu"]
    command += ["--out", str(tmp_path / "out")]
    loaded = GPT4RoI.from_pretrained(tmp_path / "model", device="cpu")

    def run_command() -> str:
        assert main(command) == 1
        return capsys.readouterr().err.splitlines()[-1]  # after the bars of what is loaded

    with monkeypatch.context() as patch:
        patch.setattr(memory, "free_bytes", lambda device: 1000)
        said = run_command()
        assert "model' needs" in said and "are free on cpu; nothing smaller fits either" in said
        monkeypatch.setattr(GPT4RoI, "from_pretrained", lambda *_, **__: loaded)
        said = run_command()
        assert (
            said.startswith("the questions, even one at a time, need ") and "load the model with quantization=" in said
        )
    for error in (ERRORS[0], MemoryError()):
        with monkeypatch.context() as patch:
            patch.setattr(GPT4RoI, "from_pretrained", lambda *_, error=error, **__: _raise(error))
            assert run_command().startswith("memory ran out before the first question")
    for error in ERRORS:
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            running_out(patch, [error] * 9, whole=0)
            assert run_command().startswith("memory ran out with the questions one at a time: ")
    monkeypatch.setattr(run, "facts_of", lambda _: _raise(ERRORS[2]))
    assert run_command().startswith("memory ran out; finished answers are kept")


def _raise(error: Exception) -> None:
    raise error


def test_a_resumed_run_reads_its_journal_once(world, gpt4roi, whole, tmp_path, monkeypatch):
    evaluate("vcr", gpt4roi, world, folder=tmp_path, **SMALL)
    lines = (tmp_path / "answers-0.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "answers-0.jsonl").write_text("".join(lines[:-1]))
    asked = []
    read = journal.read_json_lines
    monkeypatch.setattr(journal, "read_json_lines", lambda file: (asked.append(file), read(file))[1])
    same(evaluate("vcr", gpt4roi, world, folder=tmp_path, **SMALL), whole)
    assert asked == [tmp_path / "answers-0.jsonl"]


def test_a_stop_ends_it_early(world, gpt4roi):
    stop = threading.Event()
    stop.set()
    with pytest.warns(UserWarning, match="stopped after"):
        part = evaluate("coco", gpt4roi, world, stop=stop, batch_size=8, progress=False)
    assert not part.card.complete and len(part.predictions)
    with pytest.raises(RuntimeError, match="too few for any metric"):
        evaluate("coco", gpt4roi, world, stop=stop, batch_size=1, progress=False)


def test_the_order_of_the_file_does_not_matter(own, world, gpt4roi, whole):
    file = own / "vcr" / "val.jsonl"
    lines = file.read_text().splitlines()
    random.Random(0).shuffle(lines)
    file.write_text("\n".join(lines) + "\n")
    shuffled = evaluate("vcr", gpt4roi, own, **SMALL)
    strip = {"image": ""}
    moved = shuffled.predictions.assign(**strip).drop(columns="seconds")
    pd.testing.assert_frame_equal(moved, whole.predictions.assign(**strip).drop(columns="seconds"), check_exact=True)
    assert shuffled.metrics == whole.metrics


def test_another_run_in_the_folder_is_refused(world, gpt4roi, tmp_path):
    evaluate("coco", gpt4roi, world, folder=tmp_path, limit=1, **SMALL)
    with pytest.raises(ValueError, match=r"holds another run \(checkpoint: "):
        evaluate("coco", tiny_gpt4roi(seed=1), world, folder=tmp_path, limit=1, **SMALL)
    with pytest.raises(ValueError, match="limit: 1, now 2"):
        evaluate("coco", gpt4roi, world, folder=tmp_path, limit=2, **SMALL)


def test_bad_data_is_counted_by_reason_and_the_rest_is_measured(own, gpt4roi, whole):
    file = own / "vcr" / "val.jsonl"
    lines = file.read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    images = sorted({entry["img_fn"] for entry in entries})
    (own / "vcr" / "vcr1images" / images[0]).unlink()
    (own / "vcr" / "vcr1images" / images[1]).write_bytes(b"no image")
    victim = next(k for k, entry in enumerate(entries) if entry["img_fn"] == images[2])
    entries[victim]["answer_label"] = 7
    lines = [json.dumps(entry) for entry in entries]
    lines.append('{"img_fn": "half a li')
    file.write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match=r"1 of 4 images are missing, such as /.*are left out"):
        result = evaluate("vcr", gpt4roi, own, **SMALL)
    gone = {name: 2 * sum(entry["img_fn"] == name for entry in entries) for name in images[:2]}
    assert result.card.left_out == {
        "broken JSON": 1,
        "index out of range": 1,
        "no such image": gone[images[0]],
        "image cannot be read": gone[images[1]],
    }
    expected = whole.predictions[~whole.predictions["image"].str.endswith(tuple(images[:2]))]
    expected = expected[~expected["id"].str.contains(f"/{entries[victim]['annot_id']}/")]
    assert list(result.predictions["id"]) == list(expected["id"])
    assert list(result.predictions["answer"]) == list(expected["answer"])


def test_images_that_come_later_are_asked_about(own, world, gpt4roi, whole, tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    first, second = sorted(own / Path(path).relative_to(world) for path in {*whole.predictions["image"]})[:2]
    first.rename(tmp_path / "gone.jpg")
    good = second.read_bytes()
    second.write_bytes(b"no image")
    with pytest.warns(UserWarning, match="1 of 4 images are missing"):
        part = evaluate("vcr", gpt4roi, own, folder=folder, **SMALL)
    assert set(part.card.left_out) == {"no such image", "image cannot be read"}
    (tmp_path / "gone.jpg").rename(first)
    second.write_bytes(good)
    # Of another process: its file is read last, and holds what was known before.
    (folder / "answers-0.jsonl").rename(folder / "answers-7.jsonl")
    complete = evaluate("vcr", gpt4roi, own, folder=folder, **SMALL)
    assert not complete.card.left_out and not (folder / "left_out.json").exists()
    assert list(complete.predictions["answer"]) == list(whole.predictions["answer"])
    assert complete.metrics == whole.metrics
    asked = []
    monkeypatch.setattr(BatchedPredictor, "answer", lambda *arguments: asked.append(arguments))
    same(evaluate("vcr", gpt4roi, own, folder=folder, **SMALL), complete)
    assert not asked


def test_images_that_were_replaced_since_are_not_mixed_with_the_old(own, gpt4roi, whole, tmp_path, monkeypatch):
    add, folder, written = Journal.add, tmp_path / "kept", []

    def stops(journal, outcomes, batch_size):
        add(journal, outcomes, batch_size)
        written.extend(outcomes)
        if len(written) >= 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", stops)
        with pytest.warns(UserWarning, match="continues from there"):
            evaluate("vcr", gpt4roi, own, folder=folder, **SMALL)
    asked = {row.id for row in written}
    image = next(row.image for row in whole.predictions.itertuples() if row.id in asked)
    replaced = own / Path(image).relative_to(Path(image).parents[3])
    facts = replaced.stat()
    os.utime(replaced, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    with pytest.raises(ValueError, match=r"answers about images that have changed since, such as the answer to 'vcr/"):
        evaluate("vcr", gpt4roi, own, folder=folder, **SMALL)
    os.utime(replaced, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert evaluate("vcr", gpt4roi, own, folder=folder, **SMALL).metrics == whole.metrics


def test_images_outside_the_folder_and_doubtful_ids_are_counted_and_not_opened(own, gpt4roi, monkeypatch, tmp_path):
    file = own / "coco" / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    first, second, *_ = content["images"]
    (own / "coco" / "val2017" / first["file_name"]).rename(tmp_path / "outside.jpg")
    (own / "coco" / "val2017" / first["file_name"]).symlink_to(tmp_path / "outside.jpg")
    second["file_name"] = f"../../coco/val2017/{second['file_name']}"
    known = {first["id"], second["id"]}
    (kept, *_) = [one for one in content["annotations"] if one["image_id"] not in known and not one["iscrowd"]]
    content["annotations"].append({**kept, "bbox": [1, 1, 9, 9]})
    file.write_text(json.dumps(content))
    result = evaluate("coco", gpt4roi, own, **SMALL)
    about_first = sum(one["image_id"] == first["id"] and not one["iscrowd"] for one in content["annotations"])
    assert result.card.left_out["path leaves its folder"] == about_first + 1
    assert result.card.left_out["ambiguous id"] == 1
    assert not result.predictions["image"].str.contains(first["file_name"]).any()


@pytest.mark.parametrize(
    "name", ["lvis", "paco", "coco", "vg", "refcocog", "cityscapes", "gar_bench", "vstar_bench", "ref_l4"]
)
def test_data_sets_may_be_linked_into_one_root(name, world, tmp_path):
    root, whole = tmp_path / "root", tmp_path / "whole"
    shutil.copytree(world, whole)
    if name == "vg":  # in the folder itself
        for file in list((whole / "vg" / "VG_100K").iterdir()):
            file.rename(whole / "vg" / file.name)
    root.mkdir()
    for path in whole.iterdir():
        (root / path.name).symlink_to(path)
    if name in ("lvis", "paco"):  # its folders too
        (root / "coco").unlink()
        (root / "coco").mkdir()
        for path in (whole / "coco").iterdir():
            path.rename(tmp_path / path.name)
            (root / "coco" / path.name).symlink_to(tmp_path / path.name)
    if name == "lvis":  # images of val lie in train2017 too
        file = root / "lvis" / "lvis_v1_val.json"
        content = json.loads(file.read_text())
        moved = content["images"][0]["coco_url"].rsplit("/", 1)[1]
        content["images"][0]["coco_url"] = f"http://images.cocodataset.org/train2017/{moved}"
        (tmp_path / "val2017" / moved).rename(tmp_path / "train2017" / moved)
        file.write_text(json.dumps(content))
    problems = Problems()
    items = list(BENCHMARKS[name].items(EvalConfig(root, "val", folder=tmp_path), problems))
    assert items and not problems.counts()
    images = {item.image for item in items}
    assert not unusable_images(BENCHMARKS[name].image_folders(root, "val"), images)
    assert unusable_images([root], images)


def test_a_stamp_is_asked_for_once_an_image(world, gpt4roi, whole, tmp_path, monkeypatch):
    asked = []
    stamp_of = questions.stamp_of
    evaluate("vcr", gpt4roi, world, folder=tmp_path, **SMALL)
    monkeypatch.setattr(questions, "stamp_of", lambda image: (asked.append(image), stamp_of(image))[1])
    same(evaluate("vcr", gpt4roi, world, folder=tmp_path, **SMALL), whole)
    assert sorted(asked) == sorted(set(whole.predictions["image"]))


def test_nothing_is_asked_that_could_not_be_judged(world, gpt4roi, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(BatchedPredictor, "answer", lambda *arguments: asked.append(arguments))
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        with pytest.raises(FileNotFoundError, match=r"Java programs.*default-jre-headless"):
            evaluate("vg", gpt4roi, world, folder=tmp_path / "kept", **SMALL)
        assert main(["vg", "--root", str(world), "--check"]) == 1
        assert "Java programs" in capsys.readouterr().err
    tool = "cityscapesscripts.evaluation.evalPanopticSemanticLabeling"
    modules = {"coco": "pycocotools.cocoeval", "cityscapes": tool}
    for name, module in modules.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(ImportError, match=r"cannot be imported.*gpt4roi_nb\[evaluate\]"):
                evaluate(name, gpt4roi, world, **SMALL)
    assert not asked and not (tmp_path / "kept").exists()


def test_nothing_that_can_be_asked_is_said_in_words(own, gpt4roi):
    shutil.rmtree(own / "coco" / "val2017")
    (own / "coco" / "val2017").mkdir()
    with (
        pytest.warns(UserWarning, match="4 of 4 images are missing"),
        pytest.raises(ValueError, match=r"none of the \d+ questions could be asked: \d+ × no such image"),
    ):
        evaluate("coco", gpt4roi, own, **SMALL)


def test_answers_of_no_length_are_counted_and_wrong(world, gpt4roi, monkeypatch):
    write = BatchedPredictor._write
    monkeypatch.setattr(BatchedPredictor, "_write", lambda *given: [("", None, None) for _ in write(*given)])
    result = evaluate("coco", gpt4roi, world, **SMALL)
    assert result.card.counts["empty answers"] == len(result.predictions)
    assert result.metrics == {"accuracy": 0, "mAP": 0}
    assert result.predictions["logprob"].isna().all() and not result.predictions["correct"].any()


def test_what_is_missing_is_named_before_anything_is_loaded(own, gpt4roi):
    (own / "vcr" / "val.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"annotations: .*val\.jsonl"):
        evaluate("vcr", gpt4roi, own)
    with pytest.raises(FileNotFoundError, match="no folder"):
        evaluate("vcr", gpt4roi, own / "elsewhere")


def test_arguments_that_do_not_fit(world, gpt4roi):
    for arguments, message in (
        ({"split": "testA"}, "split must be one of 'val', 'test', 'train'"),
        ({"scorer": "beam"}, "scorer must be one of"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"limit": 1.5}, "limit must be a whole number, but is 1.5"),
        ({"limit": True}, "limit must be a whole number, but is True"),
        ({"seed": None}, "seed must be a whole number, but is None"),
        ({"batch_size": 2.5}, "batch_size must be a whole number, but is 2.5"),
        ({"stop": True}, r"stop must be a threading\.Event"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 1"),
        ({"question": "What is <region1>?"}, "fixes its wording"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            evaluate("vcr", gpt4roi, world, **{**SMALL, **arguments})
    with pytest.raises(ValueError, match="there is no benchmark 'vqa'"):
        evaluate("vqa", gpt4roi, world)


@pytest.mark.parametrize("scorer", ["generate", "likelihood"])
def test_a_model_that_computes_nan_has_no_figure(world, scorer):
    broken = tiny_gpt4roi(seed=1)
    broken.model.language_model.lm_head.weight.data[3, 3] = float("nan")
    with pytest.raises(FloatingPointError, match=r"NaN instead of probabilities.*language_model\.lm_head\.weight"):
        evaluate("vcr", broken, world, scorer=scorer, **{**SMALL, "limit": 1})


def test_a_limit_draws_whole_groups_by_seed(world, gpt4roi, whole):
    drawn = [evaluate("vcr", gpt4roi, world, limit=3, seed=seed, **SMALL) for seed in (0, 0, 1)]
    same(drawn[0], drawn[1])
    assert set(drawn[0].predictions["id"]) != set(drawn[2].predictions["id"])
    for one in drawn:
        assert len(one.predictions) == 6 and one.card.limit == 3
        assert set(one.predictions["id"].str.rpartition("/")[0].value_counts()) == {2}


def test_drawing_does_not_depend_on_the_order():
    from gpt4roi_nb.evaluate.benchmarks.item import Item

    items = [Item(str(number), "", (), "?") for number in range(50)]
    chosen = {item.id for item in draw(items, 10, 3)}
    assert chosen == {item.id for item in draw(items[::-1], 10, 3)} and len(chosen) == 10
    assert draw(items, 60, 3) == items


@pytest.fixture
def test_split(own: Path) -> Path:
    """The validation split without its labels, like the published test split of VCR."""
    lines = []
    for line in (own / "vcr" / "val.jsonl").read_text().splitlines():
        entry = json.loads(line)
        for key in ("answer_label", "rationale_label", "answer_orig", "rationale_orig"):
            del entry[key]
        lines.append(json.dumps(entry))
    (own / "vcr" / "test.jsonl").write_text("\n".join(lines) + "\n")
    return own


def test_vcrs_test_split_gives_the_leaderboards_file(test_split, gpt4roi, whole, tmp_path):
    folder = tmp_path / "kept"
    result = evaluate("vcr", gpt4roi, test_split, split="test", folder=folder, **SMALL)
    assert result.metrics == {} and result.predictions["correct"].isna().all()
    file = folder / SUBMISSION
    submitted = pd.read_csv(file)
    assert tuple(submitted.columns) == HEAD and len(HEAD) == 21
    names = {json.loads(line)["annot_id"] for line in (test_split / "vcr" / "test.jsonl").read_text().splitlines()}
    assert set(submitted["annot_id"]) == names
    assert submitted.filter(like="answer_").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-6)
    # The labels' rationale is asked for after the right answer: the same question as in the validation split.
    of_test = result.predictions.set_index("question")["option_logprobs"]
    for question, logprobs in whole.predictions.set_index("question")["option_logprobs"].items():
        assert of_test[question] == pytest.approx(logprobs, abs=1e-4)
    with pytest.raises(ValueError, match="scorer='likelihood'"):
        evaluate("vcr", gpt4roi, test_split, split="test", scorer="generate", **SMALL)
    with pytest.raises(ValueError, match="give the folder to write it into"):
        evaluate("vcr", gpt4roi, test_split, split="test", **SMALL)


def test_the_leaderboards_file_has_a_row_for_what_could_not_be_asked(test_split, gpt4roi, tmp_path):
    file = test_split / "vcr" / "test.jsonl"
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    names = [entry["annot_id"] for entry in entries]
    entries[0]["objects"] = []  # fewer than its metadata file has boxes
    (test_split / "vcr" / "vcr1images" / entries[-1]["img_fn"]).unlink()
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    lost = {names[0], *(entry["annot_id"] for entry in entries if entry["img_fn"] == entries[-1]["img_fn"])}
    with pytest.warns(UserWarning, match="1 of 4 images are missing"):
        result = evaluate("vcr", gpt4roi, test_split, split="test", folder=tmp_path / "kept", **SMALL)
    check_submission(tmp_path / "kept" / SUBMISSION, names)
    submitted = pd.read_csv(tmp_path / "kept" / SUBMISSION).set_index("annot_id")
    assert list(submitted.index) == names
    guessed = (submitted == 0.25).all(axis=1)
    assert set(submitted.index[guessed]) == lost
    assert result.card.counts["annotations with guesses in the submission"] == len(lost) < len(names)
    assert any(note.startswith(f"{len(lost)} annotations lack answers") for note in result.notes)
    drawn = evaluate("vcr", gpt4roi, test_split, split="test", limit=2, folder=tmp_path / "drawn", **SMALL)
    assert drawn.card.counts["rows of the submission"] <= 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows: rows[0].__setitem__(1, "answer0"), "the header must be"),
        (lambda rows: rows.pop(), "one row per annotation; see 'b'"),
        (lambda rows: rows.append(rows[1]), "one row per annotation; see 'a'"),
        (lambda rows: rows[1].__setitem__(4, "0.9"), "row 'a': answer must sum to 1, but sums to 1.65"),
        (lambda rows: rows[2].__setitem__(20, "-1"), "row 'b' must hold 20 probabilities"),
    ],
)
def test_a_submission_that_is_wrong_is_refused(tmp_path, damage, message):
    rows = [list(HEAD), *([name, *["0.25"] * 20] for name in ("a", "b"))]
    file = tmp_path / "submission.csv"
    file.write_text("\n".join(",".join(row) for row in rows) + "\n")
    check_submission(file, ["a", "b"])
    damage(rows)
    file.write_text("\n".join(",".join(row) for row in rows) + "\n")
    with pytest.raises(ValueError, match=message):
        check_submission(file, ["a", "b"])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
def test_two_processes_give_the_same_table(world, tmp_path, gpt4roi, whole):
    gpt4roi.save_pretrained(tmp_path / "checkpoint")
    unwanted = ("PYTEST", "ACCELERATE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    command = [
        # multi_gpu is its name for several processes of one machine; where it sees no GPU they talk by gloo
        *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
        *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--main_process_port", str(free_port())),
        *("-m", "gpt4roi_nb.evaluate", "vcr", "--checkpoint", str(tmp_path / "checkpoint"), "--root", str(world)),
        *("--out", str(tmp_path / "out"), "--batch-size", str(SMALL["batch_size"])),
    ]
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=850, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("kept in") == 1  # only one of them prints
    folder = tmp_path / "out" / "vcr"
    assert {file.name for file in folder.glob("answers-*.jsonl")} == {"answers-0.jsonl", "answers-1.jsonl"}
    two = Result.load(folder)
    pd.testing.assert_frame_equal(
        two.predictions.drop(columns="seconds"),
        whole.predictions.drop(columns="seconds"),
        check_exact=False,
        rtol=1e-5,
        atol=1e-5,  # the checkpoint went through a file, and the processes have other numbers of threads
    )
    assert two.metrics == whole.metrics and two.intervals == whole.intervals
