from .families import FAMILIES as FAMILIES
from .load import load_model as load_model
from .prompted_model import PromptedModel as PromptedModel
from .prompted_session import PromptedSession as PromptedSession
from .ways import WAYS as WAYS
from .ways.conventions import CONVENTIONS as CONVENTIONS
from .ways.conventions import Convention as Convention
from .without_weights import render_without_weights as render_without_weights
