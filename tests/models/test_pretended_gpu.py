"""Other region models keep to their device, and say there what they say on the CPU, on a pretended GPU."""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from pretended import pretended_gpus
from tiny_families import FAMILIES as TINY
from tiny_families import LATER, OTHERS, tiny_family

from gpt4roi_nb.models import PromptedModel
from gpt4roi_nb.models.families import default_question
from gpt4roi_nb.session import Question

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
BOX, OTHER = (20.0, 10.0, 80.0, 60.0), (70.0, 40.0, 130.0, 90.0)


@pytest.fixture(autouse=True)
def gpus() -> Iterator[None]:
    with pretended_gpus():
        yield


# Gemma 3's masks come out of torch.vmap, where marks of devices are lost; mixtures of experts count on a GPU with an
# operation that the CPU does not have.
CANNOT_PRETEND = ("gemma3", "qwen3_vl_moe", "qwen3_5_moe")


@pytest.mark.parametrize("name", [name for name in (*TINY, *LATER, *OTHERS) if name not in CANNOT_PRETEND])
def test_everything_keeps_to_the_models_device(name: str) -> None:
    model, processor = tiny_family(name)
    here, there = PromptedModel(model, processor), PromptedModel(copy.deepcopy(model).to("cuda:0"), processor)
    assert there.device.type == "cuda"
    question = default_question(here.way, name)
    questions = [Question(IMAGE, question, [BOX]), Question(IMAGE, question, [OTHER])]
    found = []
    for one in (here, there):
        session = one.session(IMAGE)
        answers = [session.ask(question, [BOX], max_new_tokens=3)]
        if one.capabilities.follow_ups:
            answers.append(session.ask("And why?", max_new_tokens=3))
        answers += one.answers(questions, max_new_tokens=3) + session.describe([BOX, OTHER], max_new_tokens=3)
        sampled = one.session(IMAGE).ask(question, [BOX], max_new_tokens=3, temperature=0.5, seed=1)
        assert len(sampled.tokens) <= 3
        found.append(
            (
                [value for answer in answers for value in answer.logprobs],
                one.likelihoods(IMAGE, question, [BOX], ["a", "a longer one"]),
                answers[0].attention().weights.flatten().tolist() if one.capabilities.attention else [],
            )
        )
    for ours, theirs in zip(*found, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
