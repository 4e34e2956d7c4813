"""Questions without an answer in this world, questions about images that are not of it, and the replies to them."""

from __future__ import annotations

import numpy as np

from gpt4roi_nb.data.scenes import unknown_wordings
from gpt4roi_nb.data.scenes.question_kinds import Draft, pick

DO_NOT_KNOW = "I do not know; the image does not tell"
ONLY_THE_TABLE = "I can only talk about the things on the table"
NOT_MY_SCENE = "this does not look like one of my scenes"
UNKNOWN, OUT_OF_DOMAIN = "unknown", "stranger"  # targets of such questions, and names of their kinds

REGION_SHARE = 0.5  # of the questions without an answer that are about regions
CHAT_SHARE = 0.2  # of the other ones that are about nothing in the image


def regions_of(text: str) -> int:
    """Return how many regions a wording of `unknown_wordings` names."""
    return ("{a}" in text) + ("{b}" in text)


def draw_unknown(rng: np.random.Generator, held_out: bool, most_regions: int = 2) -> tuple[str, str]:
    """Draw (wording, reply) of a question without an answer; each group is as likely. most_regions: that it names."""
    groups, answer = unknown_wordings.IMAGE, DO_NOT_KNOW
    if most_regions and rng.random() < REGION_SHARE:
        groups = unknown_wordings.REGION
    elif rng.random() < CHAT_SHARE:
        groups, answer = unknown_wordings.CHAT, ONLY_THE_TABLE
    table = groups[pick(rng, sorted(groups))].of(held_out)
    return pick(rng, [text for text in table if regions_of(text) <= most_regions]), answer


def unknown(rng: np.random.Generator, held_out: bool, mentions: tuple[str, ...]) -> Draft:
    """Ask a question that this world has no answer to. mentions: names of the regions that it may use."""
    text, answer = draw_unknown(rng, held_out, len(mentions))
    return Draft(text.format(**dict(zip("ab", mentions, strict=False))), answer, UNKNOWN)
