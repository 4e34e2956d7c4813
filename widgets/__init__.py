"""Views for notebooks: talk about regions, look inside answers and regions, watch a training, browse failures."""

import lazy_loader as _lazy_loader

# Imported at their first use: the monitor imports the trainer, which a conversation does not need.
__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
