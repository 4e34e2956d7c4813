"""HTML in texts from elsewhere is shown as text: none of it becomes part of the page, or runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from browser.lab import Notebook
from mongo import Mongo
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.slow, pytest.mark.browser]

TESTS = Path(__file__).resolve().parents[1]
HTML = "<img class=planted src=x onerror='window.hit=1'><script>window.hit=1</script>"
IN_A_NAME = HTML.replace("/", "-")  # of a file
SHORT = "<img class=planted src=x>"  # for names of regions, which take 40 characters
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
NAMED = f"named = RegionChat(FakeGPT4RoI(), images[1])\nnamed.set_boxes([(5, 5, 60, 60)], names=[{SHORT!r}])\nnamed"
PAIR = """
from dataclasses import replace
other = replace(result, card=replace(result.card, checkpoint=HTML, told={HTML: HTML}))
pair = FailureBrowser([result, other], [FakeGPT4RoI(lambda text: HTML), FakeGPT4RoI(lambda text: HTML)], name=HTML)
pair.load([table["id"][0]])
pair
"""
MONITOR = """
from learnable import OPTIONS, records
from tiny import tiny_gpt4roi, tiny_image
from gpt4roi_nb.train import Probes, train
from gpt4roi_nb.widgets import TrainingMonitor
folder = Path(tempfile.mkdtemp())
probes = Probes(tiny_image(0), [(3, 4, 30, 40)], [HTML], max_new_tokens=4)
given = [replace(record, source=HTML) for record in records(folder)]
done = train(tiny_gpt4roi(), given, folder, folder / "out", probes=probes, **{**OPTIONS, "epochs": 1})
TrainingMonitor(done)
"""
REGIONS = """
from tiny import tiny_gpt4roi
from gpt4roi_nb.widgets import RoIInspector
inspector = RoIInspector(tiny_gpt4roi().session(tiny_image()), [(3, 4, 30, 40)])
inspector.view.problem = HTML  # a message may quote what was typed
inspector
"""


def nothing_became_html(page: Page) -> None:
    """In no frame: nothing of the planted texts is an element, or ran."""
    for frame in page.frames:
        assert frame.locator(".planted").count() == 0
        assert frame.evaluate("window.hit === undefined")


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
    expect(panel.locator("option").filter(has_text=HTML).first).to_be_attached()  # the gallery's list of kinds
    page.screenshot(path=shots / "html_in_texts.png")
    nothing_became_html(page)


def test_names_columns_and_a_training_stay_texts(
    mongo: Mongo, open_notebook: Callable[..., Notebook], shots: Path
) -> None:
    setup = f"import os\nos.environ['FIFTYONE_DATABASE_URI'] = {mongo.uri!r}\n{SETUP}"
    made = BROWSER.split("browser = ")[0]
    notebook = open_notebook(setup, NAMED, made, PAIR, MONITOR, REGIONS, height=6000)
    panel, page = notebook.panel, notebook.page
    expect(panel.locator(".gpt4roi-labels").first).to_contain_text(SHORT)
    beside = panel.locator(".gpt4roi-beside")
    expect(beside.locator(".cell").first).to_contain_text(HTML)
    monitor = panel.locator(".gpt4roi-monitor")
    expect(monitor).to_have_attribute("data-state", "done", timeout=60_000)
    expect(monitor.locator(".probe")).to_contain_text(HTML)
    expect(panel.locator(".gpt4roi-roi[data-ready]")).to_contain_text(HTML)
    page.screenshot(path=shots / "html_in_names.png")
    nothing_became_html(page)
