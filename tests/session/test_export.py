"""An exported conversation: one file, with the image in it, in which every text stays text."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from PIL import Image
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb import Answer, RegionSession, Turn
from gpt4roi_nb.session.export import MAX_SIDE, as_html, as_markdown, as_text

NASTY = (
    "<img src=x onerror='hit()'> **no** [link](http://x) `code` $x$ & # <region1>\n# heading\n- item\n1. one\n\n| a |"
)
TURNS = (
    Turn(f"What is <region1>? {NASTY}", Answer(f"region 1 is {NASTY}", [], [], [], 0, 0, 0.0, stopped=True), (1,)),
)
IMAGE, BOXES = Image.new("RGB", (1200, 300), "grey"), [(100.0, 40.0, 500.0, 200.0)]


def test_markdown_shows_every_letter_and_no_markup_of_theirs() -> None:
    page = MarkdownIt().enable("table").render(as_markdown(IMAGE, BOXES, TURNS, "a *model*"))
    tags = set(re.findall(r"<(\w+)", page))
    assert tags == {"p", "img", "strong", "br"}
    assert page.count("<img") == 1 and page.count("<strong>") == 2
    shown = re.sub(r"<br />\n", "\n", page)
    for text in ("&lt;img src=x onerror='hit()'&gt; **no** [link](http://x) `code` $x$ &amp; # region 1", "1. one"):
        assert shown.count(text) == 2
    assert "(stopped)" in shown and "a *model*" in shown


def test_html_escapes_and_holds_the_drawn_image() -> None:
    page = as_html(IMAGE, BOXES, TURNS)
    assert page.count("<img") == 1 and "&lt;img src=x onerror=&#x27;hit()&#x27;&gt;" in page
    (data,) = re.findall(r"base64,([^\"]+)", page)
    drawn = Image.open(io.BytesIO(base64.b64decode(data)))
    assert drawn.size == (MAX_SIDE, MAX_SIDE // 4)
    assert drawn.getpixel((1, 1)) != drawn.getpixel((round(100 * MAX_SIDE / 1200) - 1, 60))  # the box's line
    assert "1 numbered region" in page and "border-bottom" in page


def test_text_names_who_said_what() -> None:
    assert as_text(TURNS[:1]).startswith("You: What is region 1? <img")


def test_the_users_names_stand_beside_the_numbers_and_stay_text() -> None:
    names = ["the <b>kettle</b>"]
    assert as_text(TURNS, names).startswith("You: What is region 1 · the <b>kettle</b>? ")
    for page in (
        as_html(IMAGE, BOXES, TURNS, names=names),
        MarkdownIt().render(as_markdown(IMAGE, BOXES, TURNS, names=names)),
    ):
        assert page.count("region 1 · the &lt;b&gt;kettle&lt;/b&gt;") == 4
        assert "<b>kettle" not in page


def test_a_session_writes_both_and_refuses_other_names(tmp_path: Path) -> None:
    session: RegionSession = tiny_gpt4roi().session(tiny_image())
    answer = session.ask("What is <region1>?", [(3, 4, 30, 40)], max_new_tokens=4)
    session.export(tmp_path / "talk.html")
    session.export(str(tmp_path / "talk.md"))
    page = (tmp_path / "talk.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "data:image/jpeg" in page and session.loaded.about in page
    assert "**You:** What is region 1?" in (tmp_path / "talk.md").read_text(encoding="utf-8")
    assert answer.text == session.history[0].answer.text
    with pytest.raises(ValueError, match=r"ends with \.html or \.md"):
        session.export(tmp_path / "talk.pdf")
    with pytest.raises(FileNotFoundError, match="make it first"):
        session.export(tmp_path / "none" / "talk.md")
