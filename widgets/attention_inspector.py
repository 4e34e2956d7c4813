"""`AttentionInspector`: where an answer looks, token by token, and whether that mattered."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, cast

import numpy as np
import traitlets

from gpt4roi_nb import Answer
from gpt4roi_nb.capture import Attention
from gpt4roi_nb.capture.ablation import ABLATIONS, How
from gpt4roi_nb.session.references import readable
from gpt4roi_nb.widgets.attention_copy import KINDS, add_map
from gpt4roi_nb.widgets.attention_data import METHODS, AttentionData, Maps
from gpt4roi_nb.widgets.colormaps import SHARES, color_table
from gpt4roi_nb.widgets.errors import in_words
from gpt4roi_nb.widgets.esm import module, style
from gpt4roi_nb.widgets.static_copy import StaticCopy
from gpt4roi_nb.widgets.static_page import StaticPage
from gpt4roi_nb.widgets.wire import float32_bytes
from gpt4roi_nb.widgets.worker import Worker, WorkingView, problems_shown

MEAN = -1  # as the number of a layer or head: the mean over all of them
SCALES = ("absolute", "relative")
# Each costs a forward pass; with more regions, ablations are computed on request.
ABLATIONS_AT_OPENING = 4
# Traits on which the copy for a saved notebook depends.
_COPIED = ("token", "second", "compare", "layer", "head", "method", "hide_sinks", "how", "ablations")


class AttentionView(WorkingView):
    """The inspector's page. It holds numbers and choices; `AttentionInspector` computes them.

    answers: one or two of `AttentionData.payload()`. colors: 256 × RGB.
    token, second: the token shown on the first and on the second side. compare: whether there are two sides.
    layer, head: numbers in the model, -1 for the mean. method: of METHODS. scale: of SCALES.
    hide_sinks: leave sinks out of maps and shares. span: the part of the prompt that the matrix shows.
    how: of ABLATIONS. ablations: [{"side", "how", "region", "change" and "verdicts": one per token, "generated":
    whether the model was asked for its answer to it, "said", "problem"}]. busy, problem: texts, "" for none.

    Messages from the browser: {"type": "map", "side", "method", "layer", "head", "token"},
    {"type": "ablate", "side", "how"}. The reply to the first is the same with "spans", "on_sinks" and "total" for each
    token, and the maps as a float32 buffer (tokens, grid, columns); or {"type": "failed", …, "problem"}.
    """

    _esm = module("map_canvas.js", "attention_parts.js", "attention_inspector.js")
    _css = style("attention_inspector.css")

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
    """Where an answer looks. Show it as the last line of a cell, and hover over the answer's tokens.

    Each map comes with its share of the whole attention, the sinks, and the ablation that tests it. Of a
    `PromptedModel` whose `capabilities` have `attention_map`, only raw attention is shown, tested by removing and
    blurring a region. The attention is recorded immediately; the tests are computed in the background, and shown when
    they are ready. A saved notebook contains what was shown last as HTML, readable without a kernel.

    Args:
        answer: an `Answer`, or an `Attention`, for example from a file, which cannot be tested by ablation.
        other: a second one, to compare with the first side by side.
        token: index of the token to begin with; negative counts from the end. None takes the token that loses most
            in the ablation of a region.

    Raises:
        RuntimeError: the answer was loaded from a file, or the model has been unloaded.
        TypeError: it is neither an `Answer` nor an `Attention`.
        ValueError: the answer has no tokens, or it is not known where the image's tokens of its model lie in the image.
        IndexError: there is no such token.

    Example:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> from gpt4roi_nb.widgets import AttentionInspector
        >>> scene = make_scene(5)
        >>> session = GPT4RoI.from_pretrained().session(scene.image)
        >>> answer = session.ask("What colour is <region1>?", [scene.objects[0].box], max_new_tokens=3)
        >>> inspector = AttentionInspector(answer)  # as the last line of a cell: the view
        >>> inspector.show(-1, method="rollout", span="region1")
        >>> inspector.view.method, inspector.view.span
        ('rollout', 'region1')
        >>> inspector.close()
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
            hows=[how for how in ABLATIONS if all(how in _ablations(source) for source in self._sources)],
        )
        self._methods = [method for method in METHODS if all(method in data.methods for data in self._data)]
        self.view.span = "region1" if "region1" in self._data[0].spans else "image"
        self._worker = Worker(self.view)
        self._copy = StaticCopy("gpt4roi-attention", self._to_read)
        self._computed: dict[tuple[int, str, int], Maps] = {}  # maps that were computed, by side, method and token
        self._undecided: set[str] = set()  # the sides whose token nobody has chosen yet
        self.show(token or 0)
        for side in range(len(self._sources)):
            if len(self.attentions[side].regions) <= ABLATIONS_AT_OPENING:
                self._ablate(side, ABLATIONS[0], generate=False)
        self._undecided |= {"second"} if token is not None else {"token", "second"}
        self.view.observe(lambda change: self._undecided.discard(change["name"]), ["token", "second"])
        self._worker.submit("", lambda: None, lambda _: self._decide())
        self.view.on_msg(self._on_message)
        self.view.observe(lambda change: self._copy_soon(), _COPIED)

    def _ipython_display_(self) -> None:
        self._copy.show(self.view, "An AttentionInspector")

    @property
    def attentions(self) -> list[Attention]:
        """The attentions that are shown, one or two."""
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
        """Choose what is shown, as clicks do. Arguments that are not given stay; layer and head return to the mean.

        Args:
            token: index of an answer token; negative counts from the end.
            second: index of the token to compare it with.
            layer, head: their numbers in the model; None or -1 for the mean.
            method: "raw", "relevancy" or "rollout".
            scale: "absolute" or "relative".
            hide_sinks: leave sinks out of maps and shares.
            span: the part of the prompt that the layer × head matrix shows.

        Raises:
            IndexError: there is no such token; nothing has changed then.
            ValueError: there is no such layer, head, method, scale or span; nothing has changed then.
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
        for name, value, allowed in (("method", method, self._methods), ("scale", scale, SCALES)):
            if value is not None and value not in allowed:
                raise ValueError(f"expected {name} to be one of {', '.join(allowed)}, but got {value!r}")
        given = {"method": method, "scale": scale, "hide_sinks": hide_sinks, "span": span}
        changes |= {name: value for name, value in given.items() if value is not None}
        with self._worker.lock, self.view.hold_sync():
            self._undecided -= changes.keys()
            for name, value in changes.items():
                setattr(self.view, name, value)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the (first) attention, with everything needed to show it again, as `Attention.save` does."""
        self.attentions[0].save(path)

    def close(self) -> None:
        """Remove the inspector from the page; results of running computations are discarded."""
        self._copy.close()
        self._worker.close()
        self.view.close()

    # -------------------------------------------------------------------------------------- from the browser

    def _on_message(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        kind = content.get("type")
        self.view.problem = ""
        with problems_shown(self.view):
            if kind == "map":
                self._send_map(content)
            elif kind == "ablate":
                side, how = int(content["side"]), str(content["how"])
                for other in {*ABLATIONS} - {how}:
                    self._worker.drop(_topic(side, other))
                self._ablate(side, how, generate=True, topic=_topic(side, how))

    def _send_map(self, wanted: dict[str, Any]) -> None:
        """Answer a request for maps that the browser does not have."""
        data = self._data[int(wanted["side"])]
        if wanted["method"] == "raw":  # recorded already, so it need not wait for running computations
            layer, head = (None if wanted[axis] == MEAN else int(wanted[axis]) for axis in ("layer", "head"))
            self.view.send(wanted, [float32_bytes(data.raw(layer, head))])
            return
        rollout = wanted["method"] == "rollout"
        self._worker.submit(
            f"Computing the {wanted['method']}…",
            data.rollout if rollout else partial(data.relevancy, int(wanted["token"])),
            lambda maps: self._keep_maps(wanted, maps),
            failed=lambda error: self.view.send({**wanted, "type": "failed", "problem": in_words(error)}),
        )

    def _keep_maps(self, wanted: dict[str, Any], maps: Maps) -> None:
        """Send maps to the browser, and keep them for the copy."""
        self.view.send({**wanted, **_shares(maps)}, [float32_bytes(maps.maps)])
        for place in range(len(maps.maps)):
            token = place if wanted["method"] == "rollout" else int(wanted["token"])
            self._computed[int(wanted["side"]), wanted["method"], token] = maps.token(place)
        self._copy_soon()

    def _ablate(self, side: int, how: str, *, generate: bool, topic: str = "") -> None:
        """Test every region of an answer, unless that was done before. generate: also get the model's new answer."""
        source = self._sources[side]
        for region in sorted(self.attentions[side].regions):
            key = (side, how, region)
            if isinstance(source, Attention):
                problem = "An Attention by itself cannot be tested; open the Answer instead."
                self._keep(_test(key, problem=problem))
                continue
            self._worker.submit(
                f"Testing region {region} ({how.replace('_', ' ')})…",
                partial(self._tested, source, key, generate),
                self._keep,
                failed=partial(self._keep_failure, key),
                topic=topic,
            )

    def _tested(self, source: Answer, key: tuple[int, str, int], generate: bool) -> dict[str, Any] | None:
        """One ablation in numbers and words; None if it was made before."""
        if self._tests().get(key, {}).get("generated"):
            return None
        side, how, region = key
        source.check_weights(self.attentions[side])  # else the test would be of another model than the map
        ablation = source.ablate(region=region, how=cast(How, how), generate=generate)
        return _test(
            key,
            change=[round(float(value), 4) for value in ablation.change],
            verdicts=[ablation.verdict(token) for token in range(len(ablation.tokens))],
            generated=generate,
            said=readable(ablation.answer or ""),
        )

    def _tests(self) -> dict[tuple[int, str, int], dict[str, Any]]:
        return {(entry["side"], entry["how"], entry["region"]): entry for entry in self.view.ablations}

    def _keep(self, test: dict[str, Any] | None) -> None:
        if test is not None:
            with self._worker.lock:
                key = (test["side"], test["how"], test["region"])
                self.view.ablations = list({**self._tests(), key: test}.values())

    def _keep_failure(self, key: tuple[int, str, int], error: Exception) -> None:
        """Show the reason beside the map, which stays usable."""
        self._keep(_test(key, problem=in_words(error)))

    # --------------------------------------------------------------------------------------- a saved notebook

    def _copy_soon(self) -> None:
        view = self.view
        state = [getattr(view, name) for name in _COPIED if name != "ablations"]
        tests = [(entry["side"], entry["how"], entry["region"], entry["generated"]) for entry in view.ablations]
        self._copy.changed((*state, *tests, len(self._computed)))

    def _to_read(self) -> tuple[str, str]:
        """What is shown now, as HTML and as text; plain attention if the chosen map has not been computed."""
        view, page = self.view, StaticPage()
        layer, head = (None if number == MEAN else number for number in (view.layer, view.head))
        numbers = {"layer": layer, "head": head}.items()
        axes = [f"mean of the {name}s" if number is None else f"{name} {number}" for name, number in numbers]
        attention = f"Attention, {', '.join(axes)}"
        for token, side in ((view.token, 0), (view.second, len(self._data) - 1))[: 1 + view.compare]:
            maps = self._computed.get((side, view.method, token)) if view.method != METHODS[0] else None
            add_map(
                page,
                self._data[side],
                token,
                self._data[side].one(token, layer, head) if maps is None else maps,
                kind=attention if maps is None else KINDS[view.method],
                hide_sinks=view.hide_sinks,
                tests=[entry for entry in view.ablations if (entry["side"], entry["how"]) == (side, view.how)],
            )
        return page.both()

    def _decide(self) -> None:
        """Show the tokens that lose most without one of the regions, on sides where nobody chose one."""
        for name, side in (("token", 0), ("second", len(self._data) - 1)):
            if name in self._undecided:
                setattr(self.view, name, self._neediest(side))
        self._undecided = set()

    def _neediest(self, side: int) -> int:
        """The token that loses most without one of the regions; the first if that is not known."""
        changes = [entry["change"] for entry in self.view.ablations if entry["side"] == side and entry["change"]]
        return int(np.argmin(np.min(changes, axis=0))) if changes else 0


def _test(key: tuple[int, str, int], **found: Any) -> dict[str, Any]:
    """One of `AttentionView.ablations`. key: side, how, region."""
    side, how, region = key
    empty: dict[str, Any] = {"change": [], "verdicts": [], "generated": False, "said": "", "problem": ""}
    return {"side": side, "how": how, "region": region, **empty, **found}


def _topic(side: int, how: str) -> str:
    return f"{how} {side}"


def _attention(source: Answer | Attention) -> Attention:
    attention = source.attention() if isinstance(source, Answer) else source
    if not isinstance(attention, Attention):
        raise TypeError(f"expected an Answer or an Attention, but got a {type(source).__name__}")
    if not attention.tokens:
        raise ValueError("the answer has no tokens, so there is nothing to look at; ask again")
    return attention


def _ablations(source: Answer | Attention) -> tuple[How, ...]:
    return source.ablations if isinstance(source, Answer) else ABLATIONS


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
