"""Conversations about regions: `GPT4RoI` loads a model, `RegionSession` asks it about one image."""

from gpt4roi_nb.session.conversation import Answer, Region, Turn
from gpt4roi_nb.session.gpt4roi import GPT4RoI
from gpt4roi_nb.session.region_model import Question
from gpt4roi_nb.session.region_session import RegionSession

__all__ = ["Answer", "GPT4RoI", "Question", "Region", "RegionSession", "Turn"]
