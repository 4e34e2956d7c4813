"""The options of a question as token continuations of one prompt, to compare their likelihoods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpt4roi_nb.inference.padding import common_length
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.prompt import IGNORE, Prompt


@dataclass(frozen=True)
class Options:
    """A prompt and the continuations of it to compare.

    Attributes:
        prompt: the question, and what all continuations would begin with.
        continuations: token ids of each option from there.
    """

    prompt: Prompt
    continuations: tuple[tuple[int, ...], ...]


def check_options(options: Sequence[str]) -> None:
    """Raise ValueError if an option is empty or not a text."""
    if not all(isinstance(option, str) and option.strip() for option in options):
        raise ValueError(f"each option must be a text that is not empty, but they are {list(options)!r}")


def whole_answers(processor: GPT4RoIProcessor, question: str, options: Sequence[str]) -> Options:
    """Make each option a whole answer: the prompt is the question, a continuation is all that counts in the loss.

    Args:
        processor: builds the prompts.
        question: in the user's grammar, with `<regionN>`.
        options: any number of answers.
    """
    if not options:
        return Options(processor.prompt([("user", question)]), ())
    prompts = [processor.prompt([("user", question), ("assistant", option)]) for option in options]
    in_loss = [[place for place, label in enumerate(prompt.labels) if label != IGNORE] for prompt in prompts]
    start = common_length([prompt.input_ids[: places[0]] for prompt, places in zip(prompts, in_loss, strict=True)])
    ends = [places[-1] + 1 for places in in_loss]
    return Options(
        _before(prompts[0], start),
        tuple(tuple(prompt.input_ids[start:end]) for prompt, end in zip(prompts, ends, strict=True)),
    )


def choice(processor: GPT4RoIProcessor, question: str, options: Sequence[str]) -> Options:
    """Make options that can be told apart by as few tokens as possible.

    The prompt ends where the options diverge. If they differ in one token, a continuation is only that token (the
    letter); else it is the rest of the turn with its end mark, so that no option is a prefix of another.

    Args:
        processor: builds the prompts.
        question: in the user's grammar, with `<regionN>`.
        options: at least two, all different.

    Raises:
        ValueError: there are fewer than two options, or two have the same tokens.
    """
    if len(options) < 2:
        raise ValueError(f"the likelihood scorer compares options, but the question has {len(options)}")
    whole = whole_answers(processor, question, options)
    shared = common_length(whole.continuations)
    rests = [turn[shared:] for turn in whole.continuations]
    if len({rest[1:] for rest in rests}) == 1:
        rests = [rest[:1] for rest in rests]
    if len(set(rests)) < len(rests) or not all(rests):
        raise ValueError(f"the options {list(options)!r} are not all different")
    begun = processor.prompt([("user", question), ("assistant", options[0])])
    return Options(_before(begun, len(whole.prompt.input_ids) + shared), tuple(rests))


def _before(prompt: Prompt, end: int) -> Prompt:
    spans = {name: [place for place in places if place < end] for name, places in prompt.spans.items()}
    return Prompt(prompt.input_ids[:end], prompt.labels[:end], prompt.regions, spans)
