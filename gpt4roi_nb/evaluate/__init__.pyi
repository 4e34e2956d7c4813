from .benchmarks.registry import BENCHMARKS as BENCHMARKS
from .card import ProtocolCard as ProtocolCard
from .comparison import Comparison as Comparison
from .comparison import compare as compare
from .result import Result as Result
from .run import evaluate as evaluate
