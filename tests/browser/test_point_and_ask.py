"""Point and ask with the demo checkpoint: the answer is about the object under the box that the mouse drew."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from browser.lab import Notebook
from playwright.sync_api import expect

from gpt4roi_nb.data.scenes.scene import Scene, SceneObject, make_scene

# A scene that was used neither for training nor for choosing a model.
SEED = 7_000_000
SIZE = (336, 336)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(SEED, size=SIZE[0])


@pytest.fixture()
def notebook(open_notebook: Callable[..., Notebook]) -> Notebook:
    return open_notebook(
        "from gpt4roi_nb import GPT4RoI\nfrom gpt4roi_nb.data.scenes import make_scene\n"
        "from gpt4roi_nb.widgets import RegionChat\n"
        "gpt4roi = GPT4RoI.from_pretrained()",
        f"chat = RegionChat(gpt4roi, make_scene({SEED}, size={SIZE[0]}).image)\nchat",
    )


def apart(scene: Scene) -> tuple[SceneObject, SceneObject]:
    """Two large objects whose boxes do not touch, so that the mouse draws the second instead of moving the first."""
    ranked = sorted(scene.objects, key=_area, reverse=True)
    first = ranked[0]
    second = next(other for other in ranked[1:] if not _touch(first.box, other.box))
    return first, second


def _area(thing: SceneObject) -> int:
    x1, y1, x2, y2 = thing.box
    return (x2 - x1) * (y2 - y1)


def _touch(a: tuple[int, int, int, int], b: tuple[int, int, int, int], margin: int = 12) -> bool:
    return a[0] - margin < b[2] and b[0] - margin < a[2] and a[1] - margin < b[3] and b[1] - margin < a[3]


def test_a_drawn_box_gets_the_right_answer(notebook: Notebook, scene: Scene) -> None:
    thing, _ = apart(scene)
    notebook.draw(thing.box, SIZE, 1)
    answer = notebook.ask("What is <region1>?", turn=1)
    assert thing.category in answer
    assert thing.colour in answer
    footer = notebook.chat.locator("footer").inner_text()
    assert "photographs" in footer  # that it knows nothing of them


def test_two_boxes_are_compared_and_a_follow_up_remembers_them(notebook: Notebook, scene: Scene) -> None:
    first, second = apart(scene)
    notebook.draw(first.box, SIZE, 1)
    notebook.draw(second.box, SIZE, 2)
    answer = notebook.ask("What is <region1>, and is it the same colour as <region2>?", turn=1)
    assert first.category in answer
    assert ("yes" if first.colour == second.colour else "no") in answer.lower()
    answer = notebook.ask("What is region 2?", turn=2)
    assert second.category in answer
    assert_kept(notebook, answer)


def assert_kept(notebook: Notebook, answer: str) -> None:
    """The conversation is exported as Markdown and saved, and what the page says about the file opens it again."""
    notebook.button("keep").click()
    with notebook.page.expect_download() as download:
        notebook.button("markdown").click()
    text = download.value.path().read_text(encoding="utf-8")
    assert download.value.suggested_filename == "conversation.md" and "(data:image/jpeg;base64," in text
    assert "**You:** What is region 2?\n" in text and f"**Model:** {answer}" in text

    notebook.button("save").click()
    told = notebook.chat.locator(".panel[data-panel='keep'] .hint")
    expect(told).to_contain_text("Saved as conversation.json. To open it again, run in a cell: ")
    code = told.inner_text().split("run in a cell: ")[1]
    notebook.run_cell(f"from gpt4roi_nb import RegionSession\nagain = {code}\nagain")
    opened = notebook.panel.locator(".gpt4roi-chat").nth(1)
    expect(opened.locator(".turn[data-turn='2'] .model .bubble")).to_have_text(answer)
    expect(opened.locator(".image svg > g.gpt4roi-asked")).to_have_count(2)
    notebook.run_cell("print(again.ask('What colour is region 1?').text == chat.ask('What colour is region 1?').text)")
    expect(notebook.panel.locator(".jp-OutputArea-output pre").last).to_have_text("True\n")
