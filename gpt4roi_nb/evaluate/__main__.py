"""The command line: `python -m gpt4roi_nb.evaluate vcr --checkpoint … --root …`.

`python -m gpt4roi_nb.evaluate verify GPT4RoI-7B --root …` says whether a checkpoint behaves as published; `verify
Kosmos-2` and `verify ViP-LLaVA-7B` do the same for other models.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gpt4roi_nb import commands
from gpt4roi_nb.commands import ALL, CANNOT_TELL, DIFFERS, EXPORT, IMPORT, INTERRUPTED, VERIFY
from gpt4roi_nb.evaluate.answers_in import import_answers
from gpt4roi_nb.evaluate.benchmarks.registry import BENCHMARKS, benchmark, check_files
from gpt4roi_nb.evaluate.metrics.captions import one_meteor
from gpt4roi_nb.evaluate.metrics.scorers import check_scorers
from gpt4roi_nb.evaluate.model_facts import Model
from gpt4roi_nb.evaluate.questions_out import export_questions
from gpt4roi_nb.evaluate.result import Result
from gpt4roi_nb.evaluate.run import evaluate
from gpt4roi_nb.evaluate.tables import markdown
from gpt4roi_nb.evaluate.verify import CHECKS, WEIGHTS, check_data, verify
from gpt4roi_nb.evaluate.worlds import own_world
from gpt4roi_nb.memory import is_out_of_memory
from gpt4roi_nb.models.load import load_model

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
OUT_BEFORE = "memory ran out before the first question"
OUT = "memory ran out; finished answers are kept, and the same call continues from there"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options; `run` is the function that carries them out."""
    within: dict[str, tuple[Callable[[], argparse.ArgumentParser], Callable[[argparse.Namespace, bool], int]]] = {
        VERIFY: (partial(commands.verify, CHECKS), _verified),
        EXPORT: (commands.export_questions, _exported),
        IMPORT: (commands.import_answers, _imported),
    }
    if arguments and arguments[0] in within:
        parser, run = within[arguments[0]]
        return parser().parse_args(arguments[1:], argparse.Namespace(run=run))
    return commands.evaluate().parse_args(arguments, argparse.Namespace(run=_evaluated))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks, `verify`, `export` or `import`, print their tables, and return the exit code.

    0 means success; the help of `verify` and `import` names their exit codes.
    """
    options = parse(sys.argv[1:] if arguments is None else arguments)
    first = int(os.environ.get("RANK", "0")) == 0  # only one of several processes prints
    try:
        code: int = options.run(options, first)
        return code
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(error, file=sys.stderr)
        return 1
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # If it ran out outside the questions, as while reading an image, there is only the library's own message.
        print(error if type(error) is MemoryError and str(error) else f"{OUT}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(stopped or "stopped", file=sys.stderr)
        return INTERRUPTED


def _evaluated(options: argparse.Namespace, first: bool) -> int:
    names = list(BENCHMARKS) if ALL in options.benchmarks else list(dict.fromkeys(options.benchmarks))
    if options.into:
        write_into(options.into)  # raises now, before anything takes long
    root = options.root
    if root is None and int(os.environ.get("WORLD_SIZE", "1")) < 2:
        root = own_world()
    for name in names if root is not None else ():  # check everything before anything takes long
        check_files(name, root.expanduser().absolute(), options.split or benchmark(name).splits[0])
    for scorer in dict.fromkeys(scorer for name in names for scorer in benchmark(name).scorers) if first else ():
        check_scorers([scorer], options.mapping_model)
    if options.check:
        print(f"complete for {', '.join(names)}: {root}")
        return 0
    with one_meteor():
        results = _measured(names, root, options, first)
    if first and (options.markdown or options.into):
        table = markdown([(result.benchmark, result.card, result.metrics, result.intervals) for result in results])
        if options.into:
            write_into(options.into, table)
        else:
            print(table)
    return 0 if all(result.card.complete for result in results) else INTERRUPTED


def _verified(options: argparse.Namespace, first: bool) -> int:
    root = options.root.expanduser().absolute()
    check_data(options.model, root, options.mapping_model)
    if options.check:
        print(f"complete for {VERIFY} {options.model}: {root}")
        return 0
    found = verify(
        options.model,
        _loaded(options, options.checkpoint or WEIGHTS[options.model][0], WEIGHTS[options.model][1]),
        root,
        items=options.items,
        seed=options.seed,
        mapping_model=options.mapping_model,
        batch_size=options.batch_size,
        folder=options.out / f"{VERIFY}-{options.model}",
    )
    if first:
        as_json = options.json and json.dumps(found.as_json(), ensure_ascii=False)
        print(as_json or (found.markdown() if options.markdown else found.table()))
    if not found.complete:
        return INTERRUPTED
    return {True: 0, False: DIFFERS, None: CANNOT_TELL}[found.behaves_as_published]


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """What `evaluate` and `export_questions` take about the questions."""
    return {name: getattr(options, name) for name in ("split", "limit", "seed", "scorer", "question", "wording")}


def _exported(options: argparse.Namespace, first: bool) -> int:
    if first:
        file = export_questions(
            options.benchmark,
            options.root,
            out=options.out,
            **_asked(options),
        )
        print(f"questions of {options.benchmark}: {file}")
    return 0


def _imported(options: argparse.Namespace, first: bool) -> int:
    if not first:
        return 0
    result = import_answers(
        options.answers,
        options.root,
        model=options.model,
        mapping_model=options.mapping_model,
        folder=options.out,
    )
    print(f"{result.table()}\n\n{result.card}")
    return 0 if result.card.complete else INTERRUPTED


def write_into(page: Path, table: str | None = None) -> None:
    """Put a table between the marks of a page.

    Args:
        page: a Markdown file.
        table: None only checks the marks.

    Raises:
        ValueError: the page lacks the marks.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{str(page)!r} must hold the marks {BEGIN!r} and, after it, {END!r}")
    if table is not None:
        page.write_text(f"{before}{begin}\n\n{table}\n\n{end}{after}", encoding="utf-8")


def _measured(names: Sequence[str], root: Path | None, options: argparse.Namespace, first: bool) -> list[Result]:
    model = _loaded(options, options.checkpoint, options.regions, **commands.settings(options))
    results = []
    for name in names:
        result = evaluate(
            name,
            model,
            root,
            **_asked(options),
            mapping_model=options.mapping_model,
            batch_size=options.batch_size,
            folder=options.out / name,
        )
        results.append(result)
        if first and not (options.markdown or options.into):
            print(f"{result.table()}\n\n{result.card}\n\nkept in {result.folder}\n", flush=True)
        if not result.card.complete:
            break
    return results


def _loaded(options: argparse.Namespace, checkpoint: str | None, regions: str | None, **settings: Any) -> Model:
    try:
        return load_model(
            checkpoint,
            regions=regions,
            **settings,
            device=_device(options.device),
            dtype=options.dtype,
            quantization=options.quantization,
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or (type(error) is MemoryError and str(error)):  # its message says more
            raise
        raise MemoryError(f"{OUT_BEFORE}: {error}") from error


def _device(given: str | None) -> str | None:
    """Return the device; each process of a launcher gets its own GPU, if there are any."""
    import torch

    if given is None and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return given


if __name__ == "__main__":
    sys.exit(main())
