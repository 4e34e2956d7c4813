"""A conversation in the chat format of the tokenizer's own template, for language models trained with one.

The template is rendered with placeholders for the contents, so that only its own text can hold special tokens. The
contents are encoded as plain text, as in `prompt.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from gpt4roi_nb.prompt import Prompt, PromptParts, Turns, check_turns
from gpt4roi_nb.template_limits import TEMPLATE_ERRORS, render_within_limits

MOST_RENDERED = 256  # renderings kept, one per sequence of roles
_RENDERED: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
# Private-use characters occur in no template, and its trimming of white space leaves them.
_PLACEHOLDER = "\ue000{}\ue001"


def build_template_prompt(
    turns: Turns, tokenizer: PreTrainedTokenizerBase, num_image_tokens: int, *, system: str = ""
) -> Prompt:
    """Build a prompt as `prompt.build_prompt` does, in the format of `tokenizer.chat_template`.

    Labels cover the assistant's contents up to and including the token that ends the turn. The span "marks" is the
    template's own text; "system" is the content of the system message and the opening.

    Args:
        turns: alternating ("user", text) and ("assistant", text) pairs, the user first.
        tokenizer: a fast tokenizer with GPT4RoI's tokens and a chat template.
        num_image_tokens: patches of the image.
        system: content of the system message; if empty, the template decides what comes first.

    Raises:
        ValueError: if the turns are out of order, or the template cannot render this conversation.
    """
    check_turns(turns)
    roles = ["system"] * bool(system) + [role for role, _ in turns]
    written = _render(roles, tokenizer)
    parts = PromptParts()
    _add_own_text(parts, written[0], tokenizer)
    if system:
        parts.add(system, "system")
        _add_own_text(parts, written.pop(1), tokenizer)
    for index, (role, text) in enumerate(turns):
        if index == 0:
            parts.add_image(num_image_tokens)
        parts.add_turn(index, text)
        after = written[index + 1]
        if role == "assistant":
            _add_own_text(parts, after, tokenizer, ends_answer=True)
        else:
            # An answer begins with a new token, as it does when the model writes it. A space before it may belong to
            # its first word.
            opening = after.rstrip(" ")
            _add_own_text(parts, opening, tokenizer)
            parts.cut()
            parts.add(after.removeprefix(opening), "marks")
    return parts.encode(tokenizer, template=True)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the token with which the template ends an assistant's turn.

    Raises:
        ValueError: if the tokenizer has no template, or one that does not end the turn with a special token.
    """
    after = _render(["user", "assistant"], tokenizer)[-1]
    for piece, is_token in cut_at_tokens(after, tokenizer):
        if is_token:
            return piece
    raise ValueError(
        "the tokenizer's chat template must end the assistant's turn with a special token, but ends it with "
        f"{after!r}, so that the end of an answer cannot be seen. "
        'Use chat_format="gpt4roi", or set tokenizer.chat_template to a template that does'
    )


def _render(roles: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the template's own text before, between and after the contents of messages with these roles."""
    if not tokenizer.chat_template:
        raise ValueError(
            'chat_format="template" needs a tokenizer with a chat template, but this one has none; use '
            'chat_format="gpt4roi", or set tokenizer.chat_template'
        )
    key = (str(tokenizer.chat_template), tuple(roles), tuple(map(str, tokenizer.special_tokens_map.values())))
    if key not in _RENDERED:
        if len(_RENDERED) >= MOST_RENDERED:
            _RENDERED.clear()
        _RENDERED[key] = _rendered(roles, tokenizer)
    return list(_RENDERED[key])


def _rendered(roles: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Compute `_render`, which costs more than the rest of a prompt and depends only on the roles."""
    places = [_PLACEHOLDER.format(index) for index in range(len(roles))]
    try:
        rendered = render_within_limits(
            tokenizer.chat_template,
            lambda: tokenizer.apply_chat_template(
                [{"role": role, "content": place} for role, place in zip(roles, places, strict=True)],
                tokenize=False,
                add_generation_prompt=roles[-1] == "user",
                enable_thinking=False,  # templates that know this option then open an answer without a chain of thought
            ),
        )
    except TEMPLATE_ERRORS as error:
        hint = '; for a template without a system message, set system=""' if "system" in roles else ""
        raise ValueError(
            f"the tokenizer's chat template cannot write messages of {', '.join(roles)}: {error}{hint}"
        ) from error
    written = re.split(f"({'|'.join(places)})", str(rendered))
    if written[1::2] != places:
        raise ValueError(
            "the tokenizer's chat template must write every message once, in order, but leaves out, repeats or moves "
            f'some of {", ".join(roles)}; use chat_format="gpt4roi"'
        )
    return written[::2]


def _add_own_text(
    parts: PromptParts, text: str, tokenizer: PreTrainedTokenizerBase, *, ends_answer: bool = False
) -> None:
    """Add the template's own text; after an answer, it is in the loss up to the first token, which ends the turn."""
    pieces = cut_at_tokens(text, tokenizer)
    in_loss = ends_answer and any(is_token for _, is_token in pieces)
    for piece, is_token in pieces:
        if is_token:
            first = piece == tokenizer.bos_token and not ends_answer
            parts.add_token(piece, "system" if first else "marks", in_loss)
            in_loss = False
        else:
            parts.add(piece, "marks", in_loss)


def cut_at_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, bool]]:
    """Split the template's own text into (piece, whether it is an added token)."""
    contents = {token.content for token in tokenizer.added_tokens_decoder.values()}
    present = sorted((content for content in contents if content in text), key=len, reverse=True)
    if not present:
        return [(text, False)] if text else []
    pieces = re.split(f"({'|'.join(map(re.escape, present))})", text)
    return [(piece, piece in contents) for piece in pieces if piece]
