"""Training data: readers of annotation formats, one file each, and the generated world that writes them.

`load(format, annotations, images)` returns a data set of records, `Mixture` joins several, `preview` shows some.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
