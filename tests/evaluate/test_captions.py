"""Caption scores: pycocoevalcap's classes on the same captions, cases worked out by hand, and nothing left running."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.evaluate.benchmarks.captions import REFCOCOG, VG, score
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Prediction
from gpt4roi_nb.evaluate.metrics import captions
from gpt4roi_nb.evaluate.metrics.captions import (
    METRICS,
    CaptionScores,
    Meteor,
    java,
    meteor,
    one_meteor,
    score_captions,
    tokenized,
    without_chunks_of_perfect,
)

# METEOR takes seconds to start, and memory: in one worker, with those of test_benchmarks.py that use it.
pytestmark = [pytest.mark.xdist_group("captions"), pytest.mark.usefixtures("one_meteor")]

REFERENCES = [
    ["a man with a red hat"],
    ["the cat sat on the mat", "a kitty sits down"],
    ["small wooden cube (left)"],
    ["two dogs that run in a park"],
    ["Ein schöner Hund’s Tag, draußen"],
]
ANSWERS = ["a man with a red hat", "the cat on a mat.", "", "a dog running in the park", "|||"]


@pytest.fixture
def scores() -> CaptionScores:
    return score_captions(ANSWERS, REFERENCES)


def test_the_tokenizer_gives_what_pycocoevalcaps_class_gives() -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = [text for texts in REFERENCES for text in texts] + ['A (very) LONG -- "quoted" line; isn\'t it?', "x"]
    official = PTBTokenizer().tokenize({k: [{"caption": text}] for k, text in enumerate(texts)})
    assert tokenized(texts) == [official[k][0] for k in range(len(texts))]
    assert tokenized(["A red-hot cup."]) == ["a red-hot cup"]


def test_signs_that_end_lines_do_not_shift_captions() -> None:
    texts = ["one\ntwo", "three\u2028four", "", "  ", "five\r\nsix\x85seven", ""]
    assert tokenized(texts) == ["one two", "three four", "", "", "five six seven", ""]
    odd = ["a\x0bcup\x0c", "b\x1c\x1ec", "🐶 dog\u200b", "\ufeffcat", "x\u2029y", "tab\there", "nul\x00l"]
    assert len(tokenized(odd)) == len(odd)
    assert tokenized([]) == []


def test_nothing_is_left_in_the_packages_folder() -> None:
    import pycocoevalcap.tokenizer.ptbtokenizer as module

    folder = Path(module.__file__).parent
    before = sorted(folder.iterdir())
    tokenized(["a cup"])
    assert sorted(folder.iterdir()) == before


@pytest.mark.slow
def test_figures_are_those_of_pycocoevalcaps_own_classes(scores: CaptionScores) -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor as OfficialMeteor
    from pycocoevalcap.rouge.rouge import Rouge

    true = {k: tokenized(texts) for k, texts in enumerate(REFERENCES)}
    given = {k: tokenized([text]) for k, text in enumerate(ANSWERS)}
    official_meteor = OfficialMeteor()
    official = {
        "METEOR": official_meteor.compute_score(true, given),
        "CIDEr": Cider().compute_score(true, given),
        "ROUGE-L": Rouge().compute_score(true, given),
    }
    official_meteor.meteor_p.kill()
    bleu, bleu_each = Bleu(4).compute_score(true, given, verbose=0)
    official["BLEU-4"] = (bleu[3], bleu_each[3])
    for name in METRICS:
        value, each = official[name]
        assert scores.corpus[name] == pytest.approx(100 * value, abs=1e-9), name
        assert scores.items[name] == pytest.approx(100 * np.array(each), abs=1e-9), name


def test_figures_worked_out_by_hand() -> None:
    found = score_captions(["a b c d", "a b x y"], [["a b c d"], ["a b c d e f"]])
    # BLEU-4: 6 of 8 words, 4 of 6 pairs, 2 of 4 triples, 1 of 2; 8 words for 10: brevity exp(1 - 10/8)
    by_hand = (6 / 8 * 4 / 6 * 2 / 4 * 1 / 2) ** 0.25 * np.exp(1 - 10 / 8)
    assert found.corpus["BLEU-4"] == pytest.approx(100 * by_hand, abs=1e-5)
    # ROUGE-L of the second: the longest common subsequence is 2, precision 2/4, recall 2/6, beta 1.2
    rouge = (1 + 1.44) * (2 / 4) * (2 / 6) / (2 / 6 + 1.44 * 2 / 4)
    assert found.items["ROUGE-L"] == pytest.approx([100, 100 * rouge])
    assert found.corpus["ROUGE-L"] == pytest.approx(100 * (1 + rouge) / 2)


def test_what_repeats_its_reference_gets_all_there_is() -> None:
    texts = ["a man with a red hat", "the cat sat on the old mat", "two dogs that run in a park"]
    found = score_captions(texts, [[text] for text in texts])
    assert found.corpus["METEOR"] == pytest.approx(100)
    assert found.corpus["BLEU-4"] == pytest.approx(100, abs=1e-4)
    assert found.corpus["ROUGE-L"] == pytest.approx(100)
    assert found.corpus["CIDEr"] == pytest.approx(1000)  # which is 10 in its own scale


def test_an_answer_without_a_word_scores_nothing(scores: CaptionScores) -> None:
    for name in METRICS:
        assert scores.items[name][2] == pytest.approx(0, abs=1e-4), name
        assert scores.items[name][4] == pytest.approx(0, abs=1e-4), name


def test_a_resample_is_what_the_jar_and_bleu_make_of_the_captions_drawn(scores: CaptionScores) -> None:
    units = ["p", "q", "p", "r", "s"]
    metrics = scores.metrics(units)
    assert metrics["METEOR"].units == ("p", "q", "r", "s")
    for name, metric in metrics.items():
        assert metric.of_samples is not None
        assert metric.of_samples(np.ones((1, 4), np.int64)) == pytest.approx(scores.corpus[name], abs=1e-9), name
        assert metric.value == pytest.approx(scores.corpus[name], abs=1e-9)
    drawn = [0, 2, 0, 2, 3]  # image p twice, r once
    again = score_captions([ANSWERS[k] for k in drawn], [REFERENCES[k] for k in drawn])
    counts = np.array([[2, 0, 1, 0], [1, 1, 1, 1]])
    for name in ("METEOR", "BLEU-4", "ROUGE-L"):
        values = metrics[name].of_samples(counts)  # type: ignore[misc]
        assert values == pytest.approx([again.corpus[name], scores.corpus[name]], abs=1e-9), name


def test_meteor_weighs_sums_of_counts_as_it_weighs_all_captions_and_without_the_paraphrases(running: Meteor) -> None:
    answers = tokenized(["a man with a hat", "dogs run", "the large cat", "a red cube", "zebra", "cups and cups"])
    references = [
        tokenized([text]) for text in ("a man with hat", "a dog is running", "a big cat", "a red cube", "x", "a cup")
    ]
    rows = np.stack([running.statistics(a, r) for a, r in zip(answers, references, strict=True)])
    total, each = running.scores(rows)
    assert rows[:, 8:20].any()  # more than exact words have matched
    perfect = without_chunks_of_perfect(rows)
    with meteor(paraphrases=False) as scorer:
        scores = scorer.scores(np.stack([*perfect, perfect.sum(0), np.zeros(23)]))[1]
    assert scores == pytest.approx([*each, total, 0], abs=1e-12)
    assert 0 < total < 1


@pytest.mark.slow
def test_meteor_reads_every_letter_in_any_shell_and_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    with meteor(paraphrases=False) as scorer:  # which load for seconds, and say nothing of letters
        process = scorer._process
        same = scorer.statistics("ein größer hund", ["ein größer hund"])
        other = scorer.statistics("ein größer hund", ["ein gr??er hund"])
        _, scores = scorer.scores(np.stack([same, other]))
        assert scores[0] == 1
        assert scores[1] < 1
        assert process.poll() is None
    assert process.poll() is not None
    with pytest.raises(ValueError, match="closed"):
        scorer.statistics("a", ["a"])


def test_one_meteor_serves_all_that_is_scored_in_its_block(running: Meteor, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = [], []

    @contextmanager
    def started(paraphrases: bool) -> Iterator[Meteor]:
        begun.append(paraphrases)
        yield running
        ended.append(paraphrases)

    monkeypatch.setattr(captions, "meteor", meteor)
    monkeypatch.setattr(captions, "_started", started)
    with one_meteor():
        found = [score_captions(["a red cup"], [["a cup"]]) for _ in range(2)]
        resampled = [one.metrics(["p"])["METEOR"].of_samples(np.ones((1, 1), np.int64)) for one in found]
        assert (begun, ended) == ([True], [])
    assert ended == [True]
    assert resampled[0] == resampled[1] == pytest.approx(found[0].corpus["METEOR"])
    score_captions(["a red cup"], [["a cup"]]).metrics(["p"])["METEOR"].of_samples(np.ones((1, 1), np.int64))
    assert begun == ended == [True, True, False]  # outside of it each has its own


def test_missing_java_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match=r"apt install default-jre-headless.*openjdk"):
        java()
    with pytest.raises(FileNotFoundError, match="Java programs"):
        score_captions(["a"], [["a"]])


def test_a_tool_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import pycocoevalcap.meteor.meteor as meteor_module
    import pycocoevalcap.tokenizer.ptbtokenizer as tokenizer_module

    monkeypatch.setattr(meteor_module, "METEOR_JAR", "missing.jar")
    with pytest.raises(RuntimeError, match=r"METEOR ended unexpectedly \(exit 1\)"), meteor() as scorer:
        scorer.statistics("a", ["a"])
    with pytest.raises(RuntimeError, match=r"METEOR ended unexpectedly \(exit 1\)"), meteor() as scorer:
        scorer._process.wait()  # it is dead before it is told anything
        scorer.statistics("a", ["a"])
    monkeypatch.setattr(tokenizer_module, "STANFORD_CORENLP_3_4_1_JAR", "missing.jar")
    with pytest.raises(RuntimeError, match="PTB tokenizer failed on 1 texts"):
        tokenized(["a"])


def test_missing_pycocoevalcap_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap.tokenizer.ptbtokenizer", None)
    with pytest.raises(ImportError, match=r"gpt4roi_nb\[evaluate\]"):
        tokenized(["a"])


def test_nothing_to_score_and_missing_references_are_told() -> None:
    with pytest.raises(ValueError, match="0 captions and 0"):
        score_captions([], [])
    with pytest.raises(ValueError, match="2 captions and 1"):
        score_captions(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="caption 1 has no reference"):
        score_captions(["a", "b"], [["a"], []])


@pytest.mark.samples
def test_genuine_captions_that_repeat_themselves_are_perfect(samples: Path) -> None:
    entries = json.loads((samples / "refcocog" / "RefCOCOg_annotation_subset.json").read_text())
    texts = [entry["caption"][0] for rows in entries.values() for entry in rows][:300]
    found = score_captions(texts, [[text] for text in texts])
    assert found.corpus["METEOR"] == pytest.approx(100)
    assert found.corpus["ROUGE-L"] == pytest.approx(100)
    assert found.corpus["BLEU-4"] == pytest.approx(100, abs=1e-3)
    assert 900 < found.corpus["CIDEr"] <= 1000  # a few are shorter than four words
    assert len(found.items["METEOR"]) == len(texts)


def vg_root(tmp_path: Path, split: str = "val") -> Path:
    base = tmp_path / "vg"
    (base / "VG_100K").mkdir(parents=True)
    (base / "VG_100K" / "1.jpg").write_bytes(b"")
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 100, "height": 80}],
        "annotations": [
            {"id": 1, "image_id": 1, "bbox": [10, 10, 20, 20], "caption": "a red cup ", "category_id": 1},
            {"id": 2, "image_id": 1, "bbox": [40, 10, 0, 20], "caption": "nothing", "category_id": 1},
            {"id": 3, "image_id": 1, "bbox": [10, 10, 20, 20], "caption": "the handle", "category_id": 1},
        ],
        "categories": [{"id": 1, "name": "object"}],
    }
    (base / f"{split}.json").write_text(json.dumps(content))
    return tmp_path


def test_visual_genome_asks_once_a_caption(tmp_path: Path) -> None:
    root, problems = vg_root(tmp_path), Problems()
    items = list(VG.items(EvalConfig(root, "val"), problems))
    assert [item.id for item in items] == ["vg/1/0", "vg/1/1"]
    assert [item.target for item in items] == ["a red cup", "the handle"]
    assert {item.group for item in items} == {"vg/1"}
    assert items[0].boxes == ((10, 10, 30, 30),)
    assert items[0].image == str(root / "vg" / "VG_100K" / "1.jpg")
    assert "<region1>" in items[0].question
    assert problems.counts() == {"box without area": 1}
    # the dataset's own folder works, too
    assert [item.id for item in VG.items(EvalConfig(root / "vg", "val"), Problems())] == [item.id for item in items]
    assert set(VG.files(root, "all")) == {"regions", "sizes of images", "images in VG_100K"}
    asked = VG.items(EvalConfig(root, "val", question="Caption <region1>."), Problems())
    assert {item.question for item in asked} == {"Caption <region1>."}


def test_visual_genomes_test_part_is_the_default_and_grits_folders_will_do(tmp_path: Path) -> None:
    assert VG.splits[0] == "test"
    base = vg_root(tmp_path, "test") / "vg"
    expected = list(VG.items(EvalConfig(tmp_path, "test"), Problems()))
    (base / "annotations").mkdir()
    (base / "test.json").rename(base / "annotations" / "test.json")
    (base / "VG_100K").rename(base / "images")
    items = list(VG.items(EvalConfig(tmp_path, "test"), Problems()))
    assert [item.target for item in items] == [item.target for item in expected] == ["a red cup", "the handle"]
    assert items[0].image == str(base / "images" / "1.jpg")
    assert all(path.exists() for path in VG.files(tmp_path, "test").values())


@pytest.mark.samples
def test_visual_genome_reads_the_genuine_records(samples: Path, tmp_path: Path) -> None:
    base = tmp_path / "vg"
    (base / "VG_100K").mkdir(parents=True)
    (base / "VG_100K" / "1.jpg").write_bytes(b"")
    shutil.copy(samples / "visual_genome" / "region_descriptions_sample.json", base / "region_descriptions.json")
    facts = {"image_id": 1, "width": 800, "height": 600, "url": "https://x/VG_100K/1.jpg"}
    (base / "image_data.json").write_text(json.dumps([facts]))
    items = list(VG.items(EvalConfig(tmp_path, "all"), Problems(strict=True)))
    assert [item.target for item in items] == [
        "the clock is green in colour",
        "shade is along the street",
        "man is wearing sneakers",
    ]
    assert items[0].boxes == ((421, 57, 503, 196),)
    assert Path(items[0].image) == base / "VG_100K" / "1.jpg"


def test_refcocog_asks_once_a_region_and_knows_all_its_sentences(tmp_path: Path) -> None:
    (tmp_path / "refcocog").mkdir()
    (tmp_path / "coco" / "train2014").mkdir(parents=True)
    size = {"width": 100, "height": 80, "file_name": "COCO_train2014_000000000009.jpg", "original_id": 9}
    content = {
        "images": [{"id": k, "caption": text, **size} for k, text in enumerate(["the cup", "a red cup", "the bowl"])],
        "annotations": [
            {"id": 7, "image_id": 0, "bbox": [1, 2, 30, 40], "category_id": 1},
            {"id": 8, "image_id": 1, "bbox": [1, 2, 30, 40], "category_id": 1},
            {"id": 9, "image_id": 2, "bbox": [50, 2, 30, 40], "category_id": 1},
        ],
        "categories": [{"id": 1, "name": "object"}],
    }
    (tmp_path / "refcocog" / "finetune_refcocog_val.json").write_text(json.dumps(content))
    items = list(REFCOCOG.items(EvalConfig(tmp_path, "val"), Problems(strict=True)))
    assert [item.facts["references"] for item in items] == [["the cup", "a red cup"], ["the bowl"]]
    assert {item.group for item in items} == {"refcocog/COCO_train2014_000000000009"}
    assert Path(items[0].image) == tmp_path / "coco" / "train2014" / "COCO_train2014_000000000009.jpg"
    assert all(path.exists() for path in REFCOCOG.files(tmp_path, "val").values())
    predictions = [
        Prediction(item.id, answer, 0.0, None, 0.0, 100, 80)
        for item, answer in zip(items, ["the cup", ""], strict=True)
    ]
    found = score(items, predictions, EvalConfig(tmp_path, "val"))
    assert list(found.metrics) == list(METRICS)
    assert found.columns["score"] == [pytest.approx(1), 0]
    assert found.counts == {"empty answers": 1}
    assert "1.5 references per region" in found.notes[0]
    assert score([], [], EvalConfig(tmp_path, "val")).metrics == {}
