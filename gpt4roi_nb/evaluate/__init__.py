"""Measure a model on published benchmarks: `evaluate`, `Result` and `compare`.

On the command line: `python -m gpt4roi_nb.evaluate vcr --checkpoint … --root …`.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
