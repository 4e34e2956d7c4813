"""Find attention sinks: prompt tokens that draw attention whatever the content, judged by the attention of this model.

Only attention decides, with the answer's own content and with exchanged contents, since that defines a sink.
Activations only tell the kind of a sink: small models have sinks whose activations are ordinary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt4roi_nb.capture.ablation import mean_region
from gpt4roi_nb.capture.recording import attention_modules, capture_attention, capture_layer_inputs, eager_attention
from gpt4roi_nb.capture.replay import Replay

FENCE = 3.0  # Tukey's outer fence: values this many interquartile ranges above the upper quartile are "far out"
KEPT = 0.5  # share of its attention that a sink keeps with every other content


@dataclass(frozen=True)
class Sink:
    """A prompt token that draws attention independently of content.

    Attributes:
        position: in the prompt.
        span, token: the part of the prompt, and the token's text.
        attention: the attention that it draws, as a multiple of an even share; mean over layers, heads and answer
            tokens.
        elsewhere: the least that it still draws with other contents.
        activation: its largest activation entering a layer, as a multiple of the median over all positions, in the
            layer where this is largest.
        massive: whether that is far out, too: the mark of sinks in large language models (Sun et al. 2024, arXiv
            2402.17762). A small model can have sinks without it.

    Examples:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.capture import Sink
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> scene = make_scene(5)
        >>> session = GPT4RoI.from_pretrained(device="cpu").session(scene.image)
        >>> answer = session.ask("What colour is <region1>?", [scene.objects[0].box])
        >>> all(isinstance(sink, Sink) and sink.attention > 1 for sink in answer.attention().sinks())
        True
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
    """The sinks of an answer.

    Attributes:
        sinks: the strongest first.
        thresholds: of "attention" and "activation": values above were far out in this pass.
    """

    sinks: list[Sink]
    thresholds: dict[str, float]


def find_sinks(replay: Replay, spans: Mapping[str, Sequence[int]], texts: Sequence[str]) -> Sinks:
    """Find positions that draw far more attention than others, and still do with other contents.

    The answer is run with its own prompt and with two others: one whose image tokens are in reverse order and whose
    region tokens are mean ones, and one in which each word of the question is replaced by their mean. A position is a
    sink if the attention it draws (as a multiple of an even share, mean over layers, heads and answer tokens) is above
    the threshold each time and never falls below half. The threshold is Tukey's outer fence (upper quartile plus three
    interquartile ranges) over all positions and contents in this model; that of activations is computed in the same
    way. No number comes from another model. Region tokens are not judged: they are meant to be read whatever they hold.

    Args:
        replay: the answer.
        spans: prompt positions by name, from `named_spans`.
        texts: text of each prompt token.
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
    """Return the prompt's own embeddings, and those of other contents: (1, P, D) each."""
    own = replay.embeddings()
    image, words = own.clone(), own.clone()
    image[:, list(spans["image"])] = own[:, list(reversed(spans["image"]))]
    for number in replay.prompt.regions:
        position, box = replay.region(number)
        image[:, position] = mean_region(replay, box).to(own.device, own.dtype)
    question = list(spans["question"])
    words[:, question] = own[:, question].mean(dim=1, keepdim=True)
    return [own, image, words]


@torch.inference_mode()
def _look(replay: Replay, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """Run one pass and look at its attention and activations.

    Returns:
        (P,) attention that each position draws from the answer's steps, as a multiple of an even share, and
        (layers, P) largest absolute activation entering each layer.
    """
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
        eager_attention(model),
        capture_attention(attention_modules(model), look),
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
