"""A conversation in the tokens of a model of transformers, in the format of its own processor and chat template.

Templates are rendered with placeholders where contents go, and contents are encoded as plain text: only what the
template and the way of pointing write can become a special token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.chat_template import cut_at_tokens
from gpt4roi_nb.models.images import PreparedImage
from gpt4roi_nb.prompt import HALF_CHARACTER, IGNORE, PromptParts
from gpt4roi_nb.template_limits import TEMPLATE_ERRORS, render_within_limits

Pieces = Sequence[tuple[str, bool]]  # words, and whether this package wrote them
Turns = Sequence[tuple[str, Pieces]]  # ("user" or "assistant", pieces) in turn, the user first
_PLACEHOLDER = "\ue000{}\ue001"  # characters for private use stand in no template


@dataclass(frozen=True)
class PromptedPrompt:
    """A conversation in tokens.

    Attributes:
        input_ids: the ids, with as many in the place of an image as it has features.
        images: for each id, the index of the image whose place it holds, else -1.
        spans: token positions by name: "image1", "question1", "answer1", …
        answer: the answer's ids, with the token that ends it, where the assistant has spoken last.
        rendered_text: what is shown of it: the whole, without its images, or of a chat the last question
            (`families.rendered_text_of`).
        shown: the images, prepared.
        frames: of each image, the part of the session's image that it shows, pixel xyxy.
        turns: the conversation as it was given: ("user" or "assistant", text), the user first.
        before: how many ids precede the answer, where the prompt of the question alone holds more; else None.
    """

    input_ids: list[int]
    images: list[int]
    spans: dict[str, list[int]]
    answer: tuple[int, ...] = ()
    rendered_text: str = ""
    shown: tuple[PreparedImage, ...] = ()
    frames: tuple[Box, ...] = ()
    turns: tuple[tuple[str, str], ...] = ()
    before: int | None = None

    def keys(self) -> list[tuple[int, str | None]]:
        """Return what a token's keys and values depend on, besides the tokens before it: its id, an image's pixels."""
        return [
            (token_id, self.shown[image].digest if image >= 0 else None)
            for token_id, image in zip(self.input_ids, self.images, strict=True)
        ]


def build(
    format: str, processor: Any, turns: Turns, expansions: Sequence[Sequence[int]], *, task: bool = False
) -> PromptedPrompt:
    """Tokenize a conversation as a family's processor would write it.

    Args:
        format: of `families.Family`.
        processor: the model's own.
        turns: the user's and the assistant's, the user first.
        expansions: the ids that stand for each image.
        task: whether the question is one of the family's tasks, and no free question.

    Raises:
        ValueError: if a text is not valid, or the template cannot write this conversation.
    """
    for index, (_, pieces) in enumerate(turns):
        if any(HALF_CHARACTER.search(words) for words, _ in pieces):
            raise ValueError(f"the text of turn {index} is not valid text: it holds a lone surrogate, half a character")
    parts = PromptParts()
    if format in _WITH_TASKS:
        return _WITH_TASKS[format](parts, processor, turns, expansions, task)
    return _FORMATS[format](parts, processor, turns, expansions)


def _chat(parts: PromptParts, processor: Any, turns: Turns, expansions: Sequence[Sequence[int]]) -> PromptedPrompt:
    tokenizer = processor.tokenizer
    written = _rendered(processor, [role for role, _ in turns], len(expansions))
    if not written[0].startswith(tokenizer.bos_token or "\0") and _begins_with_bos(tokenizer):
        parts.add_token(str(tokenizer.bos_token), "marks")
    shown = 0
    for index, own in enumerate(written):
        role, pieces = turns[index] if index < len(turns) else ("", ())
        # A blank before an answer may be the beginning of its first word, which the model writes itself.
        opening = own.rstrip(" ") if role == "assistant" else own
        ends = f"answer{index // 2}" if index > 0 and turns[index - 1][0] == "assistant" else "marks"
        for piece, is_token in cut_at_tokens(opening, tokenizer):
            if piece == processor.image_token:
                shown += 1
                if shown > len(expansions):
                    raise ValueError(f"the chat template shows more images than the {len(expansions)} that there are")
                _add_image(parts, expansions[shown - 1], f"image{shown}", tokenizer)
            elif is_token:
                parts.add_token(piece, ends)
                ends = "marks"  # only the first ends the answer
            else:
                parts.add(piece, "marks")
        if role == "assistant":
            parts.cut()
            parts.add(own.removeprefix(opening), f"answer{index // 2 + 1}")
            _add(parts, pieces, f"answer{index // 2 + 1}", tokenizer)
        elif role:
            _add(parts, pieces, f"question{index // 2 + 1}", tokenizer)
    if turns[-1][0] == "assistant" and ends != "marks" and tokenizer.eos_token:
        parts.add_token(str(tokenizer.eos_token), ends)  # LLaVA 1.5's template, among others, ends no answer
    if shown < len(expansions):
        raise ValueError(f"the chat template shows {shown} images of {len(expansions)}")
    return _encoded(parts, tokenizer, turns)


def _kosmos(
    parts: PromptParts, processor: Any, turns: Turns, expansions: Sequence[Sequence[int]], task: bool
) -> PromptedPrompt:
    """`<s><image>…</image>` and a question, or a task's beginning of a text, as the card of its weights has them."""
    tokenizer = processor.tokenizer
    for token in tokenizer.convert_ids_to_tokens(list(expansions[0])):
        parts.add_token(token, "image1")
    parts.add_token(processor.grd_token, "marks")
    if not task:
        parts.add(" Question: ", "marks")
    _add(parts, turns[0][1], "question1", tokenizer)
    if not task:
        parts.add(" Answer:", "marks")
    return _with_answer(parts, tokenizer, turns)


def _paligemma(
    parts: PromptParts, processor: Any, turns: Turns, expansions: Sequence[Sequence[int]], task: bool
) -> PromptedPrompt:
    """Image, `<s>`, the task and a line break; a free question is the task "answer en"."""
    tokenizer = processor.tokenizer
    for token in tokenizer.convert_ids_to_tokens(list(expansions[0])):
        parts.add_token(token, "image1")
    parts.add_token(str(tokenizer.bos_token), "marks")
    if not task:
        parts.add("answer en ", "marks")
    _add(parts, turns[0][1], "question1", tokenizer)
    parts.add("\n", "marks")
    return _with_answer(parts, tokenizer, turns)


def _florence(parts: PromptParts, processor: Any, turns: Turns, expansions: Sequence[Sequence[int]]) -> PromptedPrompt:
    """What the encoder reads: image, `<s>`, the task in words and `</s>`."""
    tokenizer = processor.tokenizer
    for token in tokenizer.convert_ids_to_tokens(list(expansions[0])):
        parts.add_token(token, "image1")
    parts.add_token(str(tokenizer.bos_token), "marks")
    question = "".join(words for words, _ in turns[0][1])
    for task, words in processor.task_prompts_with_input.items():
        if question.startswith(task):
            question = words.format(input=question.removeprefix(task).strip())
            break
    _add(parts, [(question, True)], "question1", tokenizer)
    parts.add_token(str(tokenizer.eos_token), "marks")
    # What is written does not follow the question: the decoder begins a text of its own.
    prompt = _encoded(parts, tokenizer, turns[:1])
    if len(turns) == 1:
        return prompt
    begun = PromptParts()
    begun.add_token(str(tokenizer.bos_token), "answer1")  # as BART's labels, and what is forced when it writes
    _add(begun, turns[1][1], "answer1", tokenizer)
    begun.add_token(str(tokenizer.eos_token), "answer1")
    answer = begun.encode(tokenizer, template=True).input_ids
    return replace(prompt, answer=tuple(answer))


def _gpt4roi(parts: PromptParts, processor: Any, turns: Turns, expansions: Sequence[Sequence[int]]) -> PromptedPrompt:
    """GPT4RoI's own prompt of a question that names no region."""
    said = [(role, "".join(words for words, _ in pieces)) for role, pieces in turns]
    whole = processor.prompt(said)
    token = expansions[0][0]
    images = [0 if token_id == token else -1 for token_id in whole.input_ids]
    if len(turns) % 2:
        return PromptedPrompt(whole.input_ids, images, whole.spans)
    # As `GPT4RoI.likelihoods` has it: with the marks around it. A prompt that awaits an answer may hold some of them.
    asked = max(whole.spans[f"question{len(turns) // 2}"])
    places = [place for place, label in enumerate(whole.labels) if label != IGNORE and place > asked]
    answer = tuple(whole.input_ids[places[0] : places[-1] + 1])
    return PromptedPrompt(whole.input_ids, images, whole.spans, answer, before=places[0])


_FORMATS: dict[str, Callable[..., PromptedPrompt]] = {"chat": _chat, "florence2": _florence, "gpt4roi": _gpt4roi}
_WITH_TASKS: dict[str, Callable[..., PromptedPrompt]] = {"kosmos-2": _kosmos, "paligemma": _paligemma}


def _with_answer(parts: PromptParts, tokenizer: PreTrainedTokenizerBase, turns: Turns) -> PromptedPrompt:
    """A prompt whose answer follows directly, and ends with the tokenizer's own end token."""
    if len(turns) > 1:
        parts.cut()
        _add(parts, turns[1][1], "answer1", tokenizer)
        parts.add_token(str(tokenizer.eos_token), "answer1")
    return _encoded(parts, tokenizer, turns)


def _add_image(parts: PromptParts, ids: Sequence[int], span: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add what stands for an image: its tokens, and the text between them, which joins the text around it."""
    added = tokenizer.added_tokens_decoder
    run: list[int] = []
    for token_id in [*ids, None]:
        if token_id is not None and token_id not in added:
            run.append(token_id)
            continue
        if run:
            parts.add(str(tokenizer.decode(run, clean_up_tokenization_spaces=False)), span)
            run = []
        if token_id is not None:
            parts.add_token(added[token_id].content, span)


def _add(parts: PromptParts, pieces: Pieces, span: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """What was said: only this package's own words can become special tokens."""
    for words, own in pieces:
        for piece, is_token in cut_at_tokens(words, tokenizer) if own else [(words, False)]:
            if is_token:
                parts.add_token(piece, span)
            else:
                parts.add(piece, span, user=not own)


def _encoded(parts: PromptParts, tokenizer: PreTrainedTokenizerBase, turns: Turns) -> PromptedPrompt:
    prompt = parts.encode(tokenizer, template=True)
    images = [-1] * len(prompt.input_ids)
    for name, places in prompt.spans.items():
        if name.startswith("image"):
            for place in places:
                images[place] = int(name.removeprefix("image")) - 1
    answer: tuple[int, ...] = ()
    if turns[-1][0] == "assistant":
        answer = tuple(prompt.input_ids[place] for place in prompt.spans[f"answer{len(turns) // 2}"])
    return PromptedPrompt(prompt.input_ids, images, prompt.spans, answer, parts.written("image"))


def _rendered(processor: Any, roles: Sequence[str], images: int) -> list[str]:
    """What the template itself writes before, between and after the contents of messages of these roles."""
    places = [_PLACEHOLDER.format(index) for index in range(len(roles))]
    messages = [
        {
            "role": role,
            "content": [{"type": "image"}] * (images if index == 0 else 0) + [{"type": "text", "text": place}],
        }
        for index, (role, place) in enumerate(zip(roles, places, strict=True))
    ]
    text = apply_template(processor, messages, tokenize=False, add_generation_prompt=roles[-1] == "user")
    pieces = re.split(f"({'|'.join(places)})", str(text))
    if pieces[1::2] != places:
        raise ValueError(
            "the model's chat template must write every message once, in order, but leaves out, repeats or moves "
            f"some of {', '.join(roles)}"
        )
    return pieces[::2]


def apply_template(processor: Any, messages: Sequence[dict[str, Any]], **options: Any) -> Any:
    """Call `processor.apply_chat_template` within the limits of `chat_template`: a template may never end.

    Raises:
        ValueError: if the template cannot write these messages, or not within the limits.
    """
    try:
        return render_within_limits(processor.chat_template, lambda: processor.apply_chat_template(messages, **options))
    except TEMPLATE_ERRORS as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ValueError(
            f"the model's chat template cannot write messages of {roles}: {error}; compare it with that of the model's "
            "makers"
        ) from error


def end_of_turn(format: str, processor: Any) -> str | None:
    """Return the token that ends an answer; None for a GPT4RoI whose answers end with a mark in text."""
    tokenizer = processor.tokenizer
    if format == "gpt4roi":
        return processor.end_of_turn
    if format == "chat":
        for piece, is_token in cut_at_tokens(_rendered(processor, ["user", "assistant"], 1)[-1], tokenizer):
            if is_token:
                return piece
    return str(tokenizer.eos_token)


def _begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself puts its first token in front of a text."""
    return tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
