"""Run by `make wheel` with the Python of a bare environment, which sees nothing of the checkout: is the wheel whole?"""

import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import gpt4roi_nb
import gpt4roi_nb.widgets
from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.scenes.scene import make_scene

for module in (gpt4roi_nb, gpt4roi_nb.widgets):
    place = Path(str(module.__file__)).resolve()
    assert place.is_relative_to(Path(sys.prefix).resolve()), f"{module.__name__} came from {place}, not from the wheel"

for name in gpt4roi_nb.widgets.__all__:
    getattr(gpt4roi_nb.widgets, name)  # imports it, and reads its JavaScript and CSS

checkpoint = {path.name for path in files("gpt4roi_nb.demo").joinpath("checkpoint").iterdir()}
assert {"config.json", "model.safetensors"} <= checkpoint, (
    f"the wheel's demo checkpoint holds only {sorted(checkpoint)}"
)
assert files("gpt4roi_nb").joinpath("py.typed").is_file(), "the wheel carries no py.typed"
source = files("gpt4roi_nb").joinpath("failures", "zoo", "manifest.json")
assert source.is_file(), "the wheel carries no manifest of the source for FiftyOne's zoo"

scene = make_scene(seed=1)
answer = GPT4RoI.from_pretrained().session(scene.image).ask("What is <region1>?", boxes=[scene.objects[0].box])
assert str(answer), "the demo checkpoint of the wheel answers with nothing"
print(f"The wheel of gpt4roi_nb {version('gpt4roi_nb')} answers: {scene.objects[0].phrase} is {answer}")
