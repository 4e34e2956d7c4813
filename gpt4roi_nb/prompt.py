"""From a conversation to token ids and label mask: the `<regionN>` grammar and the fixed strings of GPT4RoI's prompt.

Knows nothing of pixels. Training, evaluation and the session use the same builder. Text from a user is encoded as plain
text: whatever it says, it never becomes a special token or a turn mark. `chat_template.py` writes the same parts in the
chat format of a tokenizer's own template.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from gpt4roi_nb.tokenizer import ADDED_TOKENS, IMAGE_END_TOKEN, IMAGE_START_TOKEN, IMAGE_TOKEN, REGION_TOKEN

IGNORE = -100  # the label of a token outside the loss
DEFAULT_QUESTION = "What is <region1>?"
REFERENCE = re.compile(r"<region(\d{1,6})>")
# A reference with a typing error; as plain text, it would be answered from the whole image.
_LIKE_A_REFERENCE = re.compile(r"<\s*region[\s_-]*\d*\s*>|<region\d+(?![\d>])", re.IGNORECASE)
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # what a browser sends when an emoji is cut in two

# Fixed strings that released checkpoints depend on (GPT4RoI, commit 00273ad; golden/prompts.json).
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
TURN_MARK = "###"
ROLES = {"user": "Human", "assistant": "Assistant"}
BEFORE_IMAGE, AFTER_IMAGE = "The ", " provides an overview of the picture.\n"

Turns = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Prompt:
    """A conversation in tokens.

    Attributes:
        input_ids: the ids, with one `<im_patch>` per patch and one `<bbox>` per region.
        labels: the ids of the assistant's turns and their stop marks, IGNORE elsewhere.
        regions: number of the region behind each `<bbox>`, in order.
        spans: token positions by name: "system", "image", "question1", "answer1", "region1", …
    """

    input_ids: list[int]
    labels: list[int]
    regions: tuple[int, ...]
    spans: dict[str, list[int]]


@dataclass
class _Run:
    """Text between two special tokens, and its stretches: (start, end, span, in_loss, from a user)."""

    text: str = ""
    stretches: list[tuple[int, int, str, bool, bool]] = field(default_factory=list)


@dataclass(frozen=True)
class _Token:
    """A special token that the prompt itself inserts."""

    token: str
    span: str
    in_loss: bool = False


def references(text: str) -> list[int]:
    """Return the numbers of the regions that a text names as `<regionN>`, in order, each once."""
    return list(dict.fromkeys(int(number) for number in REFERENCE.findall(text)))


def region(number: int) -> str:
    """Return the reference to a region, counted from 1: `<region1>`."""
    return f"<region{number}>"


def listed(numbers: Sequence[int]) -> str:
    """List references in words: `<region1>, <region2> and <region3>`."""
    names = [region(number) for number in numbers]
    return enumeration(names)


def enumeration(names: Sequence[str]) -> str:
    """List names in words: "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def check_references(named: Sequence[int], given: Sequence[int], known: int = 0) -> None:
    """Check that a text names exactly the regions for which boxes were given.

    Args:
        named: numbers of the regions that the text names.
        given: numbers of the regions that have boxes.
        known: number of regions that the conversation already has; the text may name them or not.

    Raises:
        ValueError: if the text names a region without a box, or leaves out a region with one.
    """
    named = [number for number in named if not 1 <= number <= known]

    unknown = [number for number in named if number not in given]
    unnamed = [number for number in given if number not in named]
    if unknown:
        lacking = f"there is no box for {'it' if len(unknown) == 1 else 'them'}"
        have = f"the boxes are those of {listed(list(given))}" if len(given) else lacking
        if known:
            have += f" and the conversation has {listed(range(1, known + 1))} so far"
        if 0 in unknown:
            raise ValueError("the text names <region0>, but regions are numbered from 1; write <region1> for the first")
        raise ValueError(
            f"the text names {listed(unknown)}, but {have}; add {'a box' if len(unknown) == 1 else 'boxes'} "
            f"(the next is <region{known + len(given) + 1}>) or correct the reference"
        )
    if unnamed:
        one = len(unnamed) == 1
        given_as, it, box = ("a box was", "it", "box") if one else ("boxes were", "them", "boxes")
        raise ValueError(
            f"the text never names {listed(unnamed)}, for which {given_as} given; "
            f"write {listed(unnamed)}, exactly like this, where you mean {it}, or leave the {box} out"
            + (f". New regions get the numbers after {listed([known])}" if known else "")
        )


def check_question(text: str, boxes: int) -> None:
    """Check that a text is a question that names the regions 1 to `boxes`, and no other.

    Raises:
        ValueError: if it is empty, or names other regions.
    """
    if not text.strip():
        raise ValueError('the question is empty; write what you want to know, such as "What is <region1>?"')
    check_references(references(text), range(1, boxes + 1))


def check_turns(turns: Turns) -> None:
    """Check that user and assistant take turns, the user first, and that no question is empty.

    Raises:
        ValueError: if they do not, or a text holds a misspelled reference or half a character.
        TypeError: if a text is not a string.
    """
    if not turns:
        raise ValueError('a conversation needs at least one turn, such as [("user", "What is <region1>?")]')
    for index, turn in enumerate(turns):
        if len(turn) != 2:
            raise ValueError(f'turn {index} must be a pair such as ("user", "What is <region1>?"), but is {turn!r}')
        expected = ("user", "assistant")[index % 2]
        role, text = turn
        if role != expected:
            raise ValueError(
                f"turn {index} must be the {expected}'s, but its role is {role!r}; user and assistant take turns, "
                "the user first"
            )
        if not isinstance(text, str):
            raise TypeError(f"the text of turn {index} must be a string, but is a {type(text).__name__}")
        if HALF_CHARACTER.search(text):
            raise ValueError(f"the text of turn {index} is not valid text: it holds a lone surrogate, half a character")
        if role == "user" and not text.strip():
            raise ValueError(f"the question of turn {index} is empty; write what you want to know")
        if role == "user":
            _check_spelling(text)


def _check_spelling(text: str) -> None:
    for like in _LIKE_A_REFERENCE.findall(text):
        if not REFERENCE.fullmatch(like):
            raise ValueError(
                f"{like[:30]!r} is not a reference to a region; write <region1>, exactly like this: the word in "
                "lower case and a number, without spaces"
            )


def build_prompt(
    turns: Turns,
    tokenizer: PreTrainedTokenizerBase,
    num_image_tokens: int,
    *,
    closing: str = f"{TURN_MARK} ",
    system: str = SYSTEM,
) -> Prompt:
    """Build the prompt of a conversation about one image.

    The first mention of `<regionN>` in the user's turns becomes `regionN <bbox>`, every later one `regionN`.

    Args:
        turns: alternating ("user", text) and ("assistant", text) pairs, the user first.
        tokenizer: a fast tokenizer with GPT4RoI's tokens.
        num_image_tokens: patches of the image.
        closing: the end of the prompt if the last turn is the user's; the model continues from there.
        system: the first sentence.

    Raises:
        ValueError, TypeError: as `check_turns`.
    """
    check_turns(turns)
    parts = PromptParts()
    if tokenizer.bos_token_id is not None:
        parts.add_token(str(tokenizer.bos_token), "system")
    parts.add(f"{system}\n\n" if system else "", "system")
    for index, (role, text) in enumerate(turns):
        answering = role == "assistant"
        parts.add(TURN_MARK, "marks", in_loss=index > 0 and not answering)  # the mark that stops the answer before
        parts.add(f" {ROLES[role]}: ", "marks", in_loss=answering)
        if index == 0:
            parts.add_image(num_image_tokens)
        parts.add_turn(index, text)
        parts.add("\n", "marks", in_loss=answering)
    if turns[-1][0] == "assistant":
        parts.add(TURN_MARK, "marks", in_loss=True)
        parts.add(" ", "marks")
    else:
        parts.add(closing, "marks")
    return parts.encode(tokenizer)


class PromptParts:
    """The parts of a prompt: runs of text, and the special tokens between them."""

    def __init__(self) -> None:
        self._parts: list[_Run | _Token] = []
        self._regions: list[int] = []

    def add(self, text: str, span: str, in_loss: bool = False, user: bool = False) -> None:
        """Add text in which nothing is a special token.

        Args:
            text: the text.
            span: the span of the prompt that it belongs to.
            in_loss: whether its tokens are trained.
            user: whether it comes from outside, i.e. is not part of the format.
        """
        if not self._parts or not isinstance(self._parts[-1], _Run):
            self._parts.append(_Run())
        run: _Run = self._parts[-1]  # type: ignore[assignment]
        run.stretches.append((len(run.text), len(run.text) + len(text), span, in_loss, user))
        run.text += text

    def cut(self) -> None:
        """Start a new run of text here, so that no token crosses this place."""
        if self._parts and isinstance(self._parts[-1], _Run):
            self._parts.append(_Run())

    def add_token(self, token: str, span: str, in_loss: bool = False) -> None:
        """Add a special token."""
        self._parts.append(_Token(token, span, in_loss))

    def add_image(self, num_image_tokens: int) -> None:
        """Add the opening sentence, which holds the image."""
        self.add(BEFORE_IMAGE, "system")
        self.add_token(IMAGE_START_TOKEN, "system")
        self._parts.extend([_Token(IMAGE_TOKEN, "image")] * num_image_tokens)
        self.add_token(IMAGE_END_TOKEN, "system")
        self.add(AFTER_IMAGE, "system")

    def add_turn(self, index: int, text: str) -> None:
        """Add the text of turn `index`, the user's if even; the first mention of a region gets the region's token."""
        answering = index % 2 == 1
        span = f"{'answer' if answering else 'question'}{index // 2 + 1}"
        position = 0
        text = text.strip()
        for reference in REFERENCE.finditer(text):
            number = int(reference.group(1))
            self.add(text[position : reference.start()], span, in_loss=answering, user=True)
            self.add(f"region{number}", span, in_loss=answering)
            if not answering and number not in self._regions:
                self._regions.append(number)
                self.add(" ", span)
                self.add_token(REGION_TOKEN, f"region{number}")
            position = reference.end()
        self.add(text[position:], span, in_loss=answering, user=True)

    def written(self, leave_out: str) -> str:
        """Return the text and the special tokens as they stand, without spans whose names begin with `leave_out`."""
        said: list[str] = []
        for part in self._parts:
            if isinstance(part, _Token):
                said.append("" if part.span.startswith(leave_out) else part.token)
            else:
                said += [part.text[a:b] for a, b, span, *_ in part.stretches if not span.startswith(leave_out)]
        return "".join(said)

    def encode(self, tokenizer: PreTrainedTokenizerBase, *, template: bool = False) -> Prompt:
        """Tokenize the parts.

        Args:
            tokenizer: a fast tokenizer with GPT4RoI's tokens.
            template: whether this is the tokenizer's own chat format. In that, `###` means nothing and a run of text is
                encoded as the continuation of the token before it. In GPT4RoI's format, each run is encoded on its own,
                as in training.
        """
        input_ids: list[int] = []
        labels: list[int] = []
        spans: dict[str, list[int]] = {}
        added = tokenizer.added_tokens_decoder
        encoding_of_run = _continued_encoding if template else plain_encoding

        def append(ids: Iterable[int], span: str, in_loss: bool) -> None:
            for token_id in ids:
                spans.setdefault(span, []).append(len(input_ids))
                input_ids.append(token_id)
                labels.append(token_id if in_loss else IGNORE)

        def drops(neighbour: int, side: str) -> bool:
            part = self._parts[neighbour] if 0 <= neighbour < len(self._parts) else None
            if not isinstance(part, _Token):
                return False
            return part.token in ADDED_TOKENS or getattr(added.get(token_id_of(part.token, tokenizer)), side, False)

        for index, part in enumerate(self._parts):
            if isinstance(part, _Token):
                append([token_id_of(part.token, tokenizer)], part.span, part.in_loss)
                continue
            # White space next to a special token is dropped if that token says so, as all of GPT4RoI's do.
            start = len(part.text) - len(part.text.lstrip()) if drops(index - 1, "rstrip") else 0
            end = len(part.text.rstrip()) if drops(index + 1, "lstrip") else len(part.text)
            if start >= end:
                continue
            encoded = (encoding_of_run if index > 0 else plain_encoding)(part.text[start:end], tokenizer)
            stretches = iter(part.stretches)
            stretch = next(stretches)
            for token_id, (token_start, token_end) in encoded:
                # A token belongs where its last character does: "▁Human" begins with the space before it.
                place = max(token_start, token_end - 1) + start
                while place >= stretch[1]:
                    stretch = next(stretches)
                _, _, span, in_loss, user = stretch
                ids = _harmless(token_id, tokenizer, added, marks=not template) if user else [token_id]
                append(ids, span, in_loss)
        return Prompt(input_ids, labels, tuple(self._regions), spans)


def plain_encoding(text: str, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, tuple[int, int]]]:
    """Tokenize a text in which nothing is a special token: (id, (start, end) in characters) per token."""
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
        verbose=False,  # the length is checked elsewhere, where the model's context is known
    )
    return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))


def _continued_encoding(text: str, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, tuple[int, int]]]:
    """Tokenize as `plain_encoding` does, but a text that follows a special token.

    Some SentencePiece vocabularies begin a whole text with "▁", but not a text that continues after a special token.
    """
    alone = [token_id for token_id, _ in plain_encoding("a", tokenizer)]
    known = tokenizer.get_added_vocab()
    token = IMAGE_TOKEN if IMAGE_TOKEN in known else next(iter(known), None)
    if token is None or tokenizer(f"{token}a", add_special_tokens=False)["input_ids"][1:] == alone:
        return plain_encoding(text, tokenizer)
    front = len(plain_encoding("\n", tokenizer))  # a line break is a byte token there, which merges with nothing
    encoded = plain_encoding(f"\n{text}", tokenizer)[front:]
    return [(token_id, (start - 1, end - 1)) for token_id, (start, end) in encoded]


def token_id_of(token: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of a token."""
    return tokenizer.convert_tokens_to_ids([token])[0]  # type: ignore[index]


def _harmless(
    token_id: int, tokenizer: PreTrainedTokenizerBase, added: Mapping[int, AddedToken], *, marks: bool
) -> list[int]:
    """Split a token of a user's text if it is an added one, such as Qwen's `<think>`, or a turn mark."""
    if token_id in added and token_id != tokenizer.unk_token_id:
        content = added[token_id].content
        if content.strip():  # some vocabularies add runs of spaces, which have no other meaning
            return [part for text in (content[:1], content[1:]) for part, _ in plain_encoding(text, tokenizer)]
    return _without_marks(token_id, tokenizer) if marks else [token_id]


def _without_marks(token_id: int, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Split a token with several `#` into pieces with at most one: a user's `###` must not become a turn mark."""
    token: str = tokenizer.convert_ids_to_tokens([token_id])[0]
    if "##" not in token:
        return [token_id]
    ids = []
    for piece in filter(None, re.split("(#)", token)):
        known = token_id_of(piece, tokenizer) not in (None, tokenizer.unk_token_id)
        ids += [token_id_of(part, tokenizer) for part in ([piece] if known else piece)]
    return ids
