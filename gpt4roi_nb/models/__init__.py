"""Other region models behind the same session: ways to present a box, and the models themselves."""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
