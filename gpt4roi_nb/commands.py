"""What every command takes, and its `--help`: parsers alone, so that help and a slip of the pen cost no seconds.

The modules that do the work import PyTorch, which takes seconds; they take their parsers from here. A few names and
numbers of theirs are therefore written out here; `tests/test_commands.py` holds them to their sources.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

PROG = "python -m gpt4roi_nb"

# Written out from modules that are slow to import.
DTYPES = ("float16", "bfloat16", "float32")
TOWER = "openai/clip-vit-large-patch14"
BENCHMARKS = (
    "vcr", "vg", "refcocog", "cityscapes", "ade20k", "lvis", "paco", "coco", "visual7w", "gar_bench", "vstar_bench",
    "ref_l4",
)  # fmt: skip
PUBLISHED_MODELS = ("GPT4RoI-7B",)
BATCH_SIZE = 16
VERIFY_ITEMS = 500
SCENE_SIZE = 336
MAX_NEW_TOKENS = 256

ALL, VERIFY = "all", "verify"
BEGUN = "checkpoints/begun"  # which train/stage1.yaml names
DIFFERS, CANNOT_TELL = 3, 4  # exit codes of `verify`, beside 0 for a checkpoint that behaves as published
INTERRUPTED = 130  # as a shell has it


def parser_of(command: str, says: str, example: str = "") -> argparse.ArgumentParser:
    """An empty parser. says: what the command does, needs and writes. example: how it is called, line by line."""
    lines = "\n  ".join(f"{PROG} {line}" for line in example.splitlines())
    return argparse.ArgumentParser(
        prog=f"{PROG} {command}",
        description=says,
        epilog=f"for example:\n  {lines}" if lines else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def ask_table() -> argparse.ArgumentParser:
    """Many questions at once."""
    made = parser_of(
        "ask-table",
        "Ask the questions of a table about a folder of images, and write a table of answers.\n\n"
        "QUESTIONS is a CSV file with a header. Its columns:\n"
        "  image     a file name, below the folder IMAGES\n"
        '  question  such as "What is <region1>?"\n'
        "  boxes     x1 y1 x2 y2 in pixels of the upright image; several are set apart by a semicolon, <region1>\n"
        "            first; empty for a question about the whole image. Columns x1, y1, x2, y2 do as well\n"
        "Other columns are kept. ANSWERS has the same rows in the same order, with the columns answer and problem:\n"
        "what cannot be asked has no answer, but says why. After an interrupt the same call goes on where it was:\n"
        "what was answered is kept in the folder ANSWERS.kept.\n\n"
        "Ends with 0 where every row has an answer, 1 where some have a problem, 2 for bad input, 130 after an\n"
        "interrupt.",
        "ask-table photos questions.csv answers.csv\n"
        "ask-table photos questions.csv answers.csv --checkpoint GPT4RoI-7B --batch-size 8",
    )
    made.add_argument("images", type=Path, metavar="IMAGES", help="the folder of the images")
    made.add_argument("questions", type=Path, metavar="QUESTIONS", help="the table of questions, a CSV file")
    made.add_argument("answers", type=Path, metavar="ANSWERS", help="the table to write, a CSV file")
    add_model(made)
    made.add_argument(
        "--max-new-tokens", type=int, default=MAX_NEW_TOKENS, metavar="N", help=f"longest answer ({MAX_NEW_TOKENS})"
    )
    made.add_argument(
        "--batch-size", type=int, default=BATCH_SIZE, metavar="N",
        help=f"questions at a time; fewer where memory is short ({BATCH_SIZE})",
    )  # fmt: skip
    return made


def checkpoint() -> argparse.ArgumentParser:
    """The authors' files, and what training begins with."""
    made = parser_of(
        "checkpoint",
        "Make a checkpoint of this package's layout.\n\n"
        "convert  needs the authors' delta and LLaMA-7B (or their merged checkpoint) and 2 GB of memory\n"
        "start    needs Vicuna-7B-v0, CLIP's tower and LLaVA's projector: what training begins with, as published\n\n"
        "Both download what is given as a hub id. docs/authors_weights.md says which files and licences. `convert\n"
        "--help` and `start --help` list the options.",
        f"checkpoint convert shilongz/GPT4RoI-7B-delta-V0 GPT4RoI-7B --base path/to/llama-7b --vision {TOWER}",
    )
    commands = made.add_subparsers(required=True, dest="command")
    convert = commands.add_parser(
        "convert", help="the authors' checkpoint, or their delta and LLaMA, to this package's layout"
    )
    convert.add_argument("source", help="the authors' checkpoint or delta: a folder or a hub id")
    convert.add_argument("target", help="the folder to be written")
    convert.add_argument("--base", help="LLaMA-7B's first version, where the source is a delta: a folder or a hub id")
    convert.add_argument("--vision", help=f"the vision tower, {TOWER}: a folder or a hub id")
    convert.add_argument("--dtype", choices=DTYPES, help="of the result (default: as the source)")
    convert.add_argument(
        "--verify",
        action="store_true",
        help="load the result, or what was converted before, and let it give one greedy answer",
    )
    convert.add_argument(
        "--force", action="store_true", help="add a base that does not look like the delta's; expect nonsense"
    )
    convert.add_argument("--table", action="store_true", help="print what became of every tensor")
    start = commands.add_parser(
        "start", help="what training begins with, as published: Vicuna, CLIP's tower and LLaVA's projector"
    )
    start.add_argument("target", nargs="?", default=BEGUN, help=f"the folder to be written (default: {BEGUN})")
    start.add_argument("--language", required=True, help="Vicuna-7B-v0: a folder or a hub id")
    start.add_argument("--vision", required=True, help=f"the vision tower, {TOWER}: a folder or a hub id")
    start.add_argument("--projector", required=True, help="LLaVA's pretrained projector: a .bin or .safetensors file")
    start.add_argument("--dtype", choices=DTYPES, help="of the result (default: as the language model)")
    start.add_argument("--seed", type=int, default=0, help="of the fresh region encoder (default: 0)")
    return made


def check_gpu() -> argparse.ArgumentParser:
    """One report on a GPU."""
    made = parser_of(
        "check-gpu",
        "Write one report on what this package does on a GPU: its numbers, its speed and its memory.\n\n"
        "It takes at most 8 minutes or so on an H100 or H200, downloads nothing, and writes each row as it is\n"
        "measured. Without a GPU it measures small shapes on the CPU. Ends with 1 where a demand was missed\n"
        "or a row failed.",
        "check-gpu --out report.md",
    )
    made.add_argument("--out", type=Path, default=Path("gpu_check.md"), help="the report (gpu_check.md)")
    made.add_argument("--minutes", type=float, default=8.0, help="no row begins later than this (8)")
    made.add_argument("--small", action="store_true", help="small shapes; so by itself where there is no GPU")
    made.add_argument("--device", help="cpu, cuda, cuda:1, …; without it, a GPU where there is one")
    return made


def memory() -> argparse.ArgumentParser:
    """What a model needs."""
    made = parser_of(
        "memory",
        "Print what a model's weights and sessions need in memory, in every setting, as Markdown tables.\n\n"
        "Needs no weights: of a checkpoint, config.json alone is read. Without one the tables are those of GPT4RoI-7B.",
        "memory\nmemory path/to/checkpoint",
    )
    made.add_argument("checkpoint", nargs="?", help="a folder or a hub id, of which config.json alone is read")
    return made


def scenes() -> argparse.ArgumentParser:
    """A generated world."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    made = parser_of(
        "scenes",
        "Write generated images with the annotation files of every dataset, for training and measuring; docs/world.md\n"
        "says what is where.\n\n"
        "Needs nothing but disk: about 180 KB an image. 20,000 images take one core about 20 minutes.",
        "scenes world --images 2000 --seed 1",
    )
    made.add_argument("out", metavar="OUT", help="folder to make")
    made.add_argument("--images", type=int, default=20_000, help="how many (default: %(default)s)")
    made.add_argument("--seed", type=int, default=1, help="the same seed gives the same bytes (default: %(default)s)")
    made.add_argument("--size", type=int, default=SCENE_SIZE, help="side in pixels (default: %(default)s)")
    made.add_argument("--workers", type=int, default=cores, help="processes (default: one a core, here %(default)s)")
    return made


def train() -> argparse.ArgumentParser:
    """A training that a file describes."""
    made = parser_of(
        "train",
        "Train a GPT4RoI as a YAML file says.\n\n"
        "The file must give output_dir and data (a list of annotation files); docs/training.md shows a whole file,\n"
        "and gpt4roi_nb/train/ holds those of the two published stages. The same call goes on from the last\n"
        "checkpoint. On several GPUs: accelerate launch -m gpt4roi_nb.train FILE.\n"
        "docs/training.md says what a 7B model needs.",
        "train stage1.yaml",
    )
    made.add_argument("config", type=Path, help="a YAML file; docs/training.md shows one")
    return made


def evaluate() -> argparse.ArgumentParser:
    """Benchmarks."""
    made = parser_of(
        "evaluate",
        "Measure a model on benchmarks: a table and a card each, with every prediction kept.\n\n"
        "Needs the benchmark's own files below --root (docs/measuring.md says which); without --root it measures on a\n"
        f"small generated world, as the demo checkpoint should be. `{VERIFY} GPT4RoI-7B --root …` says whether a\n"
        f"checkpoint behaves as published; `{VERIFY} --help` lists its options.",
        "evaluate coco\nevaluate vcr --checkpoint GPT4RoI-7B --root path/to/data",
    )
    made.add_argument(
        "benchmarks", nargs="+", choices=(*BENCHMARKS, ALL), metavar="benchmark", help=", ".join(BENCHMARKS)
    )
    made.add_argument("--checkpoint", metavar="PATH", help="folder or hub id (default: the embedded demo)")
    made.add_argument("--root", type=Path, help="folder of the data (default: a small generated world)")
    made.add_argument("--split", help="default: each benchmark's own")
    made.add_argument("--limit", type=int, metavar="N", help="at most so many images, or annotations of VCR")
    made.add_argument("--scorer", choices=("generate", "likelihood"), help="default: each benchmark's own")
    made.add_argument("--question", help="instead of the benchmark's own, where its protocol leaves that open")
    _add_measuring(made, "answers and results are kept in DIR/BENCHMARK, and a run goes on from there")
    made.add_argument("--markdown", action="store_true", help="one table of all figures in Markdown")
    made.add_argument("--into", type=Path, metavar="PAGE", help="write that table into a page, between its two marks")
    return made


def verify(models: Iterable[str] = PUBLISHED_MODELS) -> argparse.ArgumentParser:
    """What `evaluate verify` takes. models: of which published figures are known."""
    models = tuple(models)
    made = parser_of(
        f"evaluate {VERIFY}",
        "Whether a checkpoint behaves as published: a part of some benchmarks beside the published figures.\n\n"
        f"Ends with 0 where it does, {DIFFERS} where it does not, {CANNOT_TELL} where that cannot be told, 1 for an\n"
        f"error, and {INTERRUPTED} where it was ended early.",
    )
    made.add_argument("model", choices=models, metavar="model", help=", ".join(models))
    made.add_argument("--checkpoint", metavar="PATH", help="folder or hub id (default: the folder of the model's name)")
    made.add_argument("--root", type=Path, required=True, help="folder of the data")
    made.add_argument(
        "--items", type=int, default=VERIFY_ITEMS, metavar="N",
        help=f"annotations of VCR, and about as many objects of LVIS (default: {VERIFY_ITEMS})",
    )  # fmt: skip
    _add_measuring(made, "answers and results are kept in DIR/verify-MODEL, and a run goes on from there")
    printed = made.add_mutually_exclusive_group()
    printed.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    printed.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    return made


def demo_check() -> argparse.ArgumentParser:
    """How good the demo checkpoint is."""
    made = parser_of(
        "demo-check",
        "Ask the demo checkpoint about freshly drawn scenes, images of other worlds and the benchmarks, and print\n"
        "the figures of its card, and which of them miss their bars.\n\n"
        "Needs nothing else; 300 scenes take some minutes on a CPU.",
        "demo-check --scenes 300 --seed 123",
    )
    made.add_argument("--scenes", type=int, default=300, metavar="N", help="how many scenes (default: 300)")
    made.add_argument("--scenes-only", action="store_true", help="leave images of other worlds and benchmarks out")
    _add_scenes_of(made, seed=123)
    return made


def demo_look() -> argparse.ArgumentParser:
    """What the demo checkpoint looks at."""
    made = parser_of(
        "demo-look",
        "Measure what the demo checkpoint looks at, on held-out scenes, in two studies. In the first a conversation\n"
        "names two regions and asks about the second; each region in turn is ablated. In the second, maps are\n"
        "measured by deletion and insertion against random maps.\n\n"
        "Needs nothing else; 30 scenes and 8 answers take 4 minutes of one processor.",
        "demo-look --scenes 30 --answers 8 --seed 1",
    )
    made.add_argument("--scenes", type=int, default=60, metavar="N", help="scenes of the ablations (default: 60)")
    made.add_argument("--answers", type=int, default=20, metavar="N", help="answers a map is measured on (default: 20)")
    _add_scenes_of(made, seed=1)
    return made


def _add_scenes_of(made: argparse.ArgumentParser, seed: int) -> None:
    """Options of what examines a checkpoint on drawn scenes. seed: which, if no other is given."""
    made.add_argument("--seed", type=int, default=seed, metavar="S", help=f"which scenes (default: {seed})")
    made.add_argument("--checkpoint", type=Path, help="a checkpoint folder (default: the embedded one)")
    made.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def add_model(made: argparse.ArgumentParser) -> None:
    """Which model answers, and how it is loaded."""
    made.add_argument("--checkpoint", metavar="FOLDER_OR_HUB_ID", help="the model; without it, the embedded demo")
    made.add_argument("--device", help="cpu, cuda, cuda:1, …; without it, a GPU where there is one")
    made.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="of the weights")
    made.add_argument("--quantization", choices=("8bit", "4bit"), help="of the language model (needs bitsandbytes)")


def _add_measuring(made: argparse.ArgumentParser, kept: str) -> None:
    """Options of `evaluate` and `verify`. kept: what is where below `--out`."""
    made.add_argument("--seed", type=int, default=0, metavar="S", help="of what is drawn (default: 0)")
    made.add_argument("--mapping-model", metavar="PATH", help="sentence embedder (default: all-MiniLM-L6-v2)")
    made.add_argument(
        "--batch-size", type=int, default=BATCH_SIZE, metavar="N",
        help=f"questions at a time; fewer where memory is short (default: {BATCH_SIZE})",
    )  # fmt: skip
    made.add_argument(
        "--out", type=Path, default=Path("evaluations"), metavar="DIR", help=f"{kept} (default: evaluations)"
    )
    made.add_argument("--quantization", choices=("8bit", "4bit"), help="of the language model")
    made.add_argument("--dtype", help="of the weights, such as float16")
    made.add_argument("--device", help="such as cuda:1")
    made.add_argument("--check", action="store_true", help="only say whether the data is complete")


# Beside `ask`: what each does, the module that does it, and its parser.
COMMANDS: dict[str, tuple[str, str, Callable[[], argparse.ArgumentParser]]] = {
    "ask-table": ("ask the questions of a table about a folder of images", "gpt4roi_nb.evaluate.ask_table", ask_table),
    "checkpoint": ("convert the authors' checkpoint to this package's layout", "gpt4roi_nb.checkpoint", checkpoint),
    "check-gpu": ("what a GPU does here: numbers, speed, memory", "gpt4roi_nb.check_gpu", check_gpu),
    "memory": ("what a model needs, and what fits this machine", "gpt4roi_nb.memory", memory),
    "scenes": ("write generated images with annotation files", "gpt4roi_nb.data.scenes", scenes),
    "train": ("train as a YAML file says", "gpt4roi_nb.train", train),
    "evaluate": ("measure a model on a benchmark", "gpt4roi_nb.evaluate", evaluate),
    "demo-check": ("how good the demo checkpoint is on fresh scenes", "gpt4roi_nb.demo.check", demo_check),
    "demo-look": ("where the demo checkpoint looks", "gpt4roi_nb.demo.look", demo_look),
}


def parse(command: str, words: Sequence[str]) -> argparse.Namespace:
    """Read the words after a command of `COMMANDS`; ends the program for --help, and for what it does not take."""
    if command == "evaluate" and words and words[0] == VERIFY:
        return verify().parse_args(words[1:])
    return COMMANDS[command][2]().parse_args(words)
