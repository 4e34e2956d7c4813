"""What is known of each family of models: the ways of pointing that suit it, and what it can be asked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from PIL import Image

from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.models.ways import SPECS, WAYS, Pen, Pointing, Regions, Way
from gpt4roi_nb.models.ways.context import MARGIN
from gpt4roi_nb.models.ways.conventions import CONVENTIONS, Convention, Size
from gpt4roi_nb.models.ways.draw import RED, VIP_LLAVA, Wording
from gpt4roi_nb.prompt import DEFAULT_QUESTION

# Ways that show regions in images: any model that answers free questions takes them.
_SHOWN: tuple[Way, ...] = tuple(way for way, spec in SPECS.items() if not spec.coordinates)
DRAWN: tuple[Way, ...] = tuple(way for way in _SHOWN if not SPECS[way].several_images)


@dataclass(frozen=True)
class Family:
    """A family of models, by `model_type`.

    Attributes:
        way: the one that the makers document, which `regions=None` takes.
        ways: all that suit it.
        format: how a prompt is built: by the processor's chat template, or as one family alone does.
        tasks: what can be asked in its native way in a form of its own, and the prompt of each, with `{region}` for the
            box.
        only_tasks: whether nothing else can be asked in its native way.
        mention: as `ways.native` takes it.
        wording: how a drawn region is called.
        several_images: whether it was made for more than one image.
        follow_ups: whether it was made for conversations.
        keeps_prefixes: whether the keys and values of a prompt's beginning do not depend on what follows.
        takes_padding: whether prompts of different lengths can be read together.
        licence: of the best-known weights.
        weights: a hub id of them.
    """

    way: Way
    ways: tuple[Way, ...]
    format: Literal["chat", "gpt4roi", "kosmos-2", "florence2", "paligemma"] = "chat"
    tasks: Mapping[str, str] = field(default_factory=dict)
    only_tasks: bool = False
    mention: str = "{box}"
    wording: Wording = VIP_LLAVA
    several_images: bool = True
    follow_ups: bool = True
    keeps_prefixes: bool = True
    takes_padding: bool = True
    licence: str = ""
    weights: str = ""


_QWEN = Family("text", ("text", *_SHOWN), licence="Apache 2.0", weights="Qwen/Qwen3-VL-2B-Instruct")

FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family("text", _QWEN.ways, licence="Apache 2.0 (72B: Qwen's own)", weights="Qwen/Qwen2-VL-2B-Instruct"),
    "qwen2_5_vl": Family(
        "text",
        _QWEN.ways,
        licence="Qwen Research, non-commercial (7B and 32B: Apache 2.0)",
        weights="Qwen/Qwen2.5-VL-3B-Instruct",
    ),
    "qwen3_vl": _QWEN,
    "qwen3_vl_moe": Family("text", _QWEN.ways, licence="Apache 2.0", weights="Qwen/Qwen3-VL-30B-A3B-Instruct"),
    "qwen3_5": Family("text", _QWEN.ways, takes_padding=False, licence="Apache 2.0", weights="Qwen/Qwen3.5-2B"),
    "qwen3_5_moe": Family(
        "text", _QWEN.ways, takes_padding=False, licence="Apache 2.0", weights="Qwen/Qwen3.5-35B-A3B"
    ),
    "kosmos-2": Family(
        "native",
        ("native", *DRAWN),
        format="kosmos-2",
        tasks={"Describe <region1>.": "<phrase> It</phrase>{region} is"},  # arXiv 2306.14824; its card
        mention="<phrase> the object</phrase>{box}",
        several_images=False,
        follow_ups=False,
        takes_padding=False,
        licence="MIT",
        weights="microsoft/kosmos-2-patch14-224",
    ),
    "florence2": Family(
        "native",
        ("native",),
        format="florence2",
        tasks={
            "Describe <region1>.": "<REGION_TO_DESCRIPTION>{region}",
            "What category is <region1>?": "<REGION_TO_CATEGORY>{region}",
            "What text is in <region1>?": "<REGION_TO_OCR>{region}",
        },
        only_tasks=True,
        several_images=False,
        follow_ups=False,
        keeps_prefixes=False,
        takes_padding=False,
        licence="MIT",
        weights="florence-community/Florence-2-base",
    ),
    "paligemma": Family(
        "native",
        ("native", *DRAWN),
        format="paligemma",
        tasks={"Caption <region1>.": "caption {region}"},
        only_tasks=True,
        several_images=False,
        follow_ups=False,
        keeps_prefixes=False,
        takes_padding=False,
        licence="Gemma's own",
        weights="google/paligemma2-3b-pt-224",
    ),
    "perception_lm": Family(
        "text",
        ("text", *DRAWN),
        # It says "rec", which is taken for "red": its rectangle is.
        wording=Wording(
            "the region inside the {colour} rectangle", "facebookresearch/perception_models, notebook image_grounding"
        ),
        several_images=False,  # its processor stacks no images of different numbers of tiles
        licence="FAIR Noncommercial Research",
        weights="facebook/Perception-LM-1B",
    ),
    "vipllava": Family(
        "draw", DRAWN, several_images=False, licence="Llama 2's own", weights="llava-hf/vip-llava-7b-hf"
    ),
    "video_llama_3": Family("text", ("text", *_SHOWN), licence="Apache 2.0", weights="lkhl/VideoLLaMA3-2B-Image-HF"),
    "internvl": Family(
        "text", ("text", *_SHOWN), licence="MIT (language model: Qwen's)", weights="OpenGVLab/InternVL3-1B-hf"
    ),
    "llava": Family(
        "draw", ("text", *DRAWN), several_images=False, licence="Llama 2's own", weights="llava-hf/llava-1.5-7b-hf"
    ),
}
ANY_OTHER = Family("draw", _SHOWN, takes_padding=False)  # known for families that the tests build
# In its native way it is a `GPT4RoI`; these are the ways in which a `PromptedModel` asks it without region tokens.
GPT4ROI = Family("native", DRAWN, format="gpt4roi", several_images=False)


def family_of(model_type: str) -> Family:
    """Return what is known of a model type; `ANY_OTHER` for one that is not in the table."""
    return GPT4ROI if model_type == GPT4RoIConfig.model_type else FAMILIES.get(model_type, ANY_OTHER)


def way_of(model_type: str, way: str | None) -> Way:
    """Check a requested way; for None, return what the makers document.

    Raises:
        ValueError: if there is no such way, or if it does not suit the family.
    """
    family = family_of(model_type)
    if way is None:
        way = family.way
    if way not in WAYS:
        raise ValueError(f"regions must be one of {', '.join(WAYS)}, or None, but is {way!r}")
    if way not in family.ways:
        kind = model_type or "a model whose kind is not given"
        raise ValueError(
            f"regions={way!r} does not suit {kind}: {_why_not(way, family)}; it takes {', '.join(family.ways)}"
        )
    return way


def other_way_of_gpt4roi(regions: str | None) -> Way | None:
    """Check a way requested of a GPT4RoI; return None for its own, by region tokens.

    Raises:
        ValueError: as `way_of`.
    """
    return None if regions in (None, "native") else way_of(GPT4RoIConfig.model_type, regions)


def _why_not(way: Way, family: Family) -> str:
    if SPECS[way].several_images and not family.several_images:
        return "it was made for one image at a time"
    if way == "native" and family is GPT4ROI:
        return "with region tokens of its own it is a GPT4RoI, which load_model gives"
    if SPECS[way].coordinates:
        return f"no convention is known for boxes as {SPECS[way].coordinates}"
    return "it answers tasks about a box and takes no question about a drawing"


def point(
    image: Image.Image,
    regions: Regions,
    way: Way,
    model_type: str,
    *,
    resized: Size | None = None,
    frame: str = "",
    pen: Pen = RED,
    margin: float = MARGIN,
) -> Pointing:
    """Present regions of an image to a family of models.

    Args:
        image: RGB, upright.
        regions: by number, pixel xyxy, checked.
        way: of `way_of`.
        model_type: of the model's configuration.
        resized: (width, height) to which the model's processor resizes the image, where the convention needs it.
        frame: for the note: what is done to the images afterwards.
        pen: what boxes are drawn with.
        margin: what is added on each side of a region, as a share of the box's side.

    Raises:
        ValueError: if the way takes fewer regions.
    """
    family = family_of(model_type)
    _check_count(len(regions), way, model_type)
    offered = {
        "convention": CONVENTIONS.get(model_type),
        "resized": resized,
        "mention": family.mention,
        "wording": family.wording,
        "pen": pen,
        "margin": margin,
    }
    spec = SPECS[way]
    made = spec.function(image, regions, **{name: offered[name] for name in spec.takes})
    return replace(made, note={**made.note, "frame": frame}) if frame else made


def task_of(question: str, way: Way, model_type: str) -> str | None:
    """Return a task's prompt, with `{region}` for the box; None for a free question.

    Raises:
        ValueError: if the question is none of the tasks of a family that takes nothing else.
    """
    tasks = family_of(model_type).tasks if way == "native" else {}
    wanted = _comparable(question)
    for asked, prompt in tasks.items():
        if _comparable(asked) == wanted:
            return prompt
    if not takes_only_tasks(way, model_type):
        return None
    raise ValueError(
        f"{model_type} answers tasks about one region and no free question, but was asked {question!r}; write "
        + " or ".join(repr(asked) for asked in tasks)
    )


def takes_only_tasks(way: Way, model_type: str) -> bool:
    """Whether a family takes tasks and no free question."""
    return way == "native" and family_of(model_type).only_tasks


def default_question(way: Way, model_type: str) -> str:
    """Return what `describe` asks about each region."""
    return next(iter(family_of(model_type).tasks)) if takes_only_tasks(way, model_type) else DEFAULT_QUESTION


def _comparable(question: str) -> str:
    return re.sub(r"\s+", " ", question).strip(" .?").casefold()


def convention_of(model_type: str, way: Way) -> Convention | None:
    """Return the row of the table that a way uses; None for those that draw and crop."""
    row = CONVENTIONS.get(model_type)
    return row if row is not None and row.way == way else None


def pieces_of(question: str, pointing: Pointing, way: Way, model_type: str) -> list[tuple[str, bool]]:
    """Split a question, as the model reads it, into pieces (words, whether this package wrote them).

    Raises:
        ValueError: if the family answers tasks only, and this is none.
    """
    task = task_of(question, way, model_type)
    if task is None:
        return pointing.pieces(question)
    return [(task.format(region=pointing.boxes[1]), True)]


def rendered_text_of(format: str, pieces: Sequence[tuple[str, bool]], prompt: str) -> str:
    """Return the question as the model reads it, or all of the prompt where no question can be told from it.

    Args:
        format: of `Family`.
        pieces: from `pieces_of`.
        prompt: the prompt as it reads without its images.
    """
    return "".join(words for words, _ in pieces) if format in ("chat", "gpt4roi") else prompt


def check_askable(question: str, regions: int, way: Way, model_type: str) -> None:
    """Check that the family can take a question, before anything runs.

    Args:
        question: with `<regionN>`.
        regions: how many the conversation has, including those that come with the question.
        way: how they are presented.
        model_type: of the model.

    Raises:
        ValueError: if it cannot.
    """
    if task_of(question, way, model_type) is not None and regions != 1 and takes_only_tasks(way, model_type):
        raise ValueError(
            f"{model_type} answers tasks about one region, but the conversation has {regions}; give one box at a time"
        )
    _check_count(regions, way, model_type)


def _check_count(regions: int, way: Way, model_type: str) -> None:
    """Raise ValueError if a way takes fewer regions."""
    spec = SPECS[way]
    if spec.check_count is not None:
        spec.check_count(regions)
    if regions > 1 and spec.image_per_region and not family_of(model_type).several_images:
        raise ValueError(
            f"{way} shows each region as an image of its own, but {model_type} was made for one image at a time; ask "
            "about one region, or point in another way"
        )
