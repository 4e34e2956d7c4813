"""A chat with a model of transformers in miniature: a link shows what it was told; what it cannot do is absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from browser.lab import Notebook
from playwright.sync_api import expect

TESTS = Path(__file__).resolve().parents[1]
SIZE = (336, 336)


def test_what_the_model_was_told_is_behind_a_link(open_notebook: Callable[..., Notebook], shots: Path) -> None:
    notebook = open_notebook(
        f"import sys\nsys.path.insert(0, {str(TESTS)!r})\n"
        "from tiny_families import tiny_family\nfrom gpt4roi_nb.data.scenes import make_scene\n"
        "from gpt4roi_nb.models import PromptedModel\nfrom gpt4roi_nb.widgets import RegionChat\n"
        'model = PromptedModel(*tiny_family("qwen3_vl"), "full+crop", "miniature")',
        f"chat = RegionChat(model, make_scene(7, size={SIZE[0]}).image)\nchat.conversation.max_new_tokens = 4\nchat",
    )
    notebook.draw((40, 40, 160, 160), SIZE, 1)
    expect(notebook.chat.locator("[data-action='inspect']")).to_have_count(0)
    notebook.line.fill("What is <region1>?")
    notebook.line.press("Enter")
    expect(notebook.turn(1)).to_be_visible()
    expect(notebook.turn(1).locator("[data-action='inspect']")).to_have_count(0)
    expect(notebook.chat.locator("footer")).to_contain_text("unverified")

    link, told = notebook.turn(1).locator("[data-action='told']"), notebook.turn(1).locator(".told")
    expect(told).to_be_hidden()
    link.click()
    expect(told.locator(".text")).to_have_text("What is the object in image 2?")
    expect(told.locator("img")).to_have_count(2)
    notebook.page.wait_for_function(
        "() => [...document.querySelectorAll('.told img')].every((image) => image.complete && image.naturalWidth > 0)"
    )
    expect(told).to_contain_text("way: full+crop")
    notebook.page.screenshot(path=shots / "what_the_model_was_told.png")
    link.click()
    expect(told).to_be_hidden()
