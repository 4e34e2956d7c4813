"""provisional"""
from dataclasses import dataclass
@dataclass(frozen=True)
class Sink:
    position: int
    span: str
    token: str
    activation: float
    attention: float
    elsewhere: float
@dataclass(frozen=True)
class Sinks:
    sinks: list[Sink]
    thresholds: dict[str, float]
def find_sinks(replay, spans, prompt_tokens):
    return Sinks([], {})
