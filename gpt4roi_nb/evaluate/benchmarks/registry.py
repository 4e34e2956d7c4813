"""The benchmarks by name."""

from __future__ import annotations

from pathlib import Path

from gpt4roi_nb.evaluate.benchmarks.benchmark import Benchmark
from gpt4roi_nb.evaluate.benchmarks.captions import REFCOCOG, VG
from gpt4roi_nb.evaluate.benchmarks.coco import COCO
from gpt4roi_nb.evaluate.benchmarks.gar_bench import GAR_BENCH
from gpt4roi_nb.evaluate.benchmarks.naming import LVIS, PACO
from gpt4roi_nb.evaluate.benchmarks.recognition import ADE20K, CITYSCAPES
from gpt4roi_nb.evaluate.benchmarks.ref_l4 import REF_L4
from gpt4roi_nb.evaluate.benchmarks.vcr import VCR
from gpt4roi_nb.evaluate.benchmarks.visual7w import VISUAL7W
from gpt4roi_nb.evaluate.benchmarks.vstar import VSTAR

# To add a benchmark, define a `Benchmark` in a file of its own, and list it here.
BENCHMARKS: dict[str, Benchmark] = {
    one.name: one
    for one in (VCR, VG, REFCOCOG, CITYSCAPES, ADE20K, LVIS, PACO, COCO, VISUAL7W, GAR_BENCH, VSTAR, REF_L4)
}


def benchmark(name: str) -> Benchmark:
    """Return a benchmark by name. Raises ValueError if it is not in `BENCHMARKS`."""
    if name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}; choose from {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def check_files(name: str, root: Path, split: str) -> None:
    """Check that a benchmark's data is there, before anything takes long.

    Args:
        name: of the benchmark.
        root: folder of the data.
        split: of the dataset.

    Raises:
        FileNotFoundError: data is missing; the message names each file and folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {str(root)!r}; give the folder of the data")
    missing = [(what, path) for what, path in benchmark(name).files(root, split).items() if not path.exists()]
    if missing:
        listed = "".join(f"\n  {what}: {path}" for what, path in missing)
        raise FileNotFoundError(f"{str(root)!r} lacks what {name} ({split}) needs:{listed}")
