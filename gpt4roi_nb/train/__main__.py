"""The command line of training: `python -m gpt4roi_nb.train config.yaml`, or `accelerate launch -m` the same."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import yaml

from gpt4roi_nb import commands
from gpt4roi_nb.data import Mixture, RegionDataset, load
from gpt4roi_nb.session.gpt4roi import GPT4RoI
from gpt4roi_nb.train.loop import train
from gpt4roi_nb.train.sharding import is_sharded, reads_weights, without_weights


class Loader(yaml.SafeLoader):
    """Takes 1e-4 and 2e5 for numbers, which YAML 1.1 asks to be written 1.0e-4 and 200000."""


def _number(loader: Loader, node: yaml.ScalarNode) -> float:
    value = float(node.value)
    return int(value) if value.is_integer() else value


Loader.add_implicit_resolver("!exponent", re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))
Loader.add_constructor("!exponent", _number)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the file that the command line names says.

    The file names `checkpoint` (absent: the demo checkpoint), `dtype` (in which it is loaded; absent: as
    `GPT4RoI.from_pretrained` does), `data` (a list of what `gpt4roi_nb.data.load` takes, each with an optional
    `weight`: how often each of its records is drawn, 1 by default), and any keyword of `train`.
    """
    parser = commands.train()
    file = parser.parse_args(arguments).config
    try:
        config = yaml.load(file.read_text(encoding="utf-8"), Loader)
    except (OSError, yaml.YAMLError) as error:
        parser.error(f"{file} cannot be read: {error}")
    if not isinstance(config, dict) or not config.get("output_dir") or not config.get("data"):
        parser.error(f"{file} must give output_dir and data; docs/training.md shows a whole file")
    begun: list[object] = []
    try:
        data = mixed(config.pop("data"), config.get("seed", 0))
        device, dtype = placement(os.environ, config.pop("dtype", None))
        checkpoint = config.pop("checkpoint", None)
        if reads_weights(os.environ):
            gpt4roi = GPT4RoI.from_pretrained(checkpoint, device=device, dtype=dtype)
        else:
            gpt4roi = without_weights(checkpoint)
        train(gpt4roi, data, **config, on_start=begun.append)
    except (ValueError, TypeError, OSError, MemoryError, FloatingPointError) as error:
        if begun:
            traceback.print_exc()  # after hours of training, where it happened may be all there is to go by
            parser.exit(1, f"{parser.prog}: {error}\n")
        parser.error(str(error))


def mixed(entries: Sequence[Mapping[str, Any]], seed: int) -> Mixture:
    """The data sets that a file lists, as one."""
    datasets: dict[str, RegionDataset] = {}
    weights = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise ValueError(f"an entry of data must name what load takes, as {{format: coco, …}}, but is {entry!r}")
        options = dict(entry)
        weight = options.pop("weight", 1)
        if type(weight) not in (int, float):
            raise ValueError(f"weight must be a number, how often each record is drawn, but is {weight!r}")
        dataset = load(**options)
        name = f"{dataset.name} {number}"
        datasets[name], weights[name] = dataset, weight * len(dataset)
    return Mixture(datasets, weights, seed=seed)


def placement(environment: Mapping[str, str], dtype: str | None) -> tuple[str | None, str | None]:
    """The device that the model is loaded to, and its dtype, in a process that a launcher started or not.

    One of several processes loads into its own memory, and leaves it to the launcher what goes where. What does not
    train then keeps the checkpoint's dtype on a GPU; weights that are sharded (FSDP) are all of one, float32.
    """
    if int(environment.get("WORLD_SIZE", "1")) == 1:
        return None, dtype
    if dtype is None and not is_sharded(environment) and torch.cuda.is_available():
        dtype = "auto"
    return "cpu", dtype


if __name__ == "__main__":
    main()
