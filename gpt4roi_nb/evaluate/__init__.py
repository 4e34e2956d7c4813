"""Measuring a model on published benchmarks: `evaluate`, the `Result`, and `compare`.

`python -m gpt4roi_nb.evaluate vcr --checkpoint … --root …` does the same without a notebook.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
