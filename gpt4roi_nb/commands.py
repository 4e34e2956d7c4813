"""The arguments and `--help` of every command, and how a failure is printed, without slow imports.

The modules that do the work import PyTorch, which takes seconds, and take their parsers from here. A few of their names
and numbers are therefore repeated here; `tests/test_commands.py` compares them with their sources.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

PROG = "python -m gpt4roi_nb"

# Repeated from modules that are slow to import.
DTYPES = ("float16", "bfloat16", "float32")
TOWER = "openai/clip-vit-large-patch14"
BENCHMARKS = (
    "vcr", "vg", "refcocog", "cityscapes", "ade20k", "lvis", "paco", "coco", "visual7w", "gar_bench", "vstar_bench",
    "ref_l4",
)  # fmt: skip
PUBLISHED_MODELS = ("GPT4RoI-7B", "Kosmos-2", "ViP-LLaVA-7B")
BATCH_SIZE = 16
VERIFY_ITEMS = 500
SCENE_SIZE = 336
MAX_NEW_TOKENS = 256
WAYS = ("text", "native", "draw", "marks", "crop", "context", "full+crop")

ALL, VERIFY = "all", "verify"
EXPORT, IMPORT = "export", "import"  # of `evaluate`, like VERIFY
BEGUN = "checkpoints/begun"  # the folder that train/stage1.yaml names
DIFFERS, CANNOT_TELL = 3, 4  # exit codes of `verify`, besides 0 for a checkpoint that behaves as published
INTERRUPTED = 130  # a shell's exit code for SIGINT


class Parser(argparse.ArgumentParser):
    """Reports an error in one line, without the usage, which --help prints and which would push the error off sight."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser_of(command: str, says: str, example: str = "") -> argparse.ArgumentParser:
    """Make a parser without arguments.

    Args:
        command: its name.
        says: what the command does, needs and writes.
        example: calls of it, one per line.
    """
    lines = "\n  ".join(f"{PROG} {line}" for line in example.splitlines())
    return Parser(
        prog=f"{PROG} {command}",
        description=says,
        epilog=f"for example:\n  {lines}" if lines else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def ask_table() -> argparse.ArgumentParser:
    """Make the parser of `ask-table`: many questions at once."""
    made = parser_of(
        "ask-table",
        "Ask a GPT4RoI a table of questions about a folder of images, and write a table of answers.\n\n"
        "QUESTIONS is a CSV file with a header. Its columns:\n"
        "  image     a file name below the folder IMAGES\n"
        '  question  such as "What is <region1>?"\n'
        "  boxes     x1 y1 x2 y2 in pixels of the upright image; several, separated by semicolons, start with\n"
        "            <region1>; empty for a question about the whole image. Columns x1, y1, x2, y2 work as well\n"
        "Other columns are kept. ANSWERS has the same rows in the same order, with two more columns, answer and\n"
        "problem: a row that cannot be asked has no answer, and problem says why. After an interrupt the same call\n"
        "continues: answers so far are kept in the folder ANSWERS.kept.\n\n"
        "Exit code: 0 if every row has an answer, 1 if some have a problem, 2 for bad input, 130 after an interrupt.",
        "ask-table photos questions.csv answers.csv\n"
        "ask-table photos questions.csv answers.csv --checkpoint GPT4RoI-7B --batch-size 8",
    )
    made.add_argument("images", type=Path, metavar="IMAGES", help="folder of the images")
    made.add_argument("questions", type=Path, metavar="QUESTIONS", help="table of questions, a CSV file")
    made.add_argument("answers", type=Path, metavar="ANSWERS", help="table to write, a CSV file")
    add_model(made)
    made.add_argument(
        "--max-new-tokens", type=at_least_one, default=MAX_NEW_TOKENS, metavar="N",
        help=f"longest answer, in tokens ({MAX_NEW_TOKENS})",
    )  # fmt: skip
    made.add_argument(
        "--batch-size", type=at_least_one, default=BATCH_SIZE, metavar="N",
        help=f"questions at a time; fewer if memory is short ({BATCH_SIZE})",
    )  # fmt: skip
    return made


def draw() -> argparse.ArgumentParser:
    """Make the parser of `draw`: what a model would read of a question about boxes."""
    made = parser_of(
        "draw",
        "Write the images that a model would get with a question about boxes, and print the text.\n\n"
        "Without --checkpoint and --regions: the image with its numbered boxes. Reads no weights: the configuration\n"
        "and the processor of --checkpoint.\n\n"
        "Ends with 0, 2 for bad input, 1 for another failure.",
        'draw photo.jpg "What is <region1>?" --box 40 30 210 180 --regions draw --out told.png\n'
        'draw photo.jpg "What is <region1>?" --box 40 30 210 180 --checkpoint Qwen/Qwen3-VL-2B-Instruct',
    )
    made.add_argument("image", help="an image file")
    made.add_argument("question", help='such as "What is <region1>?"; <region1> is the first box')
    add_boxes(made)
    made.add_argument("--checkpoint", metavar="FOLDER_OR_HUB_ID", help="the model that would be asked")
    add_way(made)
    made.add_argument(
        "--out", type=Path, default=Path("told.png"), metavar="IMAGE",
        help="where the image is written; of several, the second as NAME-2, … (default: told.png)",
    )  # fmt: skip
    return made


def checkpoint() -> argparse.ArgumentParser:
    """Make the parser of `checkpoint`: convert the authors' files, or assemble what training begins with."""
    made = parser_of(
        "checkpoint",
        "Make a checkpoint in this package's layout.\n\n"
        "convert  needs the authors' delta and LLaMA-7B (or their merged checkpoint) and 2 GB of memory\n"
        "start    needs Vicuna-7B-v0, CLIP's tower and LLaVA's projector: the published start of training\n\n"
        "Both download what is given as a hub id. docs/authors_weights.md lists the files and their licences.\n"
        "`convert --help` and `start --help` list the options.",
        f"checkpoint convert shilongz/GPT4RoI-7B-delta-V0 GPT4RoI-7B --base path/to/llama-7b --vision {TOWER}",
    )
    commands = made.add_subparsers(required=True, dest="command")
    convert = commands.add_parser(
        "convert", help="the authors' checkpoint, or their delta and LLaMA, to this package's layout"
    )
    convert.add_argument("source", help="the authors' checkpoint or delta: a folder or a hub id")
    convert.add_argument("target", help="the folder to write")
    convert.add_argument("--base", help="the first LLaMA-7B, if the source is a delta: a folder or a hub id")
    convert.add_argument("--vision", help=f"the vision tower, {TOWER}: a folder or a hub id")
    convert.add_argument("--dtype", choices=DTYPES, help="dtype of the result (default: the source's)")
    convert.add_argument(
        "--verify",
        action="store_true",
        help="load the result, or an earlier one, and write one greedy answer",
    )
    convert.add_argument(
        "--force", action="store_true", help="add the base even if it does not look like the delta's; expect nonsense"
    )
    convert.add_argument("--table", action="store_true", help="print what became of every tensor")
    start = commands.add_parser(
        "start", help="assemble the published start of training: Vicuna, CLIP's tower and LLaVA's projector"
    )
    start.add_argument("target", nargs="?", default=BEGUN, help=f"the folder to write (default: {BEGUN})")
    start.add_argument("--language", required=True, help="Vicuna-7B-v0: a folder or a hub id")
    start.add_argument("--vision", required=True, help=f"the vision tower, {TOWER}: a folder or a hub id")
    start.add_argument("--projector", required=True, help="LLaVA's pretrained projector: a .bin or .safetensors file")
    start.add_argument("--dtype", choices=DTYPES, help="dtype of the result (default: the language model's)")
    start.add_argument("--seed", type=int, default=0, help="seed of the new region encoder (default: 0)")
    return made


def check_gpu() -> argparse.ArgumentParser:
    """Make the parser of `check-gpu`: one report on a GPU."""
    made = parser_of(
        "check-gpu",
        "Write one report on what this package does on a GPU: its numbers, its speed and its memory.\n\n"
        "It takes about 8 minutes at most on an H100 or H200, downloads nothing, and writes each row as soon as\n"
        "it is measured. Without a GPU it measures small shapes on the CPU. Exit code 1 if a requirement was\n"
        "missed or a row failed.",
        "check-gpu --out report.md",
    )
    made.add_argument("--out", type=Path, default=Path("gpu_check.md"), help="the report (gpu_check.md)")
    made.add_argument("--minutes", type=float, default=8.0, help="no row begins later than this (8)")
    made.add_argument("--small", action="store_true", help="small shapes; the default without a GPU")
    made.add_argument("--device", help="cpu, cuda, cuda:1, …; default: a GPU if there is one")
    return made


def memory() -> argparse.ArgumentParser:
    """Make the parser of `memory`: what a model needs."""
    made = parser_of(
        "memory",
        "Print how much memory a model's weights and sessions need in every setting, as Markdown tables.\n\n"
        "Needs no weights: only the checkpoint's config.json is read. The default is GPT4RoI-7B.",
        "memory\nmemory path/to/checkpoint",
    )
    made.add_argument("checkpoint", nargs="?", help="a folder or a hub id; only its config.json is read")
    return made


def scenes() -> argparse.ArgumentParser:
    """Make the parser of `scenes`: a generated world."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    made = parser_of(
        "scenes",
        "Write generated images with the annotation files of every dataset, for training and measuring.\n"
        "docs/world.md lists the files.\n\n"
        "Needs only disk space: about 195 KB per image. 20,000 images take one core about 20 minutes.",
        "scenes world --images 2000 --seed 1",
    )
    made.add_argument("out", metavar="OUT", help="folder to make")
    made.add_argument("--images", type=at_least_one, default=20_000, help="how many (default: %(default)s)")
    made.add_argument("--seed", type=int, default=1, help="the same seed gives the same bytes (default: %(default)s)")
    made.add_argument("--size", type=at_least_one, default=SCENE_SIZE, help="side in pixels (default: %(default)s)")
    made.add_argument("--workers", type=int, default=cores, help="processes (default: one per core, here %(default)s)")
    return made


def train() -> argparse.ArgumentParser:
    """Make the parser of `train`: a training run that a file describes."""
    made = parser_of(
        "train",
        "Train a GPT4RoI as described by a YAML file.\n\n"
        "The file must give output_dir and data (a list of annotation files). docs/training.md shows a whole file,\n"
        "and gpt4roi_nb/train/ holds those of the two published stages. The same call continues from the last\n"
        "checkpoint. On several GPUs: accelerate launch -m gpt4roi_nb.train FILE.\n"
        "docs/training.md says what a 7B model needs.",
        "train stage1.yaml",
    )
    made.add_argument("config", type=Path, help="a YAML file; docs/training.md shows one")
    return made


def evaluate() -> argparse.ArgumentParser:
    """Make the parser of `evaluate`: benchmarks."""
    made = parser_of(
        "evaluate",
        "Measure a model on benchmarks. Writes a table and a card for each, and keeps every prediction.\n\n"
        "Needs the benchmark's own files below --root (docs/measuring.md says which). Without --root it measures on a\n"
        f"small generated world, which suits the demo checkpoint. `{VERIFY} GPT4RoI-7B --root …` says whether a\n"
        f"checkpoint behaves as published; `{VERIFY} --help` lists its options. `{EXPORT} lvis --root …` writes the\n"
        f"questions for a model that runs elsewhere, and `{IMPORT} answers.jsonl --root …` judges its answers.",
        "evaluate coco\nevaluate vcr --checkpoint GPT4RoI-7B --root path/to/data\n"
        "evaluate coco --checkpoint Qwen/Qwen3-VL-2B-Instruct --regions draw --root path/to/data",
    )
    made.add_argument(
        "benchmarks", nargs="+", choices=(*BENCHMARKS, ALL), metavar="benchmark", help=", ".join(BENCHMARKS)
    )
    made.add_argument("--checkpoint", metavar="PATH", help="folder or hub id (default: the embedded demo)")
    add_way(made)
    _add_questions(made)
    _add_measuring(made, "answers and results are kept in DIR/BENCHMARK, and a later run continues from there")
    made.add_argument("--markdown", action="store_true", help="print one Markdown table of all results")
    made.add_argument("--into", type=Path, metavar="PAGE", help="write that table into a page, between its two marks")
    return made


def verify(models: Iterable[str] = PUBLISHED_MODELS) -> argparse.ArgumentParser:
    """Make the parser of `evaluate verify`. models: those with known published results."""
    models = tuple(models)
    made = parser_of(
        f"evaluate {VERIFY}",
        "Check that a checkpoint behaves as published: run parts of some benchmarks and compare the results.\n\n"
        f"Exit code: 0 if it does, {DIFFERS} if it does not, {CANNOT_TELL} if that cannot be decided, 1 for an error,\n"
        f"{INTERRUPTED} after an interrupt.",
    )
    made.add_argument("model", choices=models, metavar="model", help=", ".join(models))
    made.add_argument(
        "--checkpoint", metavar="PATH",
        help="folder or hub id (default: its makers' weights on the hub; of a GPT4RoI the folder of its name)",
    )  # fmt: skip
    made.add_argument("--root", type=Path, required=True, help="folder of the data")
    made.add_argument(
        "--items", type=at_least_one, default=VERIFY_ITEMS, metavar="N",
        help="annotations of VCR, and about as many objects of LVIS or questions of Visual-7W; RefCOCOg is asked as a "
        f"whole (default: {VERIFY_ITEMS})",
    )  # fmt: skip
    _add_measuring(made, "answers and results are kept in DIR/verify-MODEL, and a later run continues from there")
    printed = made.add_mutually_exclusive_group()
    printed.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    printed.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    return made


def export_questions() -> argparse.ArgumentParser:
    """Make the parser of `evaluate export`: questions for a model that runs elsewhere."""
    made = parser_of(
        f"evaluate {EXPORT}",
        "Write the questions of a benchmark as JSON lines, for a model that runs in an environment of its own:\n"
        "image, boxes, masks, question and options; not the right answers. docs/measuring.md describes the file.",
        f"evaluate {EXPORT} lvis --root path/to/data --out lvis.questions.jsonl",
    )
    made.add_argument("benchmark", choices=BENCHMARKS, metavar="benchmark", help=", ".join(BENCHMARKS))
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    _add_questions(made)
    made.add_argument("--seed", type=int, default=0, metavar="S", help="seed of random choices (default: 0)")
    return made


def import_answers() -> argparse.ArgumentParser:
    """Make the parser of `evaluate import`: answers of a model that runs elsewhere."""
    made = parser_of(
        f"evaluate {IMPORT}",
        f"Judge the answers to the questions that `{EXPORT}` wrote, and print the table and the card.\n"
        "docs/measuring.md describes the file of answers.\n\n"
        f"Exit code: 0, {INTERRUPTED} if some questions have no answer, 1 for an error.",
        f"evaluate {IMPORT} lvis.answers.jsonl --root path/to/data --model DAM-3B",
    )
    made.add_argument("answers", type=Path, metavar="ANSWERS", help="file of JSON lines")
    made.add_argument("--root", type=Path, help="folder of the data that the questions were exported from")
    made.add_argument("--model", metavar="NAME", help="name of the model (default: the one in the file)")
    made.add_argument("--mapping-model", metavar="PATH", help="sentence embedder (default: all-MiniLM-L6-v2)")
    made.add_argument("--out", type=Path, metavar="DIR", help="folder to keep the result in (default: none)")
    return made


def demo_check() -> argparse.ArgumentParser:
    """Make the parser of `demo-check`: how good the demo checkpoint is."""
    made = parser_of(
        "demo-check",
        "Ask the demo checkpoint about new scenes, images of other worlds and the benchmarks. Print the numbers on\n"
        "its card, and which of them are below their required values.\n\n"
        "Needs nothing else; 300 scenes take a few minutes on a CPU.",
        "demo-check --scenes 300 --seed 321",
    )
    made.add_argument("--scenes", type=at_least_one, default=300, metavar="N", help="how many scenes (default: 300)")
    made.add_argument("--scenes-only", action="store_true", help="skip images of other worlds and the benchmarks")
    _add_scenes_of(made, seed=321)
    return made


def demo_look() -> argparse.ArgumentParser:
    """Make the parser of `demo-look`: what the demo checkpoint looks at."""
    made = parser_of(
        "demo-look",
        "Measure what the demo checkpoint looks at, on held-out scenes, in two studies. In the first, a conversation\n"
        "names two regions and asks about the second, and each region in turn is ablated. In the second, maps are\n"
        "compared with random maps by deletion and insertion.\n\n"
        "Needs nothing else; 30 scenes and 8 answers take about 2 minutes on one processor.",
        "demo-look --scenes 30 --answers 8 --seed 1",
    )
    made.add_argument(
        "--scenes", type=at_least_one, default=60, metavar="N", help="scenes of the ablations (default: 60)"
    )
    made.add_argument("--answers", type=at_least_one, default=20, metavar="N", help="answers per map (default: 20)")
    _add_scenes_of(made, seed=1)
    return made


def _add_scenes_of(made: argparse.ArgumentParser, seed: int) -> None:
    """Add the options of commands that examine a checkpoint on drawn scenes. seed: the default."""
    made.add_argument("--seed", type=int, default=seed, metavar="S", help=f"seed of the scenes (default: {seed})")
    made.add_argument("--checkpoint", type=Path, help="a checkpoint folder (default: the embedded one)")
    made.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def at_least_one(text: str) -> int:
    """Read the number of an option that must be at least 1."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, but is {text!r}") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but is {number}")
    return number


def add_boxes(made: argparse.ArgumentParser) -> None:
    """Add the option that gives boxes, for words that went through `gathered`."""
    made.add_argument(
        "--box",
        action="append",
        default=[],
        type=_box,
        metavar="x1 y1 x2 y2",
        help="a region in pixels of the upright image: left, top, right, bottom; repeat for <region2>",
    )


def gathered(words: Sequence[str]) -> list[str]:
    """Join the words after each --box, up to four numbers: argparse may take a negative number for an option."""
    left, joined = list(words), []
    while left:
        word = left.pop(0)
        if word == "--box":
            box = ""
            while left and len(_numbers(box)) < 4 and not left[0].startswith("--"):
                box = f"{box} {left.pop(0)}"
            word = f"--box={box}"
        joined.append(word)
    return joined


def _numbers(box: str) -> list[str]:
    """Split a box into its words, whatever separates them: `1 2 3 4`, `1,2,3,4`, `[1, 2, 3, 4]`."""
    return [word for word in re.split(r"[\s,()\[\]]+", box) if word]


def _box(text: str) -> list[float]:
    try:
        x1, y1, x2, y2 = map(float, _numbers(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"takes four numbers, x1 y1 x2 y2 in pixels, but got {text.strip()!r}; repeat --box for each box"
        ) from None
    return [x1, y1, x2, y2]


def add_model(made: argparse.ArgumentParser) -> None:
    """Add the options that choose the model and how it is loaded."""
    made.add_argument("--checkpoint", metavar="FOLDER_OR_HUB_ID", help="the model; default: the embedded demo")
    made.add_argument("--device", help="cpu, cuda, cuda:1, …; default: a GPU if there is one")
    made.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="dtype of the weights")
    made.add_argument("--quantization", choices=("8bit", "4bit"), help="of the language model (needs bitsandbytes)")


def add_way(made: argparse.ArgumentParser) -> None:
    """Add the options for how boxes are presented to the model."""
    made.add_argument(
        "--regions",
        choices=WAYS,
        help="how a box is presented; default: as the model's makers document, a GPT4RoI's by region tokens",
    )
    made.add_argument("--colour", metavar="NAME", help="of draw: the first region's colour, such as blue (red)")
    made.add_argument(
        "--width", type=float, metavar="W",
        help="of draw: width of the line, in pixels where the longest side of an image has 336 (3)",
    )  # fmt: skip
    made.add_argument(
        "--margin", type=float, metavar="M", help="of context: margin on each side, as a share of the box's side (0.5)"
    )


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """Return what `add_way` read beside the way itself, as `load_model` takes it."""
    return {"colour": given.colour, "width": given.width, "margin": given.margin}


def _add_questions(made: argparse.ArgumentParser) -> None:
    """Add the options that determine the questions of a benchmark, except the seed."""
    made.add_argument("--root", type=Path, help="folder of the data (default: a small generated world)")
    made.add_argument("--split", help="default: each benchmark's own")
    made.add_argument("--limit", type=at_least_one, metavar="N", help="at most N images (of VCR: annotations)")
    made.add_argument("--scorer", choices=("generate", "likelihood"), help="default: each benchmark's own")
    made.add_argument("--question", help="question to ask instead of the benchmark's, if its protocol leaves it open")
    made.add_argument("--wording", help="of a protocol that was published in several (visual7w: vcr, vip-llava)")


def _add_measuring(made: argparse.ArgumentParser, kept: str) -> None:
    """Add the options that `evaluate` and `verify` share. kept: what is written where below `--out`."""
    made.add_argument("--seed", type=int, default=0, metavar="S", help="seed of random choices (default: 0)")
    made.add_argument("--mapping-model", metavar="PATH", help="sentence embedder (default: all-MiniLM-L6-v2)")
    made.add_argument(
        "--batch-size", type=at_least_one, default=BATCH_SIZE, metavar="N",
        help=f"questions at a time; fewer if memory is short (default: {BATCH_SIZE})",
    )  # fmt: skip
    made.add_argument(
        "--out", type=Path, default=Path("evaluations"), metavar="DIR", help=f"{kept} (default: evaluations)"
    )
    made.add_argument("--quantization", choices=("8bit", "4bit"), help="of the language model")
    made.add_argument("--dtype", help="dtype of the weights, such as float16")
    made.add_argument("--device", help="such as cuda:1")
    made.add_argument("--check", action="store_true", help="only check that the data is complete")


# The commands besides `ask`: what each does, the module that does it, and its parser.
COMMANDS: dict[str, tuple[str, str, Callable[[], argparse.ArgumentParser]]] = {
    "draw": ("write the images and the text that a model would get", "gpt4roi_nb.models.draw_command", draw),
    "ask-table": ("ask a table of questions about a folder of images", "gpt4roi_nb.evaluate.ask_table", ask_table),
    "checkpoint": ("convert the authors' checkpoint to this package's layout", "gpt4roi_nb.checkpoint", checkpoint),
    "check-gpu": ("what a GPU does here: numbers, speed, memory", "gpt4roi_nb.check_gpu", check_gpu),
    "memory": ("what a model needs, and what fits this machine", "gpt4roi_nb.memory_tables", memory),
    "scenes": ("write generated images with annotation files", "gpt4roi_nb.data.scenes", scenes),
    "train": ("train as described by a YAML file", "gpt4roi_nb.train", train),
    "evaluate": ("measure a model on a benchmark", "gpt4roi_nb.evaluate", evaluate),
    "demo-check": ("how good the demo checkpoint is on new scenes", "gpt4roi_nb.demo.check", demo_check),
    "demo-look": ("where the demo checkpoint looks", "gpt4roi_nb.demo.look", demo_look),
}


def fail(why: object, code: int, command: str = "") -> int:
    """Write in one line on the error stream why a command failed; return its exit code."""
    words = " ".join(str(why).split()) or type(why).__name__
    sys.stderr.write(f"{PROG} {command}".rstrip() + f": {words}\n")
    return code


def parse(command: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the words after a command of `COMMANDS`; exit the program for --help and for wrong arguments.

    Args:
        command: a key of `COMMANDS`.
        words: the words after it.

    Raises:
        SystemExit: after printing the help or an error.
    """
    within = {VERIFY: verify, EXPORT: export_questions, IMPORT: import_answers} if command == "evaluate" else {}
    if words and words[0] in within:
        return within[words[0]]().parse_args(words[1:])
    return COMMANDS[command][2]().parse_args(gathered(words))
