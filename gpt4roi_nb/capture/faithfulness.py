"""Which map explains this model: deletion and insertion curves over a set of answers, compared with random maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.batches import BatchSize
from gpt4roi_nb.capture.answer_replay import AnswerReplay
from gpt4roi_nb.capture.attention import Attention
from gpt4roi_nb.capture.removal import OVER, Removal

RANDOM = "random"


class TracedAnswer(Protocol):
    """What is measured: a session's `Answer`."""

    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> list[str]: ...
    def attention(self, layers: Any = None, heads: Any = None) -> Attention: ...
    def replayed(self, what: str) -> AnswerReplay: ...


# An answer and the tokens in question → (P,), a score per prompt token, the highest for the most important.
Map = Callable[[Any, Sequence[int]], Tensor]


def raw_attention(answer: TracedAnswer, tokens: Sequence[int]) -> Tensor:
    """Average the attention of the tokens over all layers and heads."""
    return answer.attention().weights[:, :, list(tokens)].mean(dim=(0, 1, 2))


def attention_rollout(answer: TracedAnswer, tokens: Sequence[int]) -> Tensor:
    """Average the rollout of the tokens."""
    return answer.attention(layers=0, heads=0).rollout()[list(tokens)].mean(dim=0)


def gradient_relevancy(answer: TracedAnswer, tokens: Sequence[int]) -> Tensor:
    """Average the relevancy for the tokens."""
    attention = answer.attention(layers=0, heads=0)
    return torch.stack([attention.relevancy(token) for token in tokens]).mean(dim=0)


MAPS: dict[str, Map] = {
    "raw attention": raw_attention,
    "rollout": attention_rollout,
    "relevancy": gradient_relevancy,
}


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Deletion and insertion curves of maps, and of random ones.

    A point of a curve is the probability of the tokens in question: the geometric mean over them, then the mean over
    the answers. Deletion removes prompt tokens, those that the map calls important first; a faithful map's curve falls
    early, so a *small* area is good. Insertion puts them back in that order; a *large* area is good. A removed image
    token becomes the image's mean image token, a region token the mean token of boxes elsewhere in the image.

    Answers of a `PromptedModel` have no region tokens, and can be measured over the image, where the model takes
    features.

    Attributes:
        fractions: (S,) share of the tokens removed or put back, 0 to 1.
        deletion, insertion: (S,) per map, by name; "random" is the control, the mean over several random maps per
            answer.
        deletion_areas, insertion_areas: (answers,) area under each answer's curve, per map, in the same order for all.
        over: which tokens were removed: "image", "regions" or "both".

    Examples:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.capture import faithfulness
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> scene = make_scene(5)
        >>> session = GPT4RoI.from_pretrained(device="cpu").session(scene.image)
        >>> answer = session.ask("What colour is <region1>?", [scene.objects[0].box])
        >>> measured = faithfulness(["raw attention"], [answer], steps=2, random_maps=1)
        >>> sorted(measured.deletion_area)
        ['random', 'raw attention']
        >>> measured.deletion["raw attention"].shape
        torch.Size([3])
    """

    fractions: Tensor
    deletion: dict[str, Tensor]
    insertion: dict[str, Tensor]
    deletion_areas: dict[str, Tensor]
    insertion_areas: dict[str, Tensor]
    over: str

    @property
    def deletion_area(self) -> dict[str, float]:
        """Mean area of each map: the smaller, the better."""
        return {name: float(areas.mean()) for name, areas in self.deletion_areas.items()}

    @property
    def insertion_area(self) -> dict[str, float]:
        """Mean area of each map: the larger, the better."""
        return {name: float(areas.mean()) for name, areas in self.insertion_areas.items()}

    def against_random(self, name: str) -> dict[str, tuple[float, float]]:
        """Compare a map with the random ones, answer by answer.

        Returns:
            {"deletion": (mean, standard error), "insertion": …}: by how much it is better. The error is that of the
            mean over the answers.
        """
        better = {
            "deletion": self.deletion_areas[RANDOM] - self.deletion_areas[name],
            "insertion": self.insertion_areas[name] - self.insertion_areas[RANDOM],
        }
        errors = {kind: each.std() / len(each) ** 0.5 if len(each) > 1 else torch.nan for kind, each in better.items()}
        return {kind: (float(each.mean()), float(errors[kind])) for kind, each in better.items()}

    def table(self) -> str:
        """Format the areas as lines of text, with the gain over random maps and its standard error."""
        lines = [f"{'map':16}{'deletion':>9}{'gain':>16}{'insertion':>11}{'gain':>16}"]
        for name, area in self.deletion_area.items():
            if name == RANDOM:
                gains = ["", ""]
            else:
                gains = [f"{mean:+.3f} ± {error:.3f}" for mean, error in self.against_random(name).values()]
            lines.append(f"{name:16}{area:9.3f}{gains[0]:>16}{self.insertion_area[name]:11.3f}{gains[1]:>16}")
        return "\n".join(lines)


@torch.inference_mode(False)
def faithfulness(
    maps: Sequence[str] | Mapping[str, Map],
    answers: Sequence[TracedAnswer],
    *,
    over: str = "image",
    steps: int = 12,
    tokens: Callable[[Any], Sequence[int]] | None = None,
    random_maps: int = 5,
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = False,
) -> Faithfulness:
    """Measure how faithful maps are over a set of answers, by deletion and insertion, with random maps as control.

    Args:
        maps: names from `MAPS`, or functions by name; each takes an answer and the indices of its tokens in question,
            and returns a score for each of the P prompt tokens.
        answers: of sessions whose model is loaded; each needs at least one token.
        over: which prompt tokens are removed: those of the "image", of the "regions", or "both".
        steps: number of points of a curve after the first.
        tokens: returns the indices of an answer's tokens in question; None takes all.
        random_maps: number per answer; the control is their mean.
        seed: of the random maps.
        batch_size: prompts at a time; fewer, with a warning, if memory runs out.
        progress: whether to show a progress bar.

    Raises:
        ValueError: for an unknown map, no answers, a map of the wrong shape, or answers without what is removed.
        RuntimeError: for answers that were loaded from a file, or a map or model that cannot be computed so.

    Examples:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.capture import faithfulness
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> scene = make_scene(5)
        >>> session = GPT4RoI.from_pretrained(device="cpu").session(scene.image)
        >>> answer = session.ask("What colour is <region1>?", [scene.objects[0].box])
        >>> print(faithfulness(["rollout"], [answer], steps=2, random_maps=1).table())
        map              deletion            gain  insertion            gain
        rollout          ...
        random           ...
    """
    named = _named(maps)
    if over not in OVER:
        raise ValueError(f"over must be one of {', '.join(OVER)}, but is {over!r}")
    steps, random_maps = whole_number(steps, "steps", least=1), whole_number(random_maps, "random_maps", least=1)
    batch = BatchSize(whole_number(batch_size, "batch_size", least=1), "prompts")
    if not answers:
        raise ValueError("there are no answers to measure the maps on; give at least one")
    fractions = torch.linspace(0, 1, steps + 1)
    curves: dict[str, list[Tensor]] = {name: [] for name in (*named, RANDOM)}  # (2, S) per answer
    bar = tqdm(answers, unit="answer", leave=False, disable=None if progress else True)
    for number, answer in enumerate(bar):
        found = answer.replayed("the faithfulness of maps")
        asked = list(range(len(answer.tokens)) if tokens is None else tokens(answer))
        if not asked:
            raise ValueError(f"answer {number} ({answer.text!r}) has no tokens in question; leave it out")
        with found.loaded.hold_weights():
            replay = found.removal()
            units = torch.tensor(replay.removable(over))
            ranked = {name: [_order(scored(answer, asked), units, replay, name)] for name, scored in named.items()}
            generator = torch.Generator().manual_seed(seed + number)
            shuffles = (torch.randperm(len(units), generator=generator) for _ in range(random_maps))
            ranked[RANDOM] = [units[order] for order in shuffles]
            orders = [order for several in ranked.values() for order in several]
            drawn = iter(_curves(replay, orders, asked, fractions, batch))
        for name, several in ranked.items():
            curves[name].append(torch.stack([next(drawn) for _ in several]).mean(dim=0))
    stacked = {name: torch.stack(each) for name, each in curves.items()}  # (answers, 2, S)
    areas = {name: torch.trapezoid(each, fractions, dim=-1) for name, each in stacked.items()}
    return Faithfulness(
        fractions,
        {name: each[:, 0].mean(dim=0) for name, each in stacked.items()},
        {name: each[:, 1].mean(dim=0) for name, each in stacked.items()},
        {name: each[:, 0] for name, each in areas.items()},
        {name: each[:, 1] for name, each in areas.items()},
        over,
    )


def _named(maps: Sequence[str] | Mapping[str, Map]) -> dict[str, Map]:
    if isinstance(maps, str):
        maps = [maps]
    if not isinstance(maps, Mapping):
        unknown = [name for name in maps if name not in MAPS]
        if unknown:
            raise ValueError(
                f"there is no map {unknown[0]!r}; use one of {', '.join(MAPS)}, or give a function by name"
            )
        maps = {name: MAPS[name] for name in maps}
    if not maps or RANDOM in maps:
        raise ValueError(f"give at least one map; none may be called {RANDOM!r}, which is the control")
    return dict(maps)


def _order(scores: Tensor, units: Tensor, replay: Removal, name: str) -> Tensor:
    """Sort the units, the most important first; equal scores stay in the order of the prompt."""
    if scores.shape != (replay.length,):
        raise ValueError(
            f"the map {name!r} must give one score for each of {replay.length} prompt tokens, but gave a tensor of "
            f"shape {tuple(scores.shape)}"
        )
    return units[scores.float().cpu()[units].argsort(descending=True, stable=True)]


@torch.inference_mode()
def _curves(
    replay: Removal, orders: Sequence[Tensor], asked: Sequence[int], fractions: Tensor, batch: BatchSize
) -> list[Tensor]:
    """Compute (2, S) float32 per order: the deletion curve and the insertion curve."""
    counts = (fractions * len(orders[0])).round().int().tolist()

    def value(order: Tensor, gone: Sequence[slice]) -> Tensor:
        rows = torch.zeros(len(gone), replay.length, dtype=torch.bool)
        for row, part in enumerate(gone):
            rows[row, order[part]] = True
        return replay.without(rows, batch)[:, list(asked)].mean(dim=-1).exp()

    whole, empty = value(orders[0], [slice(0), slice(None)])  # the same for every order
    between = counts[1:-1]
    found = []
    for order in orders:
        values = value(order, [slice(count) for count in between] + [slice(count, None) for count in between])
        deletion, insertion = values.split(len(between)) if between else (values, values)
        found.append(
            torch.stack(
                [
                    torch.cat([whole[None], deletion, empty[None]]),
                    torch.cat([empty[None], insertion, whole[None]]),
                ]
            )
        )
    return found
