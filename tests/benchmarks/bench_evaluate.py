"""The demo model on VCR's questions of a generated world: what `evaluate` shares, against two plain ways.

The first plain way encodes the image for every option of every question and runs the whole prompt through the model
each time, as options of several tokens need. The second knows that the options are single letters: one full forward per
question gives the probabilities of all. The rows between say what each kind of sharing gives by itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from timing import measured, quotient

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.boxes import normalise
from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.data.scenes.formats.write import write_world
from gpt4roi_nb.evaluate.benchmarks.item import EvalConfig, Item, Prediction
from gpt4roi_nb.evaluate.benchmarks.vcr import VCR
from gpt4roi_nb.evaluate.predict import BatchedPredictor, LoadedImage
from gpt4roi_nb.images import load_image
from gpt4roi_nb.session.options import choice

IMAGES = 40  # of which 4 are for validation
BATCH = 16
REPEATS = 3
CLOSE = 1e-3  # between log-probabilities
Answers = dict[str, tuple[float, ...]]


@torch.inference_mode()
def plain(
    gpt4roi: GPT4RoI,
    asked: list[Item],
    images: dict[str, LoadedImage],
    *,
    share_image: bool = False,
    all_letters: bool = False,
) -> Answers:
    """One full forward per option, or per question; with `share_image` the image is encoded once."""
    model = gpt4roi.model
    found: Answers = {}
    encodings = {path: model.encode_image(image.prepared[None]) for path, image in images.items() if share_image}
    for item in asked:
        image = images[item.image]
        boxes = torch.from_numpy(normalise(item.boxes, *image.size))
        offered = choice(gpt4roi.processor, item.question, item.options)
        ordered = boxes[[number - 1 for number in offered.prompt.regions]]
        letters = [letter for (letter,) in offered.continuations]
        likely = []
        for letter in letters[:1] if all_letters else letters:
            ids = torch.tensor([[*offered.prompt.input_ids, letter]])
            if share_image:
                encoding = encodings[item.image]
                vectors = model.encode_regions(encoding.fused_maps, [ordered])
                features = {"image_features": encoding.image_features, "region_features": vectors}
            else:
                features = {"pixel_values": image.prepared[None], "boxes": [ordered]}
            logits = model(input_ids=ids, logits_to_keep=2, **features).logits[0, 0]
            likely += list(logits.log_softmax(-1)[letters if all_letters else [letter]])
        found[item.id] = tuple(torch.stack(likely).log_softmax(0).tolist())
    return found


def shared(gpt4roi: GPT4RoI, asked: list[Item], images: dict[str, LoadedImage], batch_size: int) -> Answers:
    """As `evaluate` asks."""
    predictor = BatchedPredictor(gpt4roi, "likelihood", batch_size, 16)
    found: Answers = {}
    for outcomes in predictor.answer(predictor.batches(asked), images):  # type: ignore[arg-type]
        for outcome in outcomes:
            if not isinstance(outcome, Prediction):
                raise RuntimeError(f"a question of the world could not be asked: {outcome}")
            found[outcome.id] = outcome.option_logprobs or ()
    return found


def run() -> list[dict[str, object]]:
    gpt4roi = GPT4RoI.from_pretrained()
    with tempfile.TemporaryDirectory() as folder:
        world = write_world(Path(folder) / "world", IMAGES, seed=606, progress=False)
        asked = list(VCR.items(EvalConfig(world, "val", scorer="likelihood"), Problems()))
        opened = {path: load_image(path) for path in dict.fromkeys(item.image for item in asked)}
    transform = gpt4roi.processor.image_processor.pixels
    images = {path: LoadedImage(transform(image), image.size) for path, image in opened.items()}
    ways: dict[str, Callable[[], Answers]] = {
        "plain": lambda: plain(gpt4roi, asked, images),
        "letters": lambda: plain(gpt4roi, asked, images, all_letters=True),
        "encoding": lambda: plain(gpt4roi, asked, images, share_image=True),
        "prefix": lambda: shared(gpt4roi, asked, images, 1),
        "batches": lambda: shared(gpt4roi, asked, images, BATCH),
    }
    answers = {name: way() for name, way in ways.items()}
    for name in ways:
        apart = max(
            abs(one - other)
            for key, values in answers["plain"].items()
            for one, other in zip(values, answers[name][key], strict=True)
        )
        if apart > CLOSE:
            raise RuntimeError(f"{name} gives other log-probabilities than the plain way, by {apart:.2g}")
    found = measured(ways, REPEATS)
    rows: list[dict[str, object]] = []
    for one, other, demand, what in (
        ("plain", "batches", ">= 4", "a full forward per option / all that evaluate shares"),
        (
            "letters",
            "batches",
            ">= 1",
            "a full forward per question, which gives all letters / all that evaluate shares",
        ),
        ("plain", "encoding", "", "a full forward per option / the same with one encoding per image"),
        ("encoding", "prefix", "", "one encoding per image / the options share a prompt too, questions one by one"),
        ("prefix", "batches", "", f"one by one / in batches of {BATCH}"),
    ):
        ratio, detail = quotient(found[one], found[other])
        detail = f"{detail}; {len(asked)} questions of 4 options"
        rows.append({"what": what, "ratio": ratio, "demand": demand, "detail": detail})
    return rows
