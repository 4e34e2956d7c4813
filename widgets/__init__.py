"""The notebook's views: talk about regions, look inside answers and regions, watch a training, browse failures."""

import lazy_loader as _lazy_loader

# Imported with their first use: the monitor brings the trainer with it, which a conversation does not need.
__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
