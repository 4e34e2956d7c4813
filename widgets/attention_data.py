"""An answer's attention as the numbers that an `AttentionInspector` sends to the browser: no widget, no browser.

The first two axes of all arrays here are layers and heads, with their mean in front: index 0 is the mean, index i is
the i-th of `Attention.layers` or `Attention.heads`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4roi_nb.capture import Attention
from gpt4roi_nb.draw import region_color
from gpt4roi_nb.widgets.display_image import display_image
from gpt4roi_nb.widgets.wire import float32_bytes, region_rows

Floats = NDArray[np.float32]

METHODS = ("raw", "relevancy", "rollout")
# Up to this size, all maps go to the browser when an inspector opens; above it, only the means, the rest on demand.
EAGER_BYTES = 8 * 2**20
ANSWER_SO_FAR = "answer so far"
# Regions have the colours of the palette; the other parts of a prompt can also be told apart by their labels.
SPAN_COLORS = {
    "image": "#12a594",
    "question": "#7d8597",
    ANSWER_SO_FAR: "#a5adba",
    "earlier turns": "#5c677d",
    "system": "#9aa0a6",
    "first token": "#b08968",
    "marks": "#c0c5ce",
}
_OTHER_SPAN = "#9aa0a6"


@dataclass(frozen=True)
class Maps:
    """Maps of some answer tokens, and the share of each part of the prompt.

    Attributes:
        maps: (tokens, grid, columns).
        mass: (tokens, spans), the share of each part.
        on_sinks: (tokens, spans), how much of that share is on sinks.
        totals: (tokens,), the sums that the shares refer to.
    """

    maps: Floats
    mass: Floats
    on_sinks: Floats
    totals: Floats

    def token(self, index: int) -> Maps:
        """Only the token with this index; the arrays keep their axes."""
        place = slice(index, index + 1)
        return Maps(self.maps[place], self.mass[place], self.on_sinks[place], self.totals[place])


class AttentionData:
    """The content of one `Attention` for the browser.

    Attributes:
        attention: the source.
        spans: names of the parts of the prompt in their order, then "answer so far".
        methods: those of METHODS that the attention has.
        sinks: [{"position", "span", "token", "cell": index in the flattened grid, or -1 outside the image}]; none where
            they are not known.
    """

    def __init__(self, attention: Attention) -> None:
        self.attention = attention
        attention.check_map()
        self.spans = [*attention.spans, ANSWER_SO_FAR]
        self.methods = METHODS[:1] if attention.only else METHODS
        image = list(attention.spans["image"])
        self._image = np.asarray(image)
        self.sinks: list[dict[str, Any]] = [
            {
                "position": sink.position,
                "span": sink.span,
                "token": sink.token,
                "cell": image.index(sink.position) if sink.position in image else -1,
            }
            for sink in ([] if attention.only else attention.sinks())
        ]
        count = len(attention.prompt_tokens)
        self._member = np.zeros((count, len(self.spans)), np.float32)  # which span each position belongs to
        for index, positions in enumerate(attention.spans.values()):
            self._member[list(positions), index] = 1
        is_sink = np.zeros((count, 1), np.float32)
        is_sink[[sink["position"] for sink in self.sinks]] = 1
        self._sink_member = self._member * is_sink

    def masses(self) -> tuple[Floats, Floats]:
        """Two (layers + 1, heads + 1, tokens, spans): shares of the attention, and how much of them is on sinks."""
        weights = _numpy(self.attention.weights)
        mass = weights @ self._member
        mass[..., -1] += _numpy(self.attention.to_answer).sum(-1)
        return _with_means(mass), _with_means(weights @ self._sink_member)

    def peaks(self) -> Floats:
        """(layers + 1, heads + 1, tokens, 2): the largest cell of each map, and the largest that is not a sink."""
        hidden = [sink["cell"] for sink in self.sinks if sink["cell"] >= 0]
        rows = []
        for layer in (None, *self.attention.layers):
            cells = self._cells(self._layer(layer))  # (heads + 1, tokens, cells)
            plain = cells.copy()
            plain[..., hidden] = 0
            rows.append(np.stack([cells.max(-1), plain.max(-1)], axis=-1))
        return np.stack(rows)

    def _layer(self, layer: int | None) -> Floats:
        """(heads + 1, tokens, prompt tokens) of a layer, or of the layers' mean for None; the heads' mean in front."""
        weights = self.attention.weights
        chosen = weights.float().mean(0) if layer is None else weights[self.attention.layers.index(layer)]
        heads = _numpy(chosen)
        return np.concatenate([heads.mean(0, keepdims=True), heads])

    def _cells(self, rows: Floats) -> Floats:
        """(…, prompt tokens) → (…, cells) of the map, row by row."""
        places = self.attention.places
        return rows[..., self._image] if places is None else rows[..., self._image] @ _numpy(places).T

    def raw(self, layer: int | None, head: int | None) -> Floats:
        """(tokens, grid, columns) of one layer and head, given by their numbers in the model; None is the mean."""
        count = len(self.attention.tokens)
        return np.stack([_numpy(self.attention.to_image(token, layer, head)) for token in range(count)])

    def one(self, token: int, layer: int | None, head: int | None) -> Maps:
        """The attention of one token, in one layer and head; None is the mean."""
        row = _numpy(self.attention.row(token, layer, head))[None]
        return self._with_answer(row)

    def rollout(self) -> Maps:
        """Attention rolled out through all layers, for every token. What a row lacks to 1 went to the answer so far."""
        return self._with_answer(_numpy(self.attention.rollout()))

    def _with_answer(self, rows: Floats) -> Maps:
        maps = self._maps(rows, np.ones(len(rows), np.float32))
        maps.mass[:, -1] += np.clip(1 - rows.sum(-1), 0, 1)
        return maps

    def relevancy(self, token: int) -> Maps:
        """Gradient-weighted relevancy for one token, as shares of its sum."""
        row = _numpy(self.attention.relevancy(token))[None]
        return self._maps(row, row.sum(-1))

    def _maps(self, rows: Floats, totals: Floats) -> Maps:
        """Divide rows, (tokens, prompt tokens), none negative, by their totals."""
        shares: Floats = rows / np.where(totals > 0, totals, 1).astype(np.float32)[:, None]
        return Maps(
            maps=self._cells(shares).reshape(len(rows), self.attention.grid, self.attention.columns),
            mass=shares @ self._member,
            on_sinks=shares @ self._sink_member,
            totals=totals,
        )

    def payload(self) -> dict[str, Any]:
        """Everything that the browser needs at the start; arrays as float32 bytes."""
        attention = self.attention
        mass, on_sinks = self.masses()
        axes = (len(attention.layers) + 1, len(attention.heads) + 1)
        cells = len(attention.tokens) * attention.grid * attention.columns
        everything = np.prod(axes) * cells * 4 <= EAGER_BYTES
        numbers: list[tuple[int | None, int | None]] = [
            (layer, head) for layer in (None, *attention.layers) for head in (None, *attention.heads)
        ]
        sent = numbers if everything else [number for number in numbers if number[1] is None]
        return {
            "tokens": list(attention.tokens),
            "logprobs": [round(float(value), 4) for value in attention.logprobs],
            "grid": attention.grid,
            "columns": attention.columns,
            "frame": list(attention.frame or (0, 0, *attention.image_size)),
            "methods": list(self.methods),
            "layers": list(attention.layers),
            "heads": list(attention.heads),
            "spans": [{"name": name, "color": span_color(name)} for name in self.spans],
            "regions": region_rows(sorted(attention.regions.items())),
            "size": list(attention.image_size),
            "image": display_image(attention.image).data,
            "sinks": self.sinks,
            "mass": float32_bytes(mass),
            "on_sinks": float32_bytes(on_sinks),
            "peaks": float32_bytes(self.peaks()),
            "sent": [[-1 if layer is None else layer, -1 if head is None else head] for layer, head in sent],
            "maps": self._packed(sent),
        }

    def _packed(self, numbers: list[tuple[int | None, int | None]]) -> bytes:
        """The maps of these layers and heads, concatenated, as float32 bytes."""
        layers: dict[int | None, Floats] = {}
        for layer, _ in numbers:
            if layer not in layers:
                layers[layer] = self._cells(self._layer(layer))
        heads: list[int | None] = [None, *self.attention.heads]
        return b"".join(float32_bytes(layers[layer][heads.index(head)]) for layer, head in numbers)


def span_color(name: str) -> str:
    """Hex colour of a part of the prompt; a region's comes from the palette."""
    number = name.removeprefix("region")
    return region_color(int(number)) if number.isdigit() else SPAN_COLORS.get(name, _OTHER_SPAN)


def _with_means(values: Floats) -> Floats:
    """(L, H, …) → (L + 1, H + 1, …), with the means in front."""
    heads = np.concatenate([values.mean(1, keepdims=True), values], axis=1)
    return np.concatenate([heads.mean(0, keepdims=True), heads])


def _numpy(tensor: Any) -> Floats:
    return tensor.detach().float().cpu().numpy()
