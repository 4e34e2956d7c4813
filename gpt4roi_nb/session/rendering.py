"""What a GPT4RoI reads: a question in its own tokens."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.session.region_model import Rendered

_SAID = ("question", "region")  # spans of a prompt that hold what was asked


def rendered(processor: GPT4RoIProcessor, image: Image.Image, turns: Sequence[tuple[str, str]]) -> Rendered:
    """Return what a GPT4RoI reads of the last question of a conversation.

    Args:
        processor: the model's.
        image: upright RGB.
        turns: ("user" or "assistant", text) in turn, the user first and last.
    """
    prompt = processor.prompt(turns)
    begins = min(prompt.spans[f"question{len(turns) // 2 + 1}"])
    places = {place for name, several in prompt.spans.items() if name.startswith(_SAID) for place in several}
    read = [place for place in sorted(places) if place >= begins]
    told = processor.tokenizer.decode([prompt.input_ids[place] for place in read])
    # The question's last letters may share a token with the format's line break: "?\n" of the demo checkpoint.
    ending, broken, _ = processor.tokenizer.decode(prompt.input_ids[read[-1] + 1 : read[-1] + 2]).partition("\n")
    if broken and ending and turns[-1][1].rstrip().endswith(ending):
        told += ending
    return Rendered((image,), told, {"way": "region tokens", "source": "arXiv 2307.03601", "status": "its own"})
