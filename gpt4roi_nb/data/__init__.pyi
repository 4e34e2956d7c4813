from .augmentation import augment as augment
from .dataset import FORMATS as FORMATS
from .dataset import RegionDataset as RegionDataset
from .dataset import load as load
from .mixture import Mixture as Mixture
from .previews import preview as preview
from .problems import BadRecord as BadRecord
from .record import Record as Record
