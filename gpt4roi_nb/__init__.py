"""GPT4RoI in a notebook: point at parts of an image and ask a model about them.

Importing this package is quick: the public names, listed in `__init__.pyi`, are imported when first used.
"""

from importlib import import_module as _import_module

try:
    import lazy_loader as _lazy_loader
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "this Python lacks the packages that gpt4roi_nb needs. In a clone of the repository run `make setup` once, and "
        "then .venv/bin/python in place of python; elsewhere install the package with pip",
        name=error.name,
    ) from None

_resolve, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name in __all__:
        # Registers configuration, processor and model with transformers' Auto classes, whichever name is used first.
        _import_module("gpt4roi_nb.session")
    return _resolve(name)
