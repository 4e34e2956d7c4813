"""A conversation to token ids and label mask: the `<regionN>` grammar and the fixed strings of GPT4RoI's prompt.

Knows nothing of pixels. The same builder serves training, evaluation and the session. Text from a user is encoded as
plain text: whatever it says, it never becomes a special token or the mark of a turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from gpt4roi_nb.tokenizer import IMAGE_END_TOKEN, IMAGE_START_TOKEN, IMAGE_TOKEN, REGION_TOKEN

IGNORE = -100
REFERENCE = re.compile(r"<region(\d+)>")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # as a browser sends when an emoji is cut in two

# Fixed strings that a released checkpoint depends on (GPT4RoI, commit 00273ad; golden/prompts.json).
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

    input_ids: the ids, with one `<im_patch>` a patch and one `<bbox>` a region.
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
    """Text between two special tokens, with what each stretch of it is: (start, end, span, learnt, from a user)."""

    text: str = ""
    stretches: list[tuple[int, int, str, bool, bool]] = field(default_factory=list)

    def add(self, text: str, span: str, learnt: bool = False, user: bool = False) -> None:
        self.stretches.append((len(self.text), len(self.text) + len(text), span, learnt, user))
        self.text += text


def references(text: str) -> list[int]:
    """Numbers of the regions that a text names as `<regionN>`, in order, each once."""
    return list(dict.fromkeys(int(number) for number in REFERENCE.findall(text)))


def check_turns(turns: Turns) -> None:
    """Raises ValueError unless user and assistant take turns, the user first, and nothing is empty."""
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
        if _HALF_CHARACTER.search(text):
            raise ValueError(f"the text of turn {index} is not valid text: it holds a lone surrogate, half a character")
        if role == "user" and not text.strip():
            raise ValueError(f"the question of turn {index} is empty; write what you want to know")


def build_prompt(
    turns: Turns,
    tokenizer: PreTrainedTokenizerBase,
    num_image_tokens: int,
    *,
    closing: str = f"{TURN_MARK} ",
    system: str = SYSTEM,
) -> Prompt:
    """The prompt of a conversation about one image.

    The first mention `<regionN>` in a user's turns becomes `regionN <bbox>`, every later one `regionN`.

    Args:
        turns: ("user" or "assistant", text) in turn, the user first.
        tokenizer: a fast tokenizer with GPT4RoI's tokens.
        num_image_tokens: patches of the image.
        closing: what ends the prompt when the user has spoken last; the model writes on from there.
        system: the sentence in front.
    """
    check_turns(turns)
    parts: list[_Run | tuple[str, str]] = [_Run()]  # runs of text and (special token, span) between them
    seen: list[int] = []

    def run() -> _Run:
        if not isinstance(parts[-1], _Run):
            parts.append(_Run())
        return parts[-1]  # type: ignore[return-value]

    run().add(f"{system}\n\n" if system else "", "system")
    for index, (role, text) in enumerate(turns):
        turn = index // 2 + 1
        answering = role == "assistant"
        span = f"{'answer' if answering else 'question'}{turn}"
        run().add(TURN_MARK, "marks", learnt=index > 0 and not answering)  # the mark that stops the answer before
        run().add(f" {ROLES[role]}: ", "marks", learnt=answering)
        if index == 0:
            run().add(BEFORE_IMAGE, "system")
            parts.append((IMAGE_START_TOKEN, "system"))
            parts.extend([(IMAGE_TOKEN, "image")] * num_image_tokens)
            parts.append((IMAGE_END_TOKEN, "system"))
            run().add(AFTER_IMAGE, "system")
        position = 0
        text = text.strip()
        for reference in REFERENCE.finditer(text):
            number = int(reference.group(1))
            run().add(text[position : reference.start()], span, learnt=answering, user=True)
            run().add(f"region{number}", span, learnt=answering)
            if not answering and number not in seen:
                seen.append(number)
                run().add(" ", span)
                parts.append((REGION_TOKEN, f"region{number}"))
            position = reference.end()
        run().add(text[position:], span, learnt=answering, user=True)
        run().add("\n", "marks", learnt=answering)
    if turns[-1][0] == "assistant":
        run().add(TURN_MARK, "marks", learnt=True)
        run().add(" ", "marks")
    else:
        run().add(closing, "marks")
    return _encode(parts, tokenizer, tuple(seen))


def _encode(
    parts: list[_Run | tuple[str, str]], tokenizer: PreTrainedTokenizerBase, regions: tuple[int, ...]
) -> Prompt:
    input_ids: list[int] = []
    labels: list[int] = []
    spans: dict[str, list[int]] = {}

    def append(ids: Iterable[int], span: str, learnt: bool = False) -> None:
        for token_id in ids:
            spans.setdefault(span, []).append(len(input_ids))
            input_ids.append(token_id)
            labels.append(token_id if learnt else IGNORE)

    if tokenizer.bos_token_id is not None:
        append([tokenizer.bos_token_id], "system")
    for index, part in enumerate(parts):
        if isinstance(part, tuple):
            append([token_id_of(part[0], tokenizer)], part[1])
            continue
        # White space that touches a special token is dropped, that at the ends of the whole prompt is kept.
        start = len(part.text) - len(part.text.lstrip()) if index > 0 else 0
        end = len(part.text.rstrip()) if index < len(parts) - 1 else len(part.text)
        if start >= end:
            continue
        encoded = plain_encoding(part.text[start:end], tokenizer)
        stretches = iter(part.stretches)
        stretch = next(stretches)
        for token_id, (token_start, token_end) in encoded:
            # A token belongs where its last character does: "▁Human" begins with the space before it.
            place = max(token_start, token_end - 1) + start
            while place >= stretch[1]:
                stretch = next(stretches)
            _, _, span, learnt, user = stretch
            ids = _without_marks(token_id, tokenizer) if user else [token_id]
            append(ids, span, learnt)
    return Prompt(input_ids, labels, regions, spans)


def plain_encoding(text: str, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, tuple[int, int]]]:
    """(id, (start, end) in characters) of each token of a text in which nothing is a special token."""
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
        verbose=False,  # the length is checked where the model's context is known
    )
    return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))


def token_id_of(token: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of one token."""
    return tokenizer.convert_tokens_to_ids([token])[0]  # type: ignore[index]


def _without_marks(token_id: int, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """A token that holds several `#` in pieces with one at most: a user's `###` reads the same and is no turn mark."""
    token: str = tokenizer.convert_ids_to_tokens([token_id])[0]
    if "##" not in token:
        return [token_id]
    ids = []
    for piece in filter(None, re.split("(#)", token)):
        known = token_id_of(piece, tokenizer) not in (None, tokenizer.unk_token_id)
        ids += [token_id_of(part, tokenizer) for part in ([piece] if known else piece)]
    return ids
