"""`AttentionInspector`: where an answer looks, token by token, and whether that mattered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import anywidget
import numpy as np
import traitlets

from gpt4roi_nb import Answer
from gpt4roi_nb.capture import Attention
from gpt4roi_nb.capture.ablation import ABLATIONS, How
from gpt4roi_nb.widgets.attention_data import METHODS, AttentionData, Maps
from gpt4roi_nb.widgets.colormaps import SHARES, color_table
from gpt4roi_nb.widgets.errors import in_words, strip_traceback
from gpt4roi_nb.widgets.esm import module

_HERE = Path(__file__).parent
MEAN = -1  # the number of a layer or head that stands for the mean of all of them
SCALES = ("absolute", "relative")
# Each costs a pass; those of more regions are made when somebody asks for them.
ABLATIONS_AT_OPENING = 4


class AttentionView(anywidget.AnyWidget):
    """The inspector's page. Holds numbers and choices; what is computed is `AttentionInspector`'s business.

    answers: one or two of `AttentionData.payload()`. colors: 256 × RGB.
    token, second: which token is looked at on either side. compare: whether there are two sides.
    layer, head: numbers in the model, -1 for the mean. method: of METHODS. scale: of SCALES.
    hide_sinks: leave sinks out of maps and shares. span: which part of the prompt the matrix is about.
    how: of ABLATIONS. ablations: [{"side", "how", "region", "change": one a token, "verdicts": one a token, "generated":
    whether the model was asked what it says then, "said", "problem"}].

    Messages from the browser: {"type": "map", "side", "method", "layer", "head", "token"},
    {"type": "ablate", "side", "how"}. The reply to the first is the same with "spans", "on_sinks" and "total" for each
    token, and the maps as a float32 buffer (tokens, grid, grid); or {"type": "failed", …, "problem"}.
    """

    _esm = module("map_canvas.js", "attention_parts.js", "attention_inspector.js")
    _css = _HERE / "attention_inspector.css"

    answers: traitlets.List[Any] = traitlets.List().tag(sync=True)
    colors = traitlets.Bytes().tag(sync=True)
    ablations: traitlets.List[Any] = traitlets.List().tag(sync=True)
    token = traitlets.Int(0).tag(sync=True)
    second = traitlets.Int(0).tag(sync=True)
    compare = traitlets.Bool(False).tag(sync=True)
    layer = traitlets.Int(MEAN).tag(sync=True)
    head = traitlets.Int(MEAN).tag(sync=True)
    method = traitlets.Enum(METHODS, METHODS[0]).tag(sync=True)
    scale = traitlets.Enum(SCALES, SCALES[0]).tag(sync=True)
    hide_sinks = traitlets.Bool(False).tag(sync=True)
    span = traitlets.Unicode("image").tag(sync=True)
    how = traitlets.Enum(ABLATIONS, ABLATIONS[0]).tag(sync=True)
    hows = traitlets.List(list(ABLATIONS)).tag(sync=True)


class AttentionInspector:
    """Where an answer looks. Show it as the last line of a cell; hover over the answer's tokens.

    A map is never alone: beside it stand its share of the whole attention, the sinks, and the ablation that tests it.

    Args:
        answer: an `Answer`, or an `Attention` (which may come from a file; nothing can be ablated then).
        other: a second one, to be compared with the first side by side.
        token: index of the token to begin with; negative counts from the end. None takes the one that needs a region
            most, by the ablation.

    Raises:
        RuntimeError: for an answer that was loaded from a file, or when the model has been unloaded.
        ValueError: for an answer without tokens.
    """

    def __init__(
        self, answer: Answer | Attention, other: Answer | Attention | None = None, *, token: int | None = None
    ) -> None:
        self._sources = [answer] if other is None else [answer, other]
        self._data = [AttentionData(_attention(source)) for source in self._sources]
        self.view = AttentionView(
            answers=[data.payload() for data in self._data],
            colors=color_table(SHARES),
            compare=other is not None,
        )
        self.view.span = "region1" if "region1" in self._data[0].spans else "image"
        for side in range(len(self._sources)):
            if len(self.attentions[side].regions) <= ABLATIONS_AT_OPENING:
                self._ablate(side, ABLATIONS[0], generate=False)
        self.show(self._neediest(0) if token is None else token)
        self.view.second = self._neediest(len(self._data) - 1)
        self.view.on_msg(self._told)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.view._repr_mimebundle_(**kwargs)

    @property
    def attentions(self) -> list[Attention]:
        """What is shown: one, or two."""
        return [data.attention for data in self._data]

    def show(
        self,
        token: int | None = None,
        second: int | None = None,
        *,
        layer: int | None = MEAN,
        head: int | None = MEAN,
        method: str | None = None,
        scale: str | None = None,
        hide_sinks: bool | None = None,
        span: str | None = None,
    ) -> None:
        """Chooses what is looked at, as clicks do; what is not given stays, but layer and head return to the mean.

        Args:
            token: index of an answer token; negative counts from the end. second: the one to compare it with.
            layer, head: their numbers in the model; None or -1 for the mean.
            method: "raw", "relevancy" or "rollout". scale: "absolute" or "relative".
            span: the part of the prompt that the layer × head matrix is about.

        Raises:
            IndexError, ValueError: for what there is not; nothing has changed then.
        """
        last = self.attentions[-1]
        changes: dict[str, Any] = {
            "layer": _number(layer, self.attentions[0].layers, "layer"),
            "head": _number(head, self.attentions[0].heads, "head"),
        }
        if token is not None:
            changes["token"] = _token(token, self.attentions[0])
        if second is not None:
            changes |= {"second": _token(second, last), "compare": True}
        if span is not None and span not in self._data[0].spans:
            raise ValueError(f"there is no span {span!r}; there are {', '.join(self._data[0].spans)}")
        for name, value, allowed in (("method", method, METHODS), ("scale", scale, SCALES)):
            if value is not None and value not in allowed:
                raise ValueError(f"expected {name} to be one of {', '.join(allowed)}, but got {value!r}")
        given = {"method": method, "scale": scale, "hide_sinks": hide_sinks, "span": span}
        changes |= {name: value for name, value in given.items() if value is not None}
        with self.view.hold_sync():
            for name, value in changes.items():
                setattr(self.view, name, value)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the (first) attention with all that is needed to show it again: `Attention.save`."""
        self.attentions[0].save(path)

    def close(self) -> None:
        """Takes the inspector off the page."""
        self.view.close()

    # -------------------------------------------------------------------------------------- from the browser

    def _told(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        kind = content.get("type")
        if kind == "map":
            self._send_map(content)
        elif kind == "ablate":
            self._ablate(int(content["side"]), str(content["how"]), generate=True)

    def _send_map(self, wanted: dict[str, Any]) -> None:
        """Answers a request for maps that the browser does not have."""
        data = self._data[int(wanted["side"])]
        try:
            if wanted["method"] == "raw":
                layer, head = (None if wanted[axis] == MEAN else int(wanted[axis]) for axis in ("layer", "head"))
                self.view.send(wanted, [_bytes(data.raw(layer, head))])
                return
            maps = data.rollout() if wanted["method"] == "rollout" else data.relevancy(int(wanted["token"]))
        except Exception as error:  # noqa: BLE001  # nobody else would see what a click led to
            self.view.send({**wanted, "type": "failed", "problem": in_words(error)})
            strip_traceback(error)
            return
        self.view.send({**wanted, **_shares(maps)}, [_bytes(maps.maps)])

    def _ablate(self, side: int, how: str, *, generate: bool) -> None:
        """Tests every region of an answer, unless that was done before. generate: with what the model says then."""
        known = {(entry["side"], entry["how"], entry["region"]): entry for entry in self.view.ablations}
        for region in sorted(self.attentions[side].regions):
            key = (side, how, region)
            if key not in known or not known[key]["generated"]:
                tested = self._tested(side, how, region, generate)
                known[key] = {"side": side, "how": how, "region": region, **tested}
        self.view.ablations = list(known.values())

    def _neediest(self, side: int) -> int:
        """The token that loses most without one of the regions; the first where that is not known."""
        changes = [entry["change"] for entry in self.view.ablations if entry["side"] == side and entry["change"]]
        return int(np.argmin(np.min(changes, axis=0))) if changes else 0

    def _tested(self, side: int, how: str, region: int, generate: bool) -> dict[str, Any]:
        """One ablation in numbers and words, or why there is none."""
        empty: dict[str, Any] = {"change": [], "verdicts": [], "generated": False, "said": "", "problem": ""}
        source = self._sources[side]
        if isinstance(source, Attention):
            return {**empty, "problem": "Nothing can be tested on an attention by itself; open the answer instead."}
        try:
            ablation = source.ablate(region=region, how=cast(How, how), generate=generate)
        except Exception as error:  # noqa: BLE001  # a map can still be looked at; the reason stands beside it
            problem = in_words(error)
            strip_traceback(error)
            return {**empty, "problem": problem}
        return {
            **empty,
            "change": [round(float(value), 4) for value in ablation.change],
            "verdicts": [ablation.verdict(token) for token in range(len(ablation.tokens))],
            "generated": generate,
            "said": ablation.answer if generate else "",
        }


def _attention(source: Answer | Attention) -> Attention:
    attention = source.attention() if isinstance(source, Answer) else source
    if not isinstance(attention, Attention):
        raise TypeError(f"expected an Answer or an Attention, but a {type(source).__name__} came")
    if not attention.tokens:
        raise ValueError("the answer has no tokens, so there is nothing to look at; ask again")
    return attention


def _token(token: int, attention: Attention) -> int:
    count = len(attention.tokens)
    if not -count <= token < count:
        raise IndexError(f"there is no token {token}; the answer has {count}, numbered from 0")
    return token % count


def _number(number: int | None, known: list[int], what: str) -> int:
    if number is None or number == MEAN:
        return MEAN
    if number not in known:
        raise ValueError(f"there is no {what} {number} in this attention; there are {', '.join(map(str, known))}")
    return number


def _shares(maps: Maps) -> dict[str, Any]:
    return {
        "spans": maps.mass.tolist(),
        "on_sinks": maps.on_sinks.tolist(),
        "total": maps.totals.tolist(),
    }


def _bytes(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values, dtype="<f4").tobytes()
