"""The options of a question as token continuations of one shared prefix, to compare their likelihoods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.prompt import IGNORE, Prompt


@dataclass(frozen=True)
class Choice:
    """A question with the beginning of the answer that all options share, and the continuation of each option.

    Attributes:
        prompt: ends where the options diverge.
        continuations: token ids of each option from there. If the options differ in one token, only that token (the
            letter); else the rest of the turn including its end mark, so that no option is a prefix of another.
    """

    prompt: Prompt
    continuations: tuple[tuple[int, ...], ...]


def choice(processor: GPT4RoIProcessor, question: str, options: Sequence[str]) -> Choice:
    """Split a question's options into a shared prefix and continuations.

    Args:
        processor: builds the prompts.
        question: in the user's grammar, with `<regionN>`.
        options: at least two, all different.

    Raises:
        ValueError: there are fewer than two options, or two have the same tokens.
    """
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
    """Return the prompt's ids up to the last that counts in the loss, which ends the answer's turn."""
    in_loss = [place for place, label in enumerate(prompt.labels) if label != IGNORE]
    return prompt.input_ids[: in_loss[-1] + 1]
