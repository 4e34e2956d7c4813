"""A chat with a model of transformers in miniature: a link shows what it was told; what it cannot do is absent."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from browser.lab import Notebook
from playwright.sync_api import expect

TESTS = Path(__file__).resolve().parents[1]
SIZE = (336, 336)


def miniature(family: str, way: str = "None") -> str:
    """A cell that makes a tiny model with random weights, which writes slowly and never ends by itself."""
    return (
        f"import sys, time\nsys.path.insert(0, {str(TESTS)!r})\n"
        "from tiny_families import tiny_family\nfrom gpt4roi_nb.data.scenes import make_scene\n"
        "from gpt4roi_nb.models import PromptedModel\nfrom gpt4roi_nb.widgets import RegionChat\n"
        f'model = PromptedModel(*tiny_family("{family}"), {way}, "miniature")\n'
        "model.model.generation_config.eos_token_id = model.model.config.get_text_config(decoder=True).vocab_size - 1\n"
        "handle = model.model.register_forward_pre_hook(lambda *_: time.sleep(0.02))"
    )


CHAT = f"chat = RegionChat(model, make_scene(7, size={SIZE[0]}).image)\nchat.conversation.max_new_tokens = 4\nchat"


def test_what_the_model_was_told_is_behind_a_link(open_notebook: Callable[..., Notebook], shots: Path) -> None:
    notebook = open_notebook(miniature("internvl", "'full+crop'"), CHAT)
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


def opened_inspector(open_notebook: Callable[..., Notebook], name: str, way: str, width: int, height: int) -> Notebook:
    """A chat with a model in miniature, its question answered and the answer's inspector opened."""
    notebook = open_notebook(
        f"import sys\nsys.path.insert(0, {str(TESTS)!r})\n"
        "from tiny_families import tiny_family\nfrom gpt4roi_nb.data.scenes import make_scene\n"
        "from gpt4roi_nb.models import PromptedModel\nfrom gpt4roi_nb.widgets import RegionChat\n"
        f'model = PromptedModel(*tiny_family("{name}"), "{way}", "miniature")\n'
        f"image = make_scene(7, size={width}).image[:{height}]",
        "chat = RegionChat(model, image)\nchat.conversation.max_new_tokens = 4\nchat",
        height=1500,
    )
    notebook.draw((40, 40, 160, 160), (width, height), 1)
    notebook.line.fill("What is <region1>?")
    notebook.line.press("Enter")
    notebook.turn(1).locator("[data-action='inspect']").click()
    expect(notebook.panel.locator(".gpt4roi-attention[data-ready]")).to_be_visible(timeout=120_000)
    return notebook


def test_where_the_answer_of_another_model_looked(open_notebook: Callable[..., Notebook], shots: Path) -> None:
    """ViP-LLaVA is shown a padded square: its map lies over the image, and what is beside it is not shown."""
    notebook = opened_inspector(open_notebook, "vipllava", "draw", 336, 168)
    view = notebook.panel.locator(".gpt4roi-attention[data-ready]")
    expect(view.locator("[data-choice='method'] option")).to_have_text(["raw attention"])
    side = view.locator(".side[data-side='0']")
    expect(side.locator("[data-choice='how'] option")).to_have_text(["remove", "blur"])
    expect(view.locator("[data-choice='hide_sinks']")).to_be_hidden()
    expect(side.locator(".verdicts li")).to_contain_text("ithout region 1 the log-probability of")
    expect(side.locator(".verdicts li")).to_contain_text("The model would say:")
    side.locator("[data-choice='how']").select_option("blur")
    expect(side.locator(".verdicts li")).to_contain_text("ith region 1 blurred")
    expect(side.locator(".mass")).to_contain_text("on the padding beside it")

    canvas, image = view.locator("canvas[data-side='0']"), view.locator(".stage img").first
    sides = canvas.evaluate("canvas => [canvas.width, canvas.height]")
    assert sides == [4, 4]
    over, under = canvas.bounding_box(), image.bounding_box()
    # The square is as wide as the image and twice as high, in the middle of it.
    assert abs(over["x"] - under["x"]) < 2 and abs(over["width"] - under["width"]) < 2
    assert abs(over["height"] - 2 * under["height"]) < 3
    assert abs(over["y"] + under["height"] / 2 - under["y"]) < 3
    assert canvas.evaluate("canvas => getComputedStyle(canvas).clipPath") == "inset(25% 0%)"
    view.scroll_into_view_if_needed()
    notebook.page.screenshot(path=shots / "another_model_looked.png")
    expect(view.locator(".problem:visible")).to_have_count(0)


def test_a_conversation_goes_on_is_stopped_and_taken_back(open_notebook: Callable[..., Notebook], shots: Path) -> None:
    notebook = open_notebook(miniature("qwen3_vl"), CHAT)
    notebook.draw((40, 40, 160, 160), SIZE, 1)
    notebook.ask("What is region 1?", turn=1)
    notebook.ask("What colour is it?", turn=2)
    notebook.draw((200, 60, 300, 160), SIZE, 2)

    notebook.run_cell("chat.conversation.max_new_tokens = 800")
    notebook.line.fill("Is <region2> left of region 1?")
    notebook.line.press("Enter")
    expect(notebook.chat.locator(".live .model .bubble")).to_have_text(re.compile(r"\S"), timeout=30000)
    notebook.button("stop").click()
    expect(notebook.turn(3).locator(".stopped")).to_be_visible()
    notebook.turn(3).locator("[data-action='told']").click()
    expect(notebook.turn(3).locator(".told .text")).to_contain_text("Is [")
    notebook.page.screenshot(path=shots / "another_model_was_stopped.png")

    notebook.button("undo").click()
    expect(notebook.turn(3)).not_to_be_attached()
    expect(notebook.line).to_have_value("Is <region2> left of region 1?")
    notebook.button("undo").click()
    expect(notebook.turn(2)).not_to_be_attached()
    expect(notebook.line).to_have_value("What colour is it?")
    notebook.run_cell("chat.conversation.max_new_tokens = 4")
    notebook.line.fill("Is <region2> left of <region1>?")
    notebook.line.press("Enter")
    expect(notebook.turn(2)).to_be_visible()
    expect(notebook.turn(2).locator(".stopped")).to_have_count(0)
    expect(notebook.chat.locator(".problem")).to_be_hidden()


def test_a_model_of_tasks_offers_them_once_and_then_a_new_conversation(
    open_notebook: Callable[..., Notebook], shots: Path
) -> None:
    notebook = open_notebook(miniature("florence2"), CHAT)
    examples, problem = notebook.chat.locator("[data-action='example']"), notebook.chat.locator(".problem")
    notebook.draw((40, 40, 160, 160), SIZE, 1)
    expect(examples).to_have_text(["Describe region 1.", "What category is region 1?", "What text is in region 1?"])
    notebook.line.fill("Why is <region1> there?")
    notebook.line.press("Enter")
    expect(problem).to_contain_text("no free question")

    examples.first.click()
    expect(notebook.line).to_have_value("Describe <region1>.")
    notebook.line.press("Enter")
    expect(notebook.turn(1)).to_be_visible()
    expect(problem).to_be_hidden()
    expect(notebook.chat.locator(".examples")).to_be_hidden()
    notebook.turn(1).locator("[data-action='told']").click()
    expect(notebook.turn(1).locator(".told .text")).to_contain_text("What does the region <loc_")
    expect(notebook.chat.locator(".status")).to_contain_text("press New conversation to ask another")
    notebook.page.screenshot(path=shots / "a_model_of_tasks.png")

    notebook.button("new").click()
    expect(notebook.turn(1)).not_to_be_attached()
    notebook.draw((200, 60, 300, 160), SIZE, 1)
    expect(examples).to_have_count(3)
    examples.nth(1).click()
    notebook.line.press("Enter")
    expect(notebook.turn(1).locator(".user .bubble")).to_have_text("What category is region 1?")
