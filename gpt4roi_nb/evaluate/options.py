"""How likely each option of a question is as its answer: the options' tokens after one shared prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.prompt import IGNORE, Prompt


@dataclass(frozen=True)
class Choice:
    """A question with the beginning of its answer, which all options share, and what each option goes on with.

    prompt: ends where the options part.
    continuations: token ids of each option from there: its letter alone, where options differ in one token; else the
        whole rest of the turn, with the mark that ends it, so that no option is merely the beginning of another.
    """

    prompt: Prompt
    continuations: tuple[tuple[int, ...], ...]


def choice(processor: GPT4RoIProcessor, question: str, options: Sequence[str]) -> Choice:
    """Raises ValueError unless there are two options or more, all different in tokens."""
    if len(options) < 2:
        raise ValueError(f"the likelihood scorer compares options, but the question has {len(options)}")
    prompts = [processor.prompt([("user", question), ("assistant", option)]) for option in options]
    turns = [_to_the_end(prompt) for prompt in prompts]
    shared = 0
    while all(shared < len(turn) and turn[shared] == turns[0][shared] for turn in turns):
        shared += 1
    rests = [tuple(turn[shared:]) for turn in turns]
    if len({rest[1:] for rest in rests}) == 1:
        rests = [rest[:1] for rest in rests]
    if len(set(rests)) < len(rests) or not all(rests):
        raise ValueError(f"the options {list(options)!r} are not all different")
    first = prompts[0]
    spans = {name: [place for place in places if place < shared] for name, places in first.spans.items()}
    return Choice(Prompt(turns[0][:shared], first.labels[:shared], first.regions, spans), tuple(rests))


def _to_the_end(prompt: Prompt) -> list[int]:
    """The prompt's ids to the last that counts in the loss: what ends the answer's turn."""
    in_loss = [place for place, label in enumerate(prompt.labels) if label != IGNORE]
    return prompt.input_ids[: in_loss[-1] + 1]
