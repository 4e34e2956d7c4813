"""`make bench`: a benchmark that fails takes no rows along."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

MAIN = Path(__file__).resolve().parent / "benchmarks" / "__main__.py"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("bench", MAIN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "__main__.py").write_text(MAIN.read_text())
    monkeypatch.setattr(module, "HERE", tmp_path)
    return module


@pytest.mark.slow
def test_a_benchmark_that_fails_keeps_the_rows_of_the_others(
    bench: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    row = {"what": "a ratio", "ratio": 2.0, "demand": ">= 1", "detail": ""}
    (tmp_path / "bench_a.py").write_text(f"def run():\n    yield {row}\n    raise MemoryError\n")
    (tmp_path / "bench_b.py").write_text(f"def run():\n    return [{row}]\n")
    assert bench.rows_of(tmp_path / "bench_b.py") == [row]
    assert bench.main([]) == 1
    shown = capfd.readouterr().out
    assert "bench_a  nan    FAILED  FAILED" in shown and shown.count("a ratio  2      >= 1    met") == 2
