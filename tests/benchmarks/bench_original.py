"""The region encoder beside the same arithmetic written plainly, at the original's real sizes with random weights.

`plain` does what the original does for every question: each convolution at each level's own size, for the image and
its boxes alike. All run in one process, in turn; the ratios are of processor time, since a busy machine stretches the
wall's. Before anything is timed, both must give the same vector. bfloat16 is measured where the processor computes in
it, or with `bfloat16` on the command line:

    .venv/bin/python tests/benchmarks/bench_original.py [float32] [bfloat16]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from bench_real_sizes import has_bf16
from timing import Seconds, measured, quotient
from torch import Tensor
from torchvision.ops import roi_align

from gpt4roi_nb import GPT4RoIConfig
from gpt4roi_nb.roi import RegionEncoder, layout_for

REPEATS = 3
BOXES_A_REPEAT = 5  # the next box is quick
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 0.05}  # the largest difference / the largest value
BOX = [[0.1, 0.2, 0.6, 0.7]]
DEMANDS = {torch.float32: ("<= 0.8", ">= 85"), torch.bfloat16: ("<= 0.5", ">= 60")}  # the first box, the next


def grown(maps: Tensor, size: int) -> Tensor:
    return F.interpolate(maps.float(), size=(size, size), mode="bilinear", align_corners=True)


def plain(encoder: RegionEncoder, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """features: four (1, 256, 1024); boxes: (n, 4) xyxy in [0, 1] → (n, D)."""
    fusion, head = encoder.fusion, encoder.head
    maps = []
    for hidden, size, conv in zip(features, fusion.sizes, fusion.input_convs, strict=True):
        grid = grown(hidden.transpose(1, 2).reshape(1, -1, 16, 16), size)
        line = torch.linspace(-1, 1, size)
        x, y = line.expand(1, 1, size, size), line[:, None].expand(1, 1, size, size)
        maps.append(F.conv2d(torch.cat([grid, x, y], dim=1), conv.weight, conv.bias))
    for fusion_round in fusion.rounds:
        mixed = []
        for level, own in enumerate(maps):
            half, last, third = (own.shape[1] * part // 4 for part in (2, 3, 2))
            deeper, shallower = maps[min(level + 1, 3)][:, last:], maps[max(level - 1, 0)][:, third:last]
            neighbours = [grown(each, own.shape[-1]).to(own.dtype) for each in (deeper, shallower)]
            mixed.append(torch.cat([own[:, :half], *neighbours], dim=1))
        norm = fusion_round.norm
        convolved = [F.conv2d(each, fusion_round.conv.weight, padding=1) for each in mixed]
        maps = [F.relu(F.group_norm(each, 64, norm.weight, norm.bias)) for each in convolved]
    summed: Tensor | float = 0.0
    for level_maps, conv in zip(maps, head.level_convs, strict=True):
        scale = level_maps.shape[-1] / 224
        pooled = roi_align(level_maps.float(), [boxes * 224], 14, scale, sampling_ratio=2, aligned=True)
        summed = summed + F.conv2d(pooled, conv.weight, conv.bias, padding=1)
    content = head.flatten_projection(F.relu(summed).flatten(1))
    return head.output_projection(content + head.position_embedding(boxes))


@torch.inference_mode()
def compare(dtype: torch.dtype) -> Iterator[dict[str, object]]:
    torch.manual_seed(0)
    config = GPT4RoIConfig()
    original = RegionEncoder(config).eval()
    encoder = RegionEncoder(config).eval()
    encoder.load_state_dict(original.state_dict())
    encoder.to(dtype)
    boxes = torch.tensor(BOX)
    features = [torch.randn(1, config.num_image_tokens, config.vision_config.hidden_size) for _ in range(4)]
    given = [level.to(dtype) for level in features]
    kept = encoder.fusion(given)

    def as_the_original() -> Tensor:  # in half precision it keeps float32 weights and computes under autocast
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return plain(original, features, boxes)

    def first_box() -> Tensor:
        return encoder(given, [boxes])

    def next_box() -> Tensor:
        return encoder.head(kept, [boxes])

    layout = layout_for(dtype)
    mixed = [
        torch.randn(1, config.region_config.hidden_size, size, size).to(dtype, memory_format=layout)
        for size in encoder.fusion.sizes
    ]

    def bare_convolutions() -> None:
        for fusion_round in encoder.fusion.rounds[1:]:  # the first round's is computed in another way
            for each in mixed:
                F.conv2d(each, fusion_round.conv.weight, padding=1)

    apart = float((as_the_original().float() - first_box().float()).abs().max() / as_the_original().abs().max())
    if apart > CLOSE[dtype]:
        raise RuntimeError(f"the plain arithmetic gives another vector, by {apart:.2g}; nothing can be compared")
    for _ in range(2):
        next_box()

    def next_boxes() -> None:
        for _ in range(BOXES_A_REPEAT):
            next_box()

    works = {"theirs": as_the_original, "first": first_box, "next": next_boxes, "bare": bare_convolutions}
    found = measured(works, REPEATS)
    following = Seconds(*(each / BOXES_A_REPEAT for each in found["next"]))
    name = str(dtype).removeprefix("torch.")
    ratio, detail = quotient(found["first"], found["theirs"])
    what = f"the first box of an image / the original's arithmetic, {name}"
    yield {"what": what, "ratio": ratio, "demand": DEMANDS[dtype][0], "detail": f"{detail}; {apart:.1g} apart"}
    ratio, detail = quotient(found["bare"], found["theirs"])
    what = f"the later rounds' convolutions alone, which no first box can do without / the original's, {name}"
    yield {"what": what, "ratio": ratio, "demand": "", "detail": detail}
    ratio, detail = quotient(found["theirs"], following)
    what = f"the original's arithmetic / the next box, {name}"
    yield {"what": what, "ratio": ratio, "demand": DEMANDS[dtype][1], "detail": detail}


def run() -> Iterator[dict[str, object]]:
    for dtype in [torch.float32, torch.bfloat16] if has_bf16() else [torch.float32]:
        yield from compare(dtype)


if __name__ == "__main__":
    for name in sys.argv[1:] or ["float32"]:
        for row in compare(getattr(torch, name)):
            print(row, flush=True)
