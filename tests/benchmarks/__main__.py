"""`make bench`: run the benchmarks and print their ratios beside what is demanded of them, and the machine.

Each `bench_*.py` beside this file has a `run()` that returns or yields rows
`{"what": str, "ratio": float, "demand": "<= 0.05" | ">= 4" | "", "detail": str}`: a ratio carries over from one machine
to another better than seconds do; an empty demand only reports. `BENCH="encode describe"` runs those alone.
Each runs in a process of its own and writes its rows as they come, so that one that fails takes no other's rows along,
nor those that it had. The exit status is 1 when a demand is not met or a benchmark fails.
"""

import importlib.util
import json
import operator
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

HERE = Path(__file__).resolve().parent
COLUMNS = ("what", "ratio", "demand", "verdict", "detail")
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
GIB = 2**30
FAILED = "FAILED"
ROWS = "--rows"  # what follows are a benchmark's file, and the file that its rows are written into


def verdict(ratio: float, demand: str) -> str:
    """`met` or `MISSED`, `FAILED` where there is no ratio, or an empty string where nothing is demanded."""
    if not demand:
        return ""
    if demand == FAILED:
        return FAILED
    sign, bound = demand.split()
    return "met" if COMPARISONS[sign](ratio, float(bound)) else "MISSED"


def table(rows: list[dict[str, str]]) -> str:
    """The rows in aligned columns, under a head line."""
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in COLUMNS}
    lines = ["  ".join(column.ljust(widths[column]) for column in COLUMNS)]
    lines += ["  ".join("-" * widths[column] for column in COLUMNS)]
    lines += ["  ".join(row[column].ljust(widths[column]) for column in COLUMNS) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def machine() -> str:
    """Processor, cores, memory, accelerator and versions, in one paragraph."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    processor = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"
    load = os.getloadavg()[0]
    return (
        f"{processor}, {os.cpu_count()} cores (torch uses {torch.get_num_threads()}), {memory:.0f} GiB, {accelerator}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}; "
        f"load {load:.1f} at the start"
    )


def load(path: Path) -> Any:
    """The benchmark module at `path`, imported under its own name."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported as a module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of one benchmark, run in a process of its own; one that fails ends with a row that says so."""
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as file:
        done = subprocess.run([sys.executable, str(HERE), ROWS, str(path), file.name], stdout=sys.stderr)
        rows = [json.loads(line) for line in file]
    if done.returncode != 0:
        failed = f"ended with status {done.returncode}; its error stands above"
        rows.append({"what": path.stem, "ratio": float("nan"), "demand": FAILED, "detail": failed})
    return rows


def main(names: list[str]) -> int:
    """Run the benchmarks whose file name contains one of `names` (all without any); 1 when a demand is missed."""
    if names[:1] == [ROWS]:
        _, path, out = names
        with Path(out).open("w") as file:
            for row in load(Path(path)).run():
                print(json.dumps(row, default=float), file=file, flush=True)
        return 0
    paths = [p for p in sorted(HERE.glob("bench_*.py")) if not names or any(name in p.stem for name in names)]
    if not paths:
        print(f"no bench_*.py in {HERE} matches {names}")
        return 1
    print(machine(), flush=True)
    rows = []
    for path in paths:
        started = time.perf_counter()
        for row in rows_of(path):
            ratio, demand = float(row["ratio"]), str(row.get("demand", ""))
            text = {
                "what": str(row["what"]),
                "ratio": f"{ratio:.3g}",
                "demand": demand,
                "detail": str(row.get("detail", "")),
            }
            rows.append(text | {"verdict": verdict(ratio, demand)})
        print(f"{path.stem}: {time.perf_counter() - started:.0f} s", flush=True)
    print("\n" + table(rows))
    return 1 if any(row["verdict"] in ("MISSED", FAILED) for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
