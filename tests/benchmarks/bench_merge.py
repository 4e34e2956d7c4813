"""Merging a delta with its base: peak memory and seconds, on generated files of the real shapes.

`make bench` merges two of the 32 layers. The whole 7B, on a disk with 45 GB free:

    .venv/bin/python tests/benchmarks/bench_merge.py --layers 32 --folder /path/to/large/disk
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from timing import Seconds, timed
from torch import Tensor
from transformers.initialization import no_init_weights

from gpt4roi_nb import GPT4RoIConfig, GPT4RoIForConditionalGeneration
from gpt4roi_nb.checkpoint.keys import to_original

TOKENIZER = Path(__file__).parents[1] / "golden" / "tokenizer"
SHARD_BYTES = 5_000_000_000
ADDED_ROWS = 6
GIB = 2**30
# Only the names and sizes of the tokenizer matter here: its 1,000 pieces stand for LLaMA's 32,000.
PIECES = 1000


class Writer:
    """Tensors into `.bin` shards of about `SHARD_BYTES`, as the authors' release has them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self.held, self.size, self.where = folder, {}, 0, {}

    def add(self, name: str, tensor: Tensor) -> None:
        self.held[name] = tensor
        self.size += tensor.nbytes
        if self.size >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        file = f"pytorch_model-{len(set(self.where.values())) + 1:05}.bin"
        torch.save(self.held, self.folder / file)
        self.where.update(dict.fromkeys(self.held, file))
        self.held, self.size = {}, 0

    def close(self, config: dict[str, object]) -> None:
        if self.held:
            self.flush()
        (self.folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": self.where}))
        (self.folder / "config.json").write_text(json.dumps(config))


def generate(folder: Path, layers: int) -> int:
    """Delta, base and tower of GPT4RoI-7B's shapes with so many layers; returns the number of tensors."""
    config = GPT4RoIConfig()
    config.text_config.num_hidden_layers = layers
    config.text_config.vocab_size = PIECES + ADDED_ROWS if layers < 32 else config.text_config.vocab_size
    with torch.device("meta"), no_init_weights():
        shapes = {name: tensor.shape for name, tensor in GPT4RoIForConditionalGeneration(config).state_dict().items()}
    delta, base, tower = Writer(folder / "delta"), Writer(folder / "base"), Writer(folder / "clip")
    torch.manual_seed(0)
    for ours, shape in shapes.items():
        name = to_original(ours)
        if name.startswith("vision_tower."):
            tower.add(name.removeprefix("vision_tower."), torch.randn(shape).mul_(0.02).half())
        elif name.startswith(("model.spi_module.", "model.mm_projector.")):
            delta.add(name, torch.randn(shape).mul_(0.02).half())
        else:
            rows = shape[0] - ADDED_ROWS if name in ("model.embed_tokens.weight", "lm_head.weight") else shape[0]
            foundation = torch.randn(rows, *shape[1:]).mul_(0.02).half()
            if len(shape) == 1:
                foundation += 1
            moved = torch.randn(shape).mul_(0.001).half()
            moved[:rows] += foundation
            moved[:rows] -= foundation  # the difference of two float16 numbers, as a delta is
            base.add(name, foundation)
            delta.add(name, moved)
    text = config.text_config
    sizes = {
        name: getattr(text, name)
        for name in (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "rms_norm_eps",
            "max_position_embeddings",
        )
    }
    delta.close({"model_type": "llava", "mm_use_im_start_end": True, **sizes})
    base.close({"model_type": "llama", **sizes})
    tower.close(config.vision_config.to_dict())
    _tokenizer(folder / "delta", text.vocab_size - ADDED_ROWS)
    return len(shapes)


def _tokenizer(folder: Path, pieces: int) -> None:
    """The golden tokenizer, filled up with names that no text holds where the vocabulary is larger."""
    if pieces == PIECES:
        shutil.copy(TOKENIZER / "tokenizer.model", folder)
        return
    from gpt4roi_nb.tokenizer import tokenizer_from_sentencepiece

    content = json.loads(tokenizer_from_sentencepiece(TOKENIZER / "tokenizer.model").backend_tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary.update({f"\ue000{index}": index for index in range(len(vocabulary), pieces)})
    (folder / "tokenizer.json").write_text(json.dumps(content))


# The kernel's own mark of the highest resident memory, files that are mapped included.
CHILD = """
import sys
from gpt4roi_nb.checkpoint.__main__ import main
status = main(sys.argv[1:])
print([line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1])
sys.exit(status)
"""


def merge(folder: Path) -> tuple[Seconds, float, float]:
    """Merges in a process of its own; returns seconds, peak GiB of its memory, and GB written."""
    said: list[str] = []
    paths = [str(folder / name) for name in ("delta", "merged", "base", "clip")]
    command = [sys.executable, "-c", CHILD, "convert", *paths[:2], "--base", paths[2], "--vision", paths[3]]

    def run() -> None:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        said.append(done.stdout)

    seconds = timed(run)
    written = sum(file.stat().st_size for file in (folder / "merged").glob("*.safetensors")) / 1e9
    return seconds, int(said[0].split()[-1]) * 1024 / GIB, written


def measure(layers: int, where: Path | None = None) -> tuple[int, Seconds, float, float]:
    folder = Path(tempfile.mkdtemp(prefix="merge-", dir=where))
    try:
        return generate(folder, layers), *merge(folder)
    finally:
        shutil.rmtree(folder)


def run() -> list[dict[str, object]]:
    tensors, seconds, peak, written = measure(layers=2)
    return [
        {
            "what": "peak memory of merging a delta / 4 GiB",
            "ratio": peak / 4,
            "demand": "<= 1",
            "detail": f"{peak:.2f} GiB, {seconds}, {tensors} tensors, {written:.1f} GB written (2 of 32 layers)",
        }
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=32, help="of the language model (default: all 32)")
    parser.add_argument("--folder", type=Path, help="where to put up to 45 GB for the while (default: the system's)")
    options = parser.parse_args()
    tensors, seconds, peak, written = measure(options.layers, options.folder)
    print(f"{options.layers} layers, {tensors} tensors, {written:.1f} GB written: {seconds}, peak {peak:.2f} GiB")
