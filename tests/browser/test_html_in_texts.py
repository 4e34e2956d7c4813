"""HTML in texts from elsewhere is shown as text: none of it becomes part of the page, or runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from browser.lab import Notebook
from mongo import Mongo
from playwright.sync_api import expect

pytestmark = [pytest.mark.slow, pytest.mark.browser]

TESTS = Path(__file__).resolve().parents[1]
HTML = "<img class=planted src=x onerror='window.hit=1'><script>window.hit=1</script>"
IN_A_NAME = HTML.replace("/", "-")  # of a file
SETUP = f"""
import os, sys, tempfile
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS / "widgets")!r}]
from pathlib import Path
import fake_inside
from fakes import FakeGPT4RoI
from predictions import make_images, make_predictions
from gpt4roi_nb.widgets import AttentionInspector, FailureBrowser, RegionChat
HTML, NAME = {HTML!r}, {IN_A_NAME!r}
images = [path.rename(path.with_name(NAME + path.name)) for path in make_images(Path(tempfile.mkdtemp()), 2)]
"""
CHAT = "chat = RegionChat(FakeGPT4RoI(lambda text: HTML), images[0])\nchat"
INSPECTOR = """
fake_inside.TOKENS[1] = HTML
inspector = AttentionInspector(fake_inside.fake_answer())
inspector
"""
PREVIEW = """
import numpy as np
from PIL import Image
from gpt4roi_nb.data.previews import preview
from gpt4roi_nb.data.record import Record
class Planted:
    records = [Record(NAME, np.array([[1, 1, 9, 9]], np.float32),
                      (("user", f"What is <region1>? {HTML}"), ("assistant", HTML)), HTML, HTML)]
    def __len__(self): return 1
    def read(self, index, epoch=0): return Image.new("RGB", (32, 32)), self.records[index]
preview(Planted(), 1)
"""
BROWSER = """
result = make_predictions(images, benchmark=HTML)
table = result.predictions.assign(answer=HTML, target=HTML, kind=HTML, correct=False)
table["correct"] = table["correct"].astype("boolean")
table.loc[1, ["kind", "target"]] = "plain", "other"  # a chart has bars to compare
result = type(result)(HTML, {}, {}, result.card, table)
browser = FailureBrowser(result, FakeGPT4RoI(lambda text: HTML), name=HTML)
browser.tag(HTML, [table["id"][0]])
browser.load([table["id"][0]])
browser
"""
GALLERY = "result.gallery()"


def test_texts_from_elsewhere_stay_texts(mongo: Mongo, open_notebook: Callable[..., Notebook], shots: Path) -> None:
    setup = f"import os\nos.environ['FIFTYONE_DATABASE_URI'] = {mongo.uri!r}\n{SETUP}"
    notebook = open_notebook(setup, CHAT, INSPECTOR, PREVIEW, BROWSER, GALLERY, height=6000)
    panel, page = notebook.panel, notebook.page
    notebook.draw((10, 10, 60, 60), (160, 120), 1)
    assert notebook.ask(f"What is <region1>? {HTML}", turn=1) == HTML
    expect(notebook.turn(1)).to_contain_text(f"What is region 1? {HTML}")

    attention = panel.locator(".gpt4roi-attention[data-ready]")
    expect(attention.locator("button[data-token='1']").first).to_contain_text(HTML)
    record = panel.locator(".g4r-record")
    for text in (f"{HTML} · {HTML} · {IN_A_NAME}", f"What is <region1>? {HTML}"):
        expect(record).to_contain_text(text)
    failures = panel.locator(".gpt4roi-failures")
    for dimension in ("kind", "target", "tag"):
        expect(failures.locator(f".chart[data-dimension='{dimension}']")).to_contain_text(HTML)
    for text in (f"{HTML} · tiny", HTML):
        expect(failures).to_contain_text(text)
    expect(failures.locator(".card")).to_contain_text(HTML)
    page.screenshot(path=shots / "html_in_texts.png")

    assert page.locator(".planted").count() == 0
    assert page.evaluate("window.hit === undefined")
