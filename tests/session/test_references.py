"""References as people write them: the same rule for Python, the command line and the chat."""

from __future__ import annotations

import pytest
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb.session.references import read_references

BOX = (3, 4, 30, 40)


@pytest.mark.parametrize(
    ("text", "known", "read"),
    [
        ("What is <Region1>?", 0, "What is <region1>?"),
        ("What is <region 1>?", 0, "What is <region1>?"),
        ("What is < REGION_12 >?", 3, "What is <region12>?"),
        ("What is Region 1?", 0, "What is <region1>?"),
        ("What is region1?", 0, "What is <region1>?"),
        ("Is region 1 left of region 2?", 1, "Is region 1 left of <region2>?"),
        ("Is <Region 1> left of region 2?", 2, "Is <region1> left of region 2?"),
        ("Are regions 1 and 2 alike?", 0, "Are <region1> and <region2> alike?"),
        ("Are regions 1, 2, or 3 red?", 2, "Are region 1, region 2, or <region3> red?"),
        ("[region 1] and region no. 2", 0, "<region1> and <region2>"),
        ("In regions 3 balls and 2 cups", 0, "In regions 3 balls and 2 cups"),
        ("a regional 5, region 0, <regions> and regions", 0, "a regional 5, region 0, <regions> and regions"),
    ],
)
def test_what_plainly_means_a_region_is_read_as_one(text: str, known: int, read: str) -> None:
    assert read_references(text, known) == read
    assert read_references(read, known) == read


def test_a_session_takes_every_spelling_and_refuses_a_region_that_is_not_there() -> None:
    session = tiny_gpt4roi().session(tiny_image())
    for text in ("What is region 1?", "What is region 1 made of?", "<region 1>?"):
        with pytest.raises(ValueError, match="names <region1>, but there is no box for it"):
            session.ask(text, max_new_tokens=2)
    answers = []
    for text in ("What is <region1>?", "What is <Region 1>?", "What is Region 1?"):
        answers.append(session.ask(text, [BOX], max_new_tokens=4).token_ids)
        assert session.history[-1].question == "What is <region1>?"
        session.reset()
    assert answers[0] == answers[1] == answers[2]
    (described,) = session.describe([BOX], "What is region 1?", max_new_tokens=4, progress=False)
    assert described.token_ids == answers[0]
