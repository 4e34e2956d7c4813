"""The command line of training: `python -m gpt4roi_nb.train config.yaml`, also under `accelerate launch -m`."""

from __future__ import annotations

import os
import re
import reprlib
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from gpt4roi_nb import commands
from gpt4roi_nb.data import Mixture, RegionDataset, load
from gpt4roi_nb.files import check_regular_file
from gpt4roi_nb.session.gpt4roi import GPT4RoI
from gpt4roi_nb.train.loop import train
from gpt4roi_nb.train.sharding import is_sharded, reads_weights, without_weights


class Loader(yaml.SafeLoader):
    """Reads 1e-4 and 2e5 as numbers, which YAML 1.1 requires to be written 1.0e-4 and 200000."""


def _number(loader: Loader, node: yaml.ScalarNode) -> float:
    value = float(node.value)
    return int(value) if value.is_integer() else value


Loader.add_implicit_resolver("!exponent", re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))
Loader.add_constructor("!exponent", _number)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as configured in a YAML file.

    The file gives `checkpoint` (default: the demo checkpoint), `dtype` (in which to load it; default: as
    `GPT4RoI.from_pretrained` does), `data` (a list of keywords for `gpt4roi_nb.data.load`, each with an optional
    `weight`: how often each of its records is drawn, 1 by default), and any keyword of `train`.

    Args:
        arguments: of the command line: the path of the file.
    """
    parser = commands.train()
    file = parser.parse_args(arguments).config
    try:
        config = read_config(file)
    except (OSError, ValueError) as error:
        parser.error(str(error))
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
            traceback.print_exc()  # after hours of training, the traceback may be the only evidence
            parser.exit(1, f"{parser.prog}: {error}\n")
        parser.error(str(error))
    except KeyboardInterrupt:
        more = "; the same call continues from the last checkpoint" if begun else ""
        parser.exit(commands.INTERRUPTED, f"{parser.prog}: interrupted{more}\n")


def read_config(file: Path) -> Any:
    """Read a YAML file.

    Raises:
        FileNotFoundError, IsADirectoryError, ValueError: as `check_regular_file`; ValueError if it cannot be read.
    """
    check_regular_file(file)
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader)
    except (ValueError, yaml.YAMLError) as error:  # ValueError also for a date that does not exist
        problem = str(error)
    except (LookupError, AttributeError, TypeError, OverflowError) as error:  # PyYAML on an explicit tag: !!bool maybe
        problem = f"{type(error).__name__} {error}"
    except RecursionError:
        problem = "it nests lists or mappings too deep"
    raise ValueError(f"{file} cannot be read as a YAML file: {problem}")


def mixed(entries: Sequence[Mapping[str, Any]], seed: int) -> Mixture:
    """Load the data sets that a file lists, as one mixture.

    Args:
        entries: keywords of `gpt4roi_nb.data.load` for each, with an optional `weight`.
        seed: for the order of the records.

    Raises:
        ValueError: `entries` is no list, an entry is not a mapping, or its weight is not a number; and what `load`
            raises.
    """
    if not isinstance(entries, list | tuple):
        raise ValueError(f"data must be a list of entries with keywords of load, but is {reprlib.repr(entries)}")
    datasets: dict[str, RegionDataset] = {}
    weights = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise ValueError(
                f"an entry of data must give keywords of load, as {{format: coco, …}}, but is {reprlib.repr(entry)}"
            )
        options = dict(entry)
        weight = options.pop("weight", 1)
        if type(weight) not in (int, float):
            raise ValueError(f"weight, how often each record is drawn, must be a number, but is {reprlib.repr(weight)}")
        dataset = load(**options)
        name = f"{dataset.name} {number}"
        datasets[name], weights[name] = dataset, weight * len(dataset)
    return Mixture(datasets, weights, seed=seed)


def placement(environment: Mapping[str, str], dtype: str | None) -> tuple[str | None, str | None]:
    """The device and dtype to load the model with, in a process that a launcher may have started.

    One of several processes loads the model into main memory; the launcher then moves it. On a GPU, parts that do not
    train keep the checkpoint's dtype; sharded weights (FSDP) all have the same dtype, float32.
    """
    if int(environment.get("WORLD_SIZE", "1")) == 1:
        return None, dtype
    if dtype is None and not is_sharded(environment) and torch.cuda.is_available():
        dtype = "auto"
    return "cpu", dtype


if __name__ == "__main__":
    main()
