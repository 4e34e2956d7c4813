"""GPT4RoI in a notebook: point at parts of an image and talk with a model about them.

Importing this is quick. What is heavy (the model, and transformers' Auto classes, with which it is registered) comes
with the first of these names that is used.
"""

from typing import TYPE_CHECKING

from gpt4roi_nb.lazy import lazily

if TYPE_CHECKING:
    from gpt4roi_nb.bundle import GPT4RoI
    from gpt4roi_nb.config import GPT4RoIConfig
    from gpt4roi_nb.conversation import Answer, Region, Turn
    from gpt4roi_nb.draw import draw_regions
    from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
    from gpt4roi_nb.processor import GPT4RoIProcessor
    from gpt4roi_nb.session import RegionSession

__all__ = [
    "Answer",
    "GPT4RoI",
    "GPT4RoIConfig",
    "GPT4RoIForConditionalGeneration",
    "GPT4RoIProcessor",
    "Region",
    "RegionSession",
    "Turn",
    "draw_regions",
]

# All of the model comes first, so that the Auto classes know it whichever name came first.
__getattr__, __dir__ = lazily(
    __name__,
    {
        "Answer": "conversation",
        "GPT4RoI": "bundle",
        "GPT4RoIConfig": "config",
        "GPT4RoIForConditionalGeneration": "model",
        "GPT4RoIProcessor": "processor",
        "Region": "conversation",
        "RegionSession": "session",
        "Turn": "conversation",
        "draw_regions": "draw",
    },
    first="bundle",
)
