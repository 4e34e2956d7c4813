"""The training monitor in a real JupyterLab: it follows a run of the demo checkpoint, and its button ends one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from browser.lab import Notebook
from playwright.sync_api import expect

from gpt4roi_nb.data.scenes.scene import make_scene

Open = Callable[..., Notebook]
TRAIN_MS = 240_000  # an idle machine needs ten seconds
SEED = 5
OBJECTS = len(make_scene(SEED).objects)
TRAIN = f"""
import tempfile
from pathlib import Path
from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.scenes import scene_records
from gpt4roi_nb.data.scenes.scene import make_scene
from gpt4roi_nb.train import Probes, train
from gpt4roi_nb.widgets import TrainingMonitor
gpt4roi = GPT4RoI.from_pretrained()
folder = Path(tempfile.mkdtemp())
records = scene_records(folder / "names", 12, seed=11)
scene = make_scene({SEED})
probes = Probes(scene.image, [thing.box for thing in scene.objects], [thing.phrase for thing in scene.objects])
settings = dict(stage=1, learning_rate=1e-4, warmup_steps=2, batch_size=2, logging_steps=1, probes=probes)
settings["progress"] = False
"""


def test_it_follows_a_run_and_its_button_ends_one(open_notebook: Open, shots: Path) -> None:
    notebook = open_notebook(
        TRAIN,
        "short = train(gpt4roi, records, folder / 'names', folder / 'short', max_steps=6, block=False, **settings)\n"
        "TrainingMonitor(short)",
        "short.wait()\n"
        "long = train(gpt4roi, records, folder / 'names', folder / 'long', max_steps=5000, block=False, **settings)\n"
        "TrainingMonitor(long)",
        "TrainingMonitor(long)",
        height=1400,
    )
    done, running = (notebook.panel.locator(".gpt4roi-monitor").nth(index) for index in (0, 1))
    expect(done).to_have_attribute("data-state", "done", timeout=TRAIN_MS)
    expect(done.locator(".where")).to_have_text("step 6 of 6")
    assert done.locator("path.curve.whole").get_attribute("d").count("L") == 5  # six losses
    expect(done.locator(".probe")).to_have_count(OBJECTS)
    expect(done.locator(".probe .truth").first).to_have_text(make_scene(SEED).objects[0].phrase)
    expect(done.locator("button[data-action='stop']")).to_be_hidden()
    name, figure = (done.locator(f"[data-fact='loss'] {part}").bounding_box() for part in ("dt", "dd"))
    assert name["y"] + name["height"] <= figure["y"] + 1  # above the figure, not behind it

    expect(running.locator("[data-fact='loss']")).to_be_visible(timeout=TRAIN_MS)
    running.locator("button[data-action='stop']").click()
    second = notebook.panel.locator(".gpt4roi-monitor").nth(2)  # of the same training
    expect(second.locator("button[data-action='stop']")).not_to_have_text("Stop")
    expect(running).to_have_attribute("data-state", "stopped", timeout=TRAIN_MS)
    expect(second).to_have_attribute("data-state", "stopped", timeout=TRAIN_MS)
    expect(running.locator(".notice")).to_contain_text("with a checkpoint in")
    notebook.page.screenshot(path=shots / "monitor.png")
