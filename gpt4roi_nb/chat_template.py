"""A conversation in the chat format of the tokenizer's own template, for language models trained with one.

The template is rendered with placeholders for the contents, so that only its own text can hold special tokens. The
contents are encoded as plain text, as in `prompt.py`.
"""

from __future__ import annotations

import inspect
import re
import string
import sys
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from types import BuiltinMethodType, FrameType
from typing import Any

import jinja2
from jinja2 import Environment, TemplateError
from transformers import PreTrainedTokenizerBase

from gpt4roi_nb.prompt import Prompt, PromptParts, Turns, check_turns

# Lines of the compiled template, and of jinja2 for it, that one rendering may execute: a few hundred turns take some
# ten thousand.
MAX_LINES = 1_000_000
MAX_NUMBER = 100_000  # as jinja2's own limit of a range
MAX_SIZE = 50_000_000  # characters of one value, and of all that one rendering makes
_LARGE = 1000  # texts of this size are remembered, so that each is counted once
MOST_RENDERED = 256  # renderings kept, one per sequence of roles
_RENDERED: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
_COMPILED = "<template>"  # what jinja2 calls the file of a template's code
_FILTERS, _SANDBOX, *_OTHERS = (
    str(Path(jinja2.__file__).with_name(name)) for name in ("filters.py", "sandbox.py", "runtime.py", "utils.py")
)
_WATCHED = {_COMPILED, _FILTERS, _SANDBOX, *_OTHERS, string.__file__}
_JOIN, _TOJSON = "sync_do_join", "tojson"  # jinja2's, and transformers'
_COUNTS = f"it counts beyond {MAX_NUMBER:,}, which no chat template needs"
_FORMATS = {"do_format": "value", "format_field": "format_spec"}  # functions, and their argument that may name widths
_WIDTH = re.compile(rf"\d{{{len(str(MAX_NUMBER))},}}")
_CONVERSION = re.compile(r"%[-+ #0]*([\d.*]|$)")  # with a width, or one that may be appended
# What `render_within_limits` raises: jinja2's own errors, and those of a template's expressions.
TEMPLATE_ERRORS = (
    *(TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError),
)
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


def render_within_limits(template: Any, render: Callable[[], Any]) -> Any:
    """Call `render`, which renders a template, or one of several by name; a template may never end, or fill the memory.

    Raises:
        TemplateError: beyond a limit. What else a template raises is in `TEMPLATE_ERRORS`.
    """
    _check_operators(template)
    return _bounded(render)


def _check_operators(template: Any) -> None:
    """Raise TemplateError for what may fill the memory within one line: products, powers and large numbers."""
    for text in template.values() if isinstance(template, dict) else [template]:
        tokens = [(kind, value) for _, kind, value in Environment().lex(text)]
        operators = {value for kind, value in tokens if kind == "operator"}
        if operators & {"*", "**"}:
            raise TemplateError("it multiplies (* or **), which no chat template needs")
        if "%" in operators and any(
            kind in ("string", "data") and _CONVERSION.search(value.strip("'\"")) for kind, value in tokens
        ):
            raise TemplateError("it formats with a width (%), which no chat template needs")
        for kind, value in tokens:
            if kind == "integer" and int(value.replace("_", ""), 0) > MAX_NUMBER:
                raise TemplateError(_COUNTS)


def _bounded(render: Callable[[], Any]) -> Any:
    """Call `render`; raise TemplateError once the template has executed `MAX_LINES` lines or makes too large values."""
    before = sys.gettrace()
    sys.settrace(_Watch().enter)  # of this thread alone
    try:
        return render()
    except _TooMuch as error:
        raise TemplateError(str(error)) from None
    finally:
        sys.settrace(before)


class _TooMuch(BaseException):
    """Ends a rendering. No Exception: jinja2 catches those where it computes constants, and the watch would be over."""


class _Watch:
    """Counts the lines that a template executes, and measures its values before it computes with them.

    Python calls `enter` for each function's call, and what that returns for each line and the end of the call. Neither
    sees into functions written in C. So their arguments are measured: none makes more than the product of their sizes.
    """

    def __init__(self) -> None:
        self.lines = 0
        self.made = 0
        self._known: dict[int, tuple[Any, int]] = {}  # id → the value, which keeps the id its own, and its size

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in _WATCHED and code.co_name != _TOJSON:
            return None
        if code.co_filename in (_FILTERS, _SANDBOX) or code.co_name == _TOJSON:
            self._check_size(prod(max(1, self._factor(value)) for value in _given(frame)))
        if code.co_name in _FORMATS and _WIDTH.search(str(frame.f_locals[_FORMATS[code.co_name]])):
            raise _TooMuch(f"it formats with a width beyond {MAX_NUMBER:,}, which no chat template needs")
        if code.co_name == _JOIN:  # of what may be a generator, which has no size
            self._check_size(MAX_NUMBER * self.size(frame.f_locals["d"]))
        return self.follow

    def follow(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.lines += 1
            if self.lines > MAX_LINES:
                raise _TooMuch(f"it was not finished after {MAX_LINES:,} lines; it may never end")
            if frame.f_code.co_filename == _COMPILED:
                for name, value in frame.f_locals.items():
                    if name.startswith("l_"):  # the template's own variables
                        self.size(value)
        elif event == "return":
            size = self.size(argument)
            self.made += size if size < _LARGE else 0  # larger ones are counted when they are first seen
        return self.follow

    def size(self, value: Any) -> int:
        """Characters that it takes to write the value, about: what it contains twice counts twice."""
        if isinstance(value, int):
            if abs(value) > MAX_NUMBER:
                raise _TooMuch(_COUNTS)
            return 1
        if not isinstance(value, str | list | tuple | dict):
            return 1
        size = len(value)
        if (isinstance(value, str) and size < _LARGE) or id(value) in self._known:
            return self._known.get(id(value), (value, size))[1]
        self.made += size
        if not isinstance(value, str):
            self._known[id(value)] = value, size
            size += sum(map(self.size, [*value, *value.values()] if isinstance(value, dict) else value))
        self._check_size(size)
        self._known[id(value)] = value, size
        return size

    def _factor(self, value: Any) -> int:
        """How many times more a function may make because of this argument; a number may be a width or a count."""
        size = self.size(value.__self__ if isinstance(value, BuiltinMethodType) else value)
        return abs(value) if isinstance(value, int) else size

    def _check_size(self, size: int) -> None:
        if max(size, self.made) > MAX_SIZE:
            raise _TooMuch(f"it makes more than {MAX_SIZE:,} characters; it may fill the memory")


def _given(frame: FrameType) -> list[Any]:
    """What a function was called with, its starred arguments one by one."""
    names, starred, keywords, values = inspect.getargvalues(frame)
    given = [values[name] for name in names if name in values]
    return [*given, *values.get(starred or "", ()), *values.get(keywords or "", {}).values()]


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
