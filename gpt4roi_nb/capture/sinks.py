"""Prompt tokens that draw attention whatever the content is, found from the attention that this model shows.

Attention alone decides, in the answer's own content and in exchanged ones, since that is what a sink is. Activations
only tell of which kind a sink is: small models have sinks whose activations are ordinary, which they would miss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt4roi_nb.capture.ablation import mean_region
from gpt4roi_nb.capture.recording import attention_modules, capture_attention, capture_layer_inputs
from gpt4roi_nb.capture.replay import Replay

FENCE = 3.0  # Tukey's outer fence: what lies so many interquartile ranges above the upper quartile is "far out"
KEPT = 0.5  # of its attention, in every other content


@dataclass(frozen=True)
class Sink:
    """A prompt token that draws attention independently of content.

    position: in the prompt. span, token: which part of it, and its text.
    attention: how many times its even share of the attention it draws: the mean over layers, heads and answer tokens.
    elsewhere: the least that it still draws with other contents.
    activation: its greatest activation going into a layer, as a multiple of the median over all positions, in the layer
        where this is greatest.
    massive: whether that is far out, too: the mark of the sinks of large language models (Sun et al. 2024, arXiv
        2402.17762). A small model can have sinks without it.
    """

    position: int
    span: str
    token: str
    attention: float
    elsewhere: float
    activation: float
    massive: bool


@dataclass(frozen=True)
class Sinks:
    """sinks: the strongest first. thresholds: of "attention" and "activation", what was far out in this pass."""

    sinks: list[Sink]
    thresholds: dict[str, float]


def find_sinks(replay: Replay, spans: Mapping[str, Sequence[int]], texts: Sequence[str]) -> Sinks:
    """Positions that draw far more attention than others, and go on drawing it with other contents.

    The answer is run with its own prompt and with two others: one whose image tokens stand in reverse order and whose
    region tokens are mean ones, and one whose question's words are all alike, their mean. A position is a sink where
    the attention it draws (as a multiple of an even share, mean over layers, heads and answer tokens) lies above the
    threshold each time and never falls below half. The threshold is Tukey's outer fence (upper quartile and three
    interquartile ranges) of what this model shows here, over all positions and contents; that of activations likewise.
    No number is carried over from another model. Region tokens are not judged: to be read whatever is in them is what
    they are for.
    """
    if not replay.tokens:
        return Sinks([], {})
    names = {position: span for span, positions in spans.items() for position in positions}
    drawn, activations = zip(*(_look(replay, prompt) for prompt in _contents(replay, spans)), strict=True)
    attention = torch.stack(drawn)  # (contents, P)
    activation = (activations[0] / activations[0].median(dim=-1, keepdim=True).values).amax(dim=0)  # (P,)
    wanted, massive = _far_out(attention), _far_out(activation)
    least = attention.amin(dim=0)
    found = (least > wanted) & (least > KEPT * attention[0])
    found[[replay.region(number)[0] for number in replay.prompt.regions]] = False
    sinks = [
        Sink(
            position,
            names[position],
            texts[position],
            float(attention[0, position]),
            float(least[position]),
            float(activation[position]),
            bool(activation[position] > massive),
        )
        for position in found.nonzero().flatten().tolist()
    ]
    return Sinks(sorted(sinks, key=lambda sink: -sink.attention), {"attention": wanted, "activation": massive})


@torch.inference_mode()
def _contents(replay: Replay, spans: Mapping[str, Sequence[int]]) -> list[Tensor]:
    """The prompt's own embeddings, and those of other contents: (1, P, D) each."""
    own = replay.embeddings()
    picture, words = own.clone(), own.clone()
    picture[:, list(spans["image"])] = own[:, list(reversed(spans["image"]))]
    for number in replay.prompt.regions:
        position, box = replay.region(number)
        picture[:, position] = mean_region(replay, box).to(own.device, own.dtype)
    question = list(spans["question"])
    words[:, question] = own[:, question].mean(dim=1, keepdim=True)
    return [own, picture, words]


@torch.inference_mode()
def _look(replay: Replay, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) attention that each position draws from the answer's steps, as a multiple of its even share, and (layers, P)
    greatest absolute activation going into each layer."""
    steps = replay.steps
    visible = torch.arange(steps.start, steps.stop) + 1
    drawn: dict[int, Tensor] = {}
    going_in: dict[int, Tensor] = {}

    def look(layer: int, weights: Tensor) -> None:
        rows = weights[0, :, steps, : replay.length].float().mean(dim=0).cpu()
        drawn[layer] = (rows * visible[:, None]).mean(dim=0)

    def enter(layer: int, states: Tensor) -> None:
        going_in[layer] = states[0, : replay.length].abs().amax(dim=-1).float().cpu()

    with (
        replay.loaded.inference() as model,
        capture_attention(model, look),
        capture_layer_inputs(model, enter),
    ):
        model.language_model(inputs_embeds=replay.forced(prompt), use_cache=False, logits_to_keep=1)
    layers = range(len(attention_modules(model)))
    return torch.stack([drawn[layer] for layer in layers]).mean(dim=0), torch.stack(
        [going_in[layer] for layer in layers]
    )


def _far_out(values: Tensor) -> float:
    lower, upper = torch.quantile(values.flatten(), torch.tensor([0.25, 0.75])).tolist()
    return upper + FENCE * (upper - lower)
