"""Previews: what is drawn, marked and escaped."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import annotation_files as files
import numpy as np

from gpt4roi_nb.data import load, preview
from gpt4roi_nb.draw import region_color
from gpt4roi_nb.processor import GPT4RoIImageProcessor, GPT4RoIProcessor
from gpt4roi_nb.prompt import IGNORE


def test_a_preview_draws_boxes_in_the_chats_colours_and_marks_answers(tmp_path: Path) -> None:
    given = files.flickr(tmp_path)
    shown = preview(load("flickr30k", given.annotations, given.images, cache=tmp_path / "c"), 4)
    assert len(shown.records) == len(shown.images) == 1
    color = [int(region_color(1)[at : at + 2], 16) for at in (1, 3, 5)]
    assert (np.asarray(shown.images[0]) == color).all(axis=2).any()
    html = shown._repr_html_()
    (marked,) = re.findall(r"<mark>(.*?)</mark>", html)
    assert "a man (" in marked
    assert "&lt;region3&gt;" in marked
    assert f"border-color: {region_color(3)}" in marked
    assert 'alt="10001.jpg with 3 numbered boxes"' in html


def test_what_a_file_says_is_escaped(tmp_path: Path) -> None:
    given = files.vg_train(tmp_path)
    given.annotations.write_text(given.annotations.read_text().replace("a clock ", "<script>alert(1)</script>&"))
    shown = preview(load("visual_genome", given.annotations, given.images, cache=tmp_path / "c"), 1)
    assert "<script" not in shown.html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in shown.html


def test_with_a_processor_the_trained_tokens_are_marked(tmp_path: Path, canonical: Any) -> None:
    processor = GPT4RoIProcessor(GPT4RoIImageProcessor(), canonical, num_image_tokens=16)
    given = files.vg_train(tmp_path)
    dataset = load("visual_genome", given.annotations, given.images, cache=tmp_path / "c")
    shown = preview(dataset, 1, processor=processor)
    marked = [re.sub(r"<.*?>", "", text) for text in re.findall(r"<mark>(.*?)</mark>", shown.html, re.DOTALL)]
    assert len(marked) == 2
    for text, (_, answer) in zip(marked, shown.records[0].turns[1::2], strict=True):
        assert answer in text
        assert text.endswith("###")
    assert "&lt;im_patch&gt; × 16" in shown.html
    assert shown.html.count("<b>&lt;bbox&gt;</b>") == 2
    prompt = processor.prompt(shown.records[0].turns)
    assert sum(label != IGNORE for label in prompt.labels) > 4


def test_damaged_images_are_passed_over(tmp_path: Path) -> None:
    given = files.refcoco(tmp_path)
    dataset = load("refcoco", given.annotations, given.images, cache=tmp_path / "c")
    dataset.path(dataset[0]).write_bytes(b"not an image")
    assert preview(dataset, 3).records == []
    assert dataset.problems.counts()


def test_the_public_names_are_real_and_come_when_they_are_used() -> None:
    import gpt4roi_nb.data as data

    for name in data.__all__:
        assert callable(getattr(data, name)) or name == "FORMATS"
    assert set(data.__all__) <= set(dir(data))
    script = "import sys, gpt4roi_nb.data; print([n for n in ('torch', 'pyarrow', 'PIL', 'numpy') if n in sys.modules])"
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert result.stdout.strip() == "[]"
