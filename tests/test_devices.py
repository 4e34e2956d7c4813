"""Everything keeps to the model's device, and answers as on the CPU, on the pretended GPUs of `pretended.py`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learnable import OPTIONS, losses, records
from pretended import PARTS, PLACES, on_one_gpu, pretended_gpus
from tiny import tiny_gpt4roi, tiny_image
from torch import Tensor

from gpt4roi_nb import GPT4RoI, RegionSession
from gpt4roi_nb.capture import ABLATIONS, MAPS, Attention, RoIFeatures, faithfulness
from gpt4roi_nb.inference.shared_opening import SharedOpening
from gpt4roi_nb.train import Probes, train
from gpt4roi_nb.widgets import RegionChat
from gpt4roi_nb.widgets.attention_data import METHODS
from gpt4roi_nb.widgets.attention_inspector import MEAN
from gpt4roi_nb.widgets.roi_data import COLORINGS

FIRST, SECOND, CPU = torch.device("cuda:0"), torch.device("cuda:1"), torch.device("cpu")
BOX, OTHER_BOX = (3, 4, 30, 40), (20, 8, 60, 44)
QUESTION = "Is <region1> like <region2>?"
FEW = {"max_new_tokens": 6}
SAMPLED = {"temperature": 0.8, "top_p": 0.9, "seed": 5, **FEW}


@pytest.fixture(scope="module", autouse=True)
def gpus() -> Iterator[None]:
    with pretended_gpus():
        yield


@pytest.fixture(scope="module", params=PLACES)
def gpt4roi(request: pytest.FixtureRequest) -> GPT4RoI:
    return PLACES[request.param](tiny_gpt4roi(seed=1))


@pytest.fixture(scope="module")
def talk(gpt4roi: GPT4RoI) -> RegionSession:
    session = gpt4roi.session(tiny_image())
    session.ask(QUESTION, [BOX, OTHER_BOX], **FEW)
    return session


@pytest.fixture(scope="module")
def expected() -> RegionSession:
    """`talk` on the CPU."""
    session = tiny_gpt4roi(seed=1).session(tiny_image())
    session.ask(QUESTION, [BOX, OTHER_BOX], **FEW)
    return session


def tensors_in(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, dict | list | tuple):
        for each in found.values() if isinstance(found, dict) else found:
            yield from tensors_in(each)
    elif hasattr(found, "__dataclass_fields__"):
        for name in found.__dataclass_fields__:
            if not name.startswith("_"):
                yield from tensors_in(getattr(found, name))


def same(found: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """All tensors of a result are the CPU's, and close to the others."""
    ours, theirs = list(tensors_in(found)), list(tensors_in(expected))
    assert ours and {each.device for each in ours} == {CPU}
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


def test_sessions(gpt4roi: GPT4RoI, tmp_path: Path) -> None:
    answers = []
    for loaded in (gpt4roi, tiny_gpt4roi(seed=1)):
        session = loaded.session(tiny_image())
        answers.append(
            [  # sampling included: its random numbers are of the device
                session.ask("What is <region1>?", [BOX], **FEW),
                session.ask(QUESTION, [OTHER_BOX], **SAMPLED),
                "".join(session.stream("And the image?", **SAMPLED)),
                [each.token_ids for each in session.describe([BOX, OTHER_BOX], **FEW)],
                [each.token_ids for each in session.describe([BOX, OTHER_BOX], **SAMPLED)],
            ]
        )
        session.save(tmp_path / "talk.json")
        again = RegionSession.load(tmp_path / "talk.json", loaded)
        answers[-1].append(again.ask("<region1>, <region2>, and <region3>?", [BOX], **FEW).token_ids)
    ours, theirs = answers
    assert [each.token_ids for each in ours[:2]] == [each.token_ids for each in theirs[:2]] and ours[2:] == theirs[2:]
    assert ours[1].logprobs == pytest.approx(theirs[1].logprobs, abs=1e-4)


def test_likelihoods(gpt4roi: GPT4RoI, expected: RegionSession) -> None:
    """Also of two questions of unequal length, each with options of several tokens."""
    options = ["a red cup", "two blue ones"]

    def likely(model: GPT4RoI) -> tuple[list[float], list[float]]:
        processor = model.processor
        shared = SharedOpening(model, processor.image_processor.pixels(expected.image)[None].to(model.device))
        questions = ("What?", "What stands in this image, and what is beside it?")
        prompts = [processor.prompt([("user", text)]) for text in questions]
        score = shared.scorer(shared.read(prompts, [0, 0], [torch.zeros(0, 4)] * 2))
        ids = [processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in options]
        assert min(map(len, ids)) > 1
        return model.likelihoods(expected.image, QUESTION, [BOX, OTHER_BOX], options), score(ids * 2, [0, 0, 1, 1])

    with torch.inference_mode():
        for ours, theirs in zip(likely(gpt4roi), likely(expected.loaded), strict=True):
            assert list(ours) == pytest.approx(list(theirs), abs=1e-4)


def test_attention(talk: RegionSession, expected: RegionSession, tmp_path: Path) -> None:
    ours, theirs = (session.history[0].answer.attention() for session in (talk, expected))
    same(ours, theirs)
    same(ours.rollout(), theirs.rollout())
    same(ours.relevancy(1), theirs.relevancy(1))
    assert [sink.position for sink in ours.sinks()] == [sink.position for sink in theirs.sinks()]
    ours.save(tmp_path / "a.safetensors")
    same(Attention.load(tmp_path / "a.safetensors"), theirs)


@pytest.mark.parametrize(("how", "baseline"), [*product(ABLATIONS, ["mean"]), ("remove", "zero")])
def test_ablations(talk: RegionSession, expected: RegionSession, how: str, baseline: str) -> None:
    ours, theirs = (s.history[0].answer.ablate(1, how, baseline=baseline) for s in (talk, expected))
    same(ours, theirs)
    assert ours.answer == theirs.answer


def test_occlusion_and_faithfulness(talk: RegionSession, expected: RegionSession) -> None:
    ours, theirs = (session.history[0].answer for session in (talk, expected))
    same(ours.occlusion(patch=2), theirs.occlusion(patch=2))
    measured = {"steps": 2, "random_maps": 2}
    for over in ("image", "regions", "both"):
        same(*(faithfulness(list(MAPS), [answer], over=over, **measured) for answer in (ours, theirs)))


def test_region_features(talk: RegionSession, expected: RegionSession, tmp_path: Path) -> None:
    ours, theirs = (session.roi_features([BOX, OTHER_BOX], rounds=True) for session in (talk, expected))
    same(ours, theirs)
    same(ours.contribution(), theirs.contribution())
    same(ours.shares(), theirs.shares())
    same(ours.norms(), theirs.norms())
    for of in ("regions", "image"):
        same(ours.logit_lens(of=of), theirs.logit_lens(of=of))
    assert ours.nearest(theirs, k=1).labels == theirs.nearest(ours, k=1).labels
    ours.save(tmp_path / "a.npz")
    same(RoIFeatures.load(tmp_path / "a.npz"), theirs)


def test_the_transformers_way(gpt4roi: GPT4RoI) -> None:
    """`generate` alone, as its own documentation shows it: sampling, beams and a batch."""
    inputs = gpt4roi.processor(images=[tiny_image()], text=["What is <region1>?"], boxes=[[BOX]], return_tensors="pt")
    boxes = [each.to(gpt4roi.device) for each in inputs.pop("boxes")]
    for options in ({"do_sample": True}, {"num_beams": 2}, {}):
        ids = gpt4roi.model.generate(**inputs.to(gpt4roi.device), boxes=boxes, max_new_tokens=4, **options)
        assert ids.device == gpt4roi.device and len(ids) == 1


def stored(gpt4roi: GPT4RoI) -> dict[str, Tensor]:
    return {name: weight.cpu() for name, weight in gpt4roi.model.state_dict().items()}


@pytest.mark.parametrize(
    "options",
    [
        {"stage": 1, "tower_cache": True},
        {"stage": 2, "gradient_checkpointing": True},
        {"stage": 2, "lora": {"r": 2}, "tower_cache": True},
        {"stage": 1, "bf16": True, "gradient_accumulation_steps": 2},
        {"trainable": ["multi_modal_projector"], "bf16": True, "tower_cache": True},
    ],
    ids=str,
)
def test_training(tmp_path: Path, options: dict[str, Any]) -> None:
    """Interrupted after a checkpoint and continued, and asked meanwhile."""
    options = {**OPTIONS, "bf16": False, "save_steps": 2, **options}
    if "tower_cache" in options:
        options["tower_cache"] = tmp_path / "tower"
    data, found, models = records(tmp_path, 8), {}, {}
    probes = Probes(tmp_path / "0.png", [BOX], max_new_tokens=2)
    for place, gpt4roi in {"cpu": tiny_gpt4roi(seed=1), "cuda": on_one_gpu(tiny_gpt4roi(seed=1))}.items():
        own = {**options, "use_cpu": place == "cpu", "probes": probes}
        train(gpt4roi, data, tmp_path, tmp_path / place, **own, max_steps=2)
        done = train(gpt4roi, data, tmp_path, tmp_path / place, **own, max_steps=4)
        assert {weight.device.type for weight in gpt4roi.model.state_dict().values()} == {place}
        found[place], models[place] = losses(done), stored(gpt4roi)
    # The optimizer's first steps have the sign of a gradient, so that rounding counts where it is next to nothing.
    assert found["cuda"] == pytest.approx(found["cpu"], rel=1e-2)
    same(stored(GPT4RoI.from_pretrained(tmp_path / "cuda" / "model", device="cpu")), models["cuda"], 0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    on_one_gpu(tiny_gpt4roi(seed=1)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("places", "devices"),
    [
        ({"device": "cuda"}, {FIRST}),
        ({}, {FIRST}),
        ({"device": "cuda:1"}, {SECOND}),
        ({"device_map": {"": "cuda:1"}}, {SECOND}),
        ({"device_map": "balanced"}, {FIRST, SECOND}),
        ({"device_map": PARTS}, {FIRST, SECOND}),
    ],
)
def test_loading(saved: Path, expected: RegionSession, places: dict[str, Any], devices: set[torch.device]) -> None:
    loaded = GPT4RoI.from_pretrained(saved, dtype="float32", **places)
    assert {weight.device for weight in loaded.model.state_dict().values()} == devices
    answer = loaded.session(tiny_image()).ask(QUESTION, [BOX, OTHER_BOX], **FEW)
    assert answer.token_ids == expected.history[0].answer.token_ids


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("places", [{"device": "cuda"}, {"device_map": PARTS}], ids=["one GPU", "two GPUs"])
def test_half_precision(saved: Path, dtype: str, places: dict[str, Any]) -> None:
    """What a session and capture give is on the CPU, and becomes an array, in every precision."""
    session = GPT4RoI.from_pretrained(saved, dtype=dtype, **places).session(tiny_image())
    answer = session.ask(QUESTION, [BOX, OTHER_BOX], **SAMPLED)
    features, attention = session.roi_features([BOX, OTHER_BOX], rounds=True), answer.attention()
    found = [attention, attention.rollout(), attention.relevancy(0), answer.occlusion(patch=2), features]
    found += [features.contribution(), features.norms(), features.logit_lens(), features.logit_lens(of="image")]
    found += [answer.ablate(1, how) for how in ABLATIONS]
    for tensor in tensors_in([*found, faithfulness(list(MAPS), [answer], steps=2, random_maps=1)]):
        assert np.isfinite(tensor.numpy()).all()
    assert len(session.describe([BOX, OTHER_BOX], **SAMPLED)) == 2


def test_widgets(gpt4roi: GPT4RoI) -> None:
    """A chat and both inspectors, whose threads keep to the device as well."""
    chat = RegionChat(gpt4roi, tiny_image())
    chat.set_boxes([BOX, OTHER_BOX])
    assert chat.ask(QUESTION, **FEW).tokens
    attention, sent = chat.inspect_answer(), []
    attention.view.send = lambda content, buffers: sent.append(content["type"])
    for how in ABLATIONS:
        attention._on_message(None, {"type": "ablate", "side": 0, "how": how}, [])
        attention._worker.wait()
    for method in METHODS:
        whole = {"type": "map", "side": 0, "method": method, "layer": MEAN, "head": MEAN, "token": 0}
        attention._on_message(None, whole, [])
        attention._worker.wait()
    tests = attention.view.ablations
    assert len(tests) == 2 * len(ABLATIONS) and not any(test["problem"] for test in tests)
    assert sent == ["map"] * len(METHODS) and not attention.view.problem
    region = chat.inspect_region(1)  # in its place
    region.view.send = attention.view.send
    for coloring in COLORINGS:
        region.show(coloring=coloring)
        assert region.features is not None and region.view.rows and not region.view.problem
    region._on_message(None, {"type": "similarity", "stage": 0, "level": 0, "row": 1, "column": 2}, [])
    region._on_message(None, {"type": "control"}, [])
    region._worker.wait()
    assert len(region.view.controls) == 3 and sent[-1] == "similarity" and not region.view.problem
    chat.close()
