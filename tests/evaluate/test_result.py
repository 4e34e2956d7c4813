"""A result is saved, loaded, tabulated, compared and paged through, and always keeps its protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from tiny import tiny_gpt4roi

from gpt4roi_nb.evaluate import Result, compare, evaluate
from gpt4roi_nb.evaluate.benchmarks.item import Item, Prediction, Scores
from gpt4roi_nb.evaluate.gallery import Gallery
from gpt4roi_nb.evaluate.model_facts import checkpoint_hash
from gpt4roi_nb.evaluate.predictions import COLUMNS, margin, predictions_table, size_bin
from gpt4roi_nb.evaluate.tables import Column, table_of


@pytest.fixture(scope="module")
def result(world, gpt4roi) -> Result:
    return evaluate("vcr", gpt4roi, world, limit=6, progress=False)


def answered(result: Result, correct: list[bool | None], answers: list[str] | None = None) -> Result:
    """The result with other verdicts on its first questions, and those alone."""
    frame = result.predictions.iloc[: len(correct)].copy()
    frame["correct"] = pd.array(correct, dtype="boolean")
    if answers is not None:
        frame["answer"] = answers
    return replace(result, predictions=frame)


def test_a_result_comes_back_as_it_was_saved(result, tmp_path):
    loaded = Result.load(result.save(tmp_path / "kept"))
    pd.testing.assert_frame_equal(loaded.predictions, result.predictions, check_exact=True)
    assert (loaded.metrics, loaded.intervals, loaded.card) == (result.metrics, result.intervals, result.card)
    assert tuple(loaded.predictions.columns) == COLUMNS
    row = loaded.predictions.iloc[0]
    assert isinstance(row["boxes"], list) and len(row["boxes"][0]) == 4
    assert row["options"] == ["(A)", "(B)", "(C)", "(D)"]
    with pytest.raises(FileNotFoundError, match=r"lacks result\.json"):
        Result.load(tmp_path)
    (tmp_path / "kept" / "predictions.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks predictions\.parquet"):
        Result.load(tmp_path / "kept")


def test_columns_that_make_no_sense_are_null_and_of_their_type(tmp_path, result):
    item = Item("a/1", "/nowhere.jpg", (), "How many?")
    table = predictions_table([item], [Prediction("a/1", "", None, None, 0.5, 10, 20)], Scores({}))
    assert table[["correct", "score", "logprob", "margin", "mask", "options"]].isna().all(axis=None)
    assert table["size_bin"][0] == "" and table["boxes"][0] == []
    loaded = Result.load(replace(result, predictions=table).save(tmp_path))
    pd.testing.assert_frame_equal(loaded.predictions, table)


@pytest.mark.parametrize(
    ("side", "size", "expected"),
    [
        *[(31, 640, "small"), (32, 640, "medium"), (95, 640, "medium"), (96, 640, "large")],
        *[(15, 320, "small"), (31, 320, "medium"), (48, 320, "large")],
    ],
)
def test_size_bins_are_cocos_at_a_side_of_640(side, size, expected):
    assert size_bin((5, 5, 5 + side, 5 + side), size, size // 2) == expected


def test_margin_is_the_distance_to_the_next_option():
    assert margin((-3.0, -0.5, -1.25)) == 0.75
    assert margin((-0.1,)) is None and margin(None) is None


def test_a_table_gives_each_card_a_column_of_its_own(result):
    other = replace(result, card=replace(result.card, seed=5), metrics={**result.metrics, "Q→A": 12.34})
    table = str(result.table(other))
    head = next(line for line in table.splitlines() if "[1]" in line)
    assert head.split() == ["measured", "1", "[1]", "measured", "2", "[2]", "published", "[3]", "published", "[4]"]
    row = next(line for line in table.splitlines() if line.startswith("Q→A "))
    assert row.split()[-2:] == ["87.4", "89.4"] and "12.3 (" in row
    for number, words in ((1, "seed 0"), (2, "seed 5"), (3, "published: GPT4RoI-7B"), (4, "published: GPT4RoI-13B")):
        (card,) = [line for line in table.splitlines() if line.startswith(f"[{number}]")]
        assert words in card
    assert repr(result.table()) == str(result.table())  # as it stands at the end of a cell
    with pytest.raises(ValueError, match="of one benchmark"):
        result.table(replace(result, benchmark="coco"))


def test_a_figure_that_is_missing_is_a_dash():
    table = str(table_of("t", [Column("one", "card 1", {"a": float("nan")}), Column("two", "card 2", {"b": 1.0})]))
    assert [line.split() for line in table.splitlines()[3:5]] == [["a", "–", "–"], ["b", "–", "1.0"]]


def test_the_card_says_what_the_figures_are_of(result, gpt4roi):
    text = str(result.card)
    assert "12 questions about" in text and "(limit 6)" in text and result.card.checkpoint in text
    for words in (
        "VCR (generated world), val",
        "(A) …",
        "log-probability of the options",
        "seed",
        "gpt4roi_nb 0.",
        "torch 2.",
    ):
        assert words in text
    assert result.card.checkpoint == checkpoint_hash(gpt4roi)


def test_the_checkpoints_hash_changes_with_one_weight():
    gpt4roi = tiny_gpt4roi(seed=3)
    before = checkpoint_hash(gpt4roi)
    assert before == checkpoint_hash(tiny_gpt4roi(seed=3))
    gpt4roi.model.multi_modal_projector.bias.data[0] += 1
    assert checkpoint_hash(gpt4roi) != before


def test_comparing_counts_who_is_right_where(result):
    first = answered(result, [True, True, True, True, False, False, True, None])
    second = answered(result, [True, True, False, False, True, False, False, None])
    comparison = compare(first, second)
    counted = comparison.both_right, comparison.only_first, comparison.only_second, comparison.both_wrong
    assert counted == (2, 3, 1, 1) and comparison.common == 8
    assert comparison.p_value == pytest.approx(2 * 5 / 16)
    assert list(comparison.changed["id"]) == list(first.predictions["id"].iloc[[2, 3, 4, 6]])
    assert list(comparison.changed["correct_1"]) == [True, True, False, True]
    assert "p = 0.625" in str(comparison)


def test_comparing_captions_tells_answers_that_differ(result):
    texts = ["a cup", "a mug", "a star"]
    comparison = compare(
        answered(result, [None] * 3, texts), answered(result, [None] * 3, ["a cup", "a ring", "a star"])
    )
    assert pd.isna(comparison.p_value) and list(comparison.changed["answer_2"]) == ["a ring"]


def test_comparing_tells_what_differs_in_the_protocol(result):
    other = replace(result, card=replace(result.card, scorer="generate", seconds=99.0))
    assert compare(result, other).differences == {"scorer": ("likelihood", "generate")}
    assert compare(result, result).differences == {}
    with pytest.raises(ValueError, match="of one benchmark"):
        compare(result, replace(result, benchmark="coco"))
    with pytest.raises(TypeError, match=r"expected two results, .* but got PosixPath; .*take Result\.load\(folder\)"):
        compare(result, Path("evaluations/coco"))
    with pytest.raises(ValueError, match="no question in common"):
        compare(result, replace(result, predictions=result.predictions.assign(id="x" + result.predictions["id"])))


def test_selecting_by_query_values_or_function(result):
    frame = result.predictions
    assert len(result.select()) == len(frame)
    assert set(result.select({"kind": "qa"})["kind"]) == {"qa"}
    assert len(result.select({"kind": ["qa", "qar"], "correct": True})) == frame["correct"].sum()
    wrong = ~frame["correct"] & (frame["kind"] == "qar")
    assert len(result.select("kind == 'qar' and correct == False")) == wrong.sum()
    asked = result.select(lambda row: row["id"].endswith("/qa"))
    assert list(asked["id"]) == list(result.select({"kind": "qa"})["id"])
    with pytest.raises(ValueError, match="no column 'split'"):
        result.select({"split": "val"})
    slices = result.slices()
    assert slices["questions"].to_dict() == {"qa": 6, "qar": 6}
    assert 100 * slices["correct"]["qa"] == pytest.approx(result.metrics["Q→A"])


@pytest.mark.slow
def test_the_gallery_pages_filters_and_sorts(result):
    gallery = result.gallery(page_size=5, columns=3)
    assert isinstance(gallery, Gallery) and gallery.pages == 3 and len(gallery.rows) == 12
    assert gallery.rows["logprob"].is_monotonic_decreasing
    first = bytes(gallery._page_image.value)
    assert first.startswith(b"\x89PNG") and gallery._back.disabled and not gallery._forth.disabled
    gallery._forth.click()
    assert (
        gallery.page == 1
        and bytes(gallery._page_image.value) != first
        and gallery._count.value.startswith("6–10 of 12;")
    )
    gallery._verdict.value = "wrong"
    assert gallery.page == 0 and not gallery.rows["correct"].any()
    assert len(gallery.rows) == (~result.predictions["correct"]).sum()
    gallery._verdict.value = "all"
    gallery._kind.value = "qa"
    gallery._sort.value = "smallest margin first"
    assert set(gallery.rows["kind"]) == {"qa"} and gallery.rows["margin"].is_monotonic_increasing
    gallery.show(99)
    assert gallery.page == gallery.pages - 1 and gallery._forth.disabled


def test_the_gallery_survives_an_image_that_is_gone_and_no_rows_at_all(result):
    gone = result.predictions.assign(image="/nowhere/at/all.jpg")
    assert bytes(Gallery(gone)._page_image.value).startswith(b"\x89PNG")
    empty = result.gallery("kind == 'none'")
    assert empty._count.value == "no prediction fits these filters" and bytes(empty._page_image.value) == b""
    for arguments in ({"sort": "best"}, {"verdict": "maybe"}, {"page_size": 0}):
        with pytest.raises(ValueError, match="must be"):
            result.gallery(**arguments)
    for arguments in ({"page_size": 1.5}, {"columns": True}):
        with pytest.raises(TypeError, match="must be a whole number"):
            result.gallery(**arguments)


def test_the_gallery_draws_regions_in_their_colours(result, tmp_path: Path):
    from gpt4roi_nb.draw import region_color
    from gpt4roi_nb.evaluate.gallery import _image

    Image.new("RGB", (100, 80), "white").save(tmp_path / "white.png")
    row = result.predictions.iloc[0].copy()
    row["image"], row["boxes"] = str(tmp_path / "white.png"), [[10.0, 10.0, 50.0, 50.0], [60.0, 20.0, 90.0, 70.0]]
    colors = {color for _, color in _image(row).getcolors(2**20)}
    for number in (1, 2):
        wanted = region_color(number).lstrip("#")
        assert tuple(int(wanted[k : k + 2], 16) for k in (0, 2, 4)) in colors
