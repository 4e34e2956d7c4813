"""Generated predictions in the form of a `Result`, with every kind of error among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from gpt4roi_nb.evaluate import ProtocolCard, Result

THINGS = ("star", "ring", "cube", "heart", "moon")
COLORS = ("red", "green", "blue", "orange")
SIZE = (160, 120)


def card(checkpoint: str, benchmark: str, images: int, questions: int) -> ProtocolCard:
    name, _, weights = checkpoint.partition(" ")
    return ProtocolCard(
        benchmark=benchmark,
        dataset="toys",
        split="val",
        images=images,
        regions=questions,
        questions=questions,
        limit=None,
        seed=0,
        prompt="What is <region1>?",
        scorer="generate",
        decoding="greedy",
        mapping="",
        checkpoint=weights,
        checkpoint_name=name,
        dtype="float32",
        device="cpu",
        versions={},
        seconds=1.0,
    )


def make_images(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"{number:05}.png"
        if not path.exists():
            color = tuple(int(value) for value in np.random.default_rng(number).integers(60, 220, 3))
            Image.new("RGB", SIZE, color).save(path)
        paths.append(path)
    return paths


def make_predictions(
    images: list[Path],
    regions: int = 4,
    *,
    seed: int = 0,
    checkpoint: str = "tiny 0a1b2c3d",
    benchmark: str = "toys",
    classes: bool = False,
) -> Result:
    """`regions` questions per image; each image's regions are different things, so that answers can fit another region.

    classes: the target is a class, and two mappings chose one for the answer.
    """
    random = np.random.default_rng(seed)
    rows = []
    for number, image in enumerate(images):
        truth = [f"a {COLORS[(number + index) % 4]} {THINGS[(number + index) % 5]}" for index in range(regions)]
        for index, target in enumerate(truth):
            side = (12, 40, 55)[index % 3]
            x, y = (index * 37) % (SIZE[0] - side), (index * 23) % (SIZE[1] - side)
            _, color, thing = target.split()
            said = [target, truth[(index + 1) % regions], f"a {color}ish {thing}", "a zebra", ""]
            answer = said[int(random.choice(5, p=[0.6, 0.1, 0.1, 0.1, 0.1]))]
            mapped = answer.split()[-1] if answer and answer.split()[-1] in THINGS else "ring"
            if classes:
                target = thing
            rows.append(
                {
                    "id": f"{benchmark}/{number}/{index}",
                    "image": str(image),
                    "width": SIZE[0],
                    "height": SIZE[1],
                    "question": "What is <region1>?",
                    "answer": answer,
                    "target": target,
                    "correct": mapped == target if classes else answer == target,
                    "score": None,
                    "logprob": -float(random.exponential(0.5)),
                    "margin": float(random.exponential(1.0)),
                    "boxes": [[float(x), float(y), float(x + side), float(y + side)]],
                    "region": 1,
                    "size_bin": ("small", "medium", "large")[index % 3],
                    "kind": thing,
                    "mapped_sbert": mapped if classes else None,
                    "mapped_lexical": (mapped if random.random() < 0.8 else "ring") if classes else None,
                    "mask": None,
                    "options": None,
                    "option_logprobs": None,
                    "seconds": 0.01,
                }
            )
    frame = pd.DataFrame(rows).astype({"correct": "boolean"})
    return Result(benchmark, {}, {}, card(checkpoint, benchmark, len(images), len(rows)), frame)
