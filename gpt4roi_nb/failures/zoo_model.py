"""Region models for any FiftyOne dataset: `dataset.apply_model`, and FiftyOne's model zoo."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4roi_nb.arguments import whole_number

if TYPE_CHECKING:
    from gpt4roi_nb.session.region_model import RegionModel

MAX_NEW_TOKENS = 64
BATCH_SIZE = 16
# The name in its manifest, and so its folder and the name of its module: another than the package's, which FiftyOne
# would replace in `sys.modules`.
SOURCE = "gpt4roi-nb"
SOURCE_FILES = ("__init__.py", "manifest.json")


def zoo_model(
    model: RegionModel,
    *,
    question: str | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = BATCH_SIZE,
) -> Any:
    """Wrap a model for `apply_model` of any FiftyOne dataset of images: boxes in, answers out.

    `dataset.apply_model(zoo_model(model), "answers", prompt_field="ground_truth")` asks the question about each box of
    the field `ground_truth`. The field `answers` then holds one detection for each: the same box, the answer as label
    (at most 60 characters), and as attributes `answer` (the whole text), `logprob` (mean of the answer's tokens),
    `prompt` (id of the detection that was asked about), `question` if one is given, and `told` if the model read other
    words; `confidence` is exp(logprob). A box without area gets no answer, with a warning.

    Args:
        model: of `load_model` or `GPT4RoI.from_pretrained`.
        question: names `<region1>` and no other region. By default, as `session.describe`: "What is <region1>?", or
            the first of the model's tasks.
        max_new_tokens: the most tokens per answer.
        batch_size: boxes of an image at a time.

    Returns:
        A `fiftyone.core.models.Model`.

    Raises:
        ValueError, TypeError: a number is invalid.

    >>> import fiftyone
    >>> from PIL import Image
    >>> from gpt4roi_nb import GPT4RoI
    >>> from gpt4roi_nb.data.scenes import make_scene
    >>> from gpt4roi_nb.failures import zoo_model
    >>> scene = make_scene(5)
    >>> Image.fromarray(scene.image).save("scene.png")
    >>> height, width, _ = scene.image.shape
    >>> left, top, right, bottom = scene.objects[0].box
    >>> box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
    >>> found = fiftyone.Detections(detections=[fiftyone.Detection(label="?", bounding_box=box)])
    >>> dataset = fiftyone.Dataset()
    >>> _ = dataset.add_samples([fiftyone.Sample("scene.png", found=found)], progress=False)
    >>> model = zoo_model(GPT4RoI.from_pretrained(), question="What colour is <region1>?")
    >>> dataset.apply_model(model, "answers", prompt_field="found", num_workers=0, progress=False)
    >>> dataset.first().answers.detections[0].label
    'red'
    """
    from gpt4roi_nb.failures.applied_model import AppliedModel

    return AppliedModel(
        model,
        question,
        whole_number(max_new_tokens, "max_new_tokens", least=1),
        whole_number(batch_size, "batch_size", least=1),
    )


def add_to_zoo(folder: str | os.PathLike[str] | None = None) -> Path:
    """Add the models of this package to FiftyOne's model zoo on this machine, without internet.

    Then `fiftyone.zoo.load_zoo_model("gpt4roi_nb/demo")` loads the demo checkpoint, and `load_zoo_model(
    "gpt4roi_nb/region-model", path=…, regions=…, question=…)` any model of `load_model`, as `zoo_model` wraps it.

    Args:
        folder: the zoo. By default, FiftyOne's `model_zoo_dir`.

    Returns:
        The folder that was written, or written again: `gpt4roi-nb` in the zoo.

    >>> import fiftyone.zoo
    >>> from gpt4roi_nb.failures import add_to_zoo
    >>> fiftyone.config.model_zoo_dir = "zoo"
    >>> added = add_to_zoo()
    >>> [name for name in fiftyone.zoo.list_zoo_models() if name.startswith("gpt4roi_nb")]
    ['gpt4roi_nb/demo', 'gpt4roi_nb/region-model']
    """
    if folder is None:
        import fiftyone

        folder = fiftyone.config.model_zoo_dir
    target = Path(folder) / SOURCE
    target.mkdir(parents=True, exist_ok=True)
    for name in SOURCE_FILES:
        shutil.copyfile(Path(__file__).with_name("zoo") / name, target / name)
    return target
