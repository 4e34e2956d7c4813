"""A model source for FiftyOne's model zoo: region models that answer about the boxes of any dataset.

FiftyOne copies this folder into its `model_zoo_dir`, and calls the functions below for the models of `manifest.json`.
"""

from pathlib import Path
from typing import Any

DEMO = "gpt4roi_nb/demo"
QUESTION = ("question", "max_new_tokens", "batch_size")  # how it is asked; the rest is for `gpt4roi_nb.load_model`


def download_model(model_name: str, model_path: str) -> None:
    """Write the file by which FiftyOne knows that a model is there; `load_model` fetches weights, if there are any."""
    Path(model_path).write_text("gpt4roi_nb.load_model fetches the weights of this model.\n", encoding="utf-8")


def load_model(model_name: str, model_path: str, **kwargs: Any) -> Any:
    """Load a model of the manifest.

    Args:
        model_name: in the manifest.
        model_path: the file of `download_model`.
        kwargs: `path` (not for the demo), `regions`, `device`, `dtype`, `quantization`, … as for
            `gpt4roi_nb.load_model`; `question`, `max_new_tokens`, `batch_size` as for `gpt4roi_nb.failures.zoo_model`.

    Raises:
        ValueError: a path is missing, or given for the demo; or as `gpt4roi_nb.load_model`.
    """
    from gpt4roi_nb import load_model as load_region_model
    from gpt4roi_nb.failures import zoo_model

    asking = {name: kwargs.pop(name) for name in QUESTION if name in kwargs}
    path = kwargs.pop("path", None)
    if (path is None) != (model_name == DEMO):
        raise ValueError(
            f"{DEMO!r} is part of gpt4roi_nb and takes no path, any other model needs path=, a folder or a hub id; got "
            f"{model_name!r} with path={path!r}"
        )
    return zoo_model(load_region_model(path, **kwargs), **asking)
