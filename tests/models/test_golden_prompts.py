"""Whole prompts written by hand from the families' documents: words and ids, in every way, and of several turns."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_families import FAMILIES as TINY
from tiny_families import talk_by_its_processor, tiny_family

from gpt4roi_nb.models import FAMILIES, PromptedModel
from gpt4roi_nb.models.families import default_question
from gpt4roi_nb.models.prompts import PromptedPrompt
from gpt4roi_nb.session import Question

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8))
BOX, OTHER = (20.0, 10.0, 80.0, 60.0), (70.0, 40.0, 130.0, 90.0)
QUESTION = "What is <region1>?"

# What stands around a question, each image as IMAGE. Chat templates as their cards write them (tiny_families.py).
VICUNA = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions.###Human: IMAGE\n{}###Assistant:"
)
QWEN = "<|im_start|>user\n<|vision_start|>IMAGE<|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n"
CHATML = "<|im_start|>user\nIMAGE\n{}<|im_end|>\n<|im_start|>assistant\n"
LLAMA3 = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nIMAGE{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
AROUND = {
    "qwen2_vl": QWEN,
    "qwen2_5_vl": QWEN,
    "qwen3_vl": QWEN,
    "kosmos-2": "IMAGE<grounding> Question: {} Answer:",  # the card of microsoft/kosmos-2-patch14-224, "VQA"
    "florence2": "IMAGE<s>{}</s>",
    "vipllava": VICUNA,
    "paligemma": "IMAGE<s>answer en {}\n",  # Google's page about PaliGemma's prompts
    "perception_lm": LLAMA3,
    "internvl": CHATML,
    "video_llama_3": CHATML,
}
# With two images. Qwen's template puts marks around each, the others a line break after each.
AROUND_TWO = {
    QWEN: (
        "<|im_start|>user\n<|vision_start|>IMAGE<|vision_end|><|vision_start|>IMAGE<|vision_end|>{}<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    CHATML: "<|im_start|>user\nIMAGE\nIMAGE\n{}<|im_end|>\n<|im_start|>assistant\n",
}
# Coordinates in an image of 140 × 100, worked out by hand: qwen2_5_vl's processor makes it 140 × 112.
WRITTEN = {
    ("qwen2_vl", "text"): "What is [143, 100, 571, 600]?",
    ("qwen2_5_vl", "text"): "What is [20, 11, 80, 67]?",
    ("qwen3_vl", "text"): "What is [143, 100, 571, 600]?",
    ("kosmos-2", "native"): (  # the blank before "<phrase>" is taken by the token
        "What is<phrase> the object</phrase><object><patch_index_0100><patch_index_0626></object>?"
    ),
    ("perception_lm", "draw"): "What is the region inside the red rectangle?",
    ("perception_lm", "text"): "What is [142,100,571,600]?\nThe region is in the format of [x1, y1, x2, y2].",
    ("internvl", "text"): "What is <box>[[143, 100, 571, 600]]</box>?",
    ("video_llama_3", "text"): "What is [142, 100, 571, 600]?",
}
SHOWN = {
    "draw": "What is the object within the red rectangle?",
    "marks": "What is the object marked 1?",
    "crop": "What is the object in the image?",
    "context": "What is the object in the middle of the image?",
    "full+crop": "What is the object in image 2?",
}
TASKS = {
    ("florence2", "Describe <region1>."): (
        "IMAGE<s>What does the region <loc_142><loc_100><loc_571><loc_600> describe?</s>"
    ),
    ("florence2", "What category is <region1>?"): (
        "IMAGE<s>What is the region <loc_142><loc_100><loc_571><loc_600>?</s>"
    ),
    ("florence2", "What text is in <region1>?"): (
        "IMAGE<s>What text is in the region <loc_142><loc_100><loc_571><loc_600>?</s>"
    ),
    ("kosmos-2", "Describe <region1>."): (
        "IMAGE<grounding><phrase> It</phrase><object><patch_index_0100><patch_index_0626></object> is"
    ),
    ("paligemma", "Caption <region1>."): "IMAGE<s>caption <loc0102><loc0146><loc0614><loc0585>\n",
}
GOLDEN = {
    **{(name, FAMILIES[name].way, asked): text for (name, asked), text in TASKS.items()},
    **{
        (name, way, QUESTION): (AROUND_TWO[AROUND[name]] if way == "full+crop" else AROUND[name]).format(SHOWN[way])
        for name in TINY
        for way in FAMILIES[name].ways
        if way in SHOWN
    },
    **{(name, way, QUESTION): AROUND[name].format(text) for (name, way), text in WRITTEN.items()},
}


def loaded(name: str, way: str | None = None) -> PromptedModel:
    return PromptedModel(*tiny_family(name), way, "tiny")


def in_words(model: PromptedModel, prompt: PromptedPrompt) -> str:
    """A prompt as its ids read, each image as IMAGE."""
    decode, said = model.processor.tokenizer.decode, ""
    for image, run in itertools.groupby(zip(prompt.images, prompt.input_ids, strict=True), key=lambda one: one[0]):
        said += "IMAGE" if image >= 0 else decode([token_id for _, token_id in run])
    return said


def test_every_way_and_task_of_every_family_has_a_golden_prompt() -> None:
    assert {(name, way) for name, way, _ in GOLDEN} == {(name, way) for name in TINY for way in FAMILIES[name].ways}
    assert set(TASKS) == {(name, task) for name in TINY for task in FAMILIES[name].tasks}


@pytest.mark.parametrize(("name", "way", "question"), GOLDEN)
def test_a_whole_prompt_reads_as_written_by_hand(name: str, way: str, question: str) -> None:
    model = loaded(name, way)
    prompt = model.prompt(model.images(), IMAGE, [("user", question)], {1: BOX})
    assert in_words(model, prompt) == GOLDEN[name, way, question]


# In the vocabulary of tiny_families.tokenizer a visible ASCII character's id is its code less 29, a blank is 224 and a
# line break 202; "is" is 260, " t" 262 and "10" 264; from 265 on there are each family's own tokens, images first.
IDS = {
    ("qwen3_vl", QUESTION): [
        267, 88, 86, 72, 85, 202,                                  # <|im_start|>user\n
        269, *[265] * 20, 270,                                     # 140 × 112 in cells of 28 × 28: 5 × 4
        58, 75, 68, 87, 224, 260, 224,                             # What is_
        62, 20, 23, 22, 15, 224, 264, 19, 15,                      # [143, 100,
        224, 24, 26, 20, 15, 224, 25, 19, 19, 64, 34,              # _571, 600]?
        268, 202, 267, 68, 86, 86, 260, 87, 68, 81, 87, 202,       # <|im_end|>\n<|im_start|>assistant\n
    ],
    ("kosmos-2", "Describe <region1>."): [
        1, 266, *range(4, 68), 267, 275,                           # <s><image>… 64 features …</image><grounding>
        270, 224, 44, 87, 271,                                     # <phrase> It</phrase>
        272, 276 + 100, 276 + 626, 273,                            # <object>, cells counted from 276, </object>
        224, 260,                                                  # _is
    ],
    ("florence2", "Describe <region1>."): [
        *[265] * 5, 1,                                             # the image, <s>
        58, 75, 68, 87, 224, 71, 82, 72, 86,                       # What does
        262, 75, 72, 224, 85, 72, 74, 76, 82, 81, 224,             # _the region_
        266 + 142, 266 + 100, 266 + 571, 266 + 600,                # counted from 266
        224, 71, 72, 86, 70, 85, 76, 69, 72, 34, 2,                # _describe?</s>
    ],
    ("paligemma", "Caption <region1>."): [
        *[265] * 16, 1,                                            # the image, <s>
        70, 68, 83, 87, 76, 82, 81, 224,                           # caption_
        266 + 102, 266 + 146, 266 + 614, 266 + 585, 202,           # counted from 266, \n
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "question"), IDS)
def test_ids_are_those_written_by_hand(name: str, question: str) -> None:
    """One for each format in which prompts are built."""
    model = loaded(name)
    assert model.prompt(model.images(), IMAGE, [("user", question)], {1: BOX}).input_ids == IDS[name, question]


def test_every_format_has_ids_written_by_hand() -> None:
    assert {FAMILIES[name].format for name, _ in IDS} == {family.format for family in FAMILIES.values()}


# Qwen3-VL's chat_template.json; of ViP-LLaVA transformers' page, "For multiple turns conversation".
TWO_TURNS = {
    "qwen3_vl": (
        "<|im_start|>user\n<|vision_start|>IMAGE<|vision_end|>What is [143, 100, 571, 600]?<|im_end|>\n"
        "<|im_start|>assistant\nThe red ball.<|im_end|>\n"
        "<|im_start|>user\nIs [143, 100, 571, 600] left of [500, 400, 929, 900]?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "vipllava": (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions.###Human: IMAGE\n"
        "What is the object within the red rectangle?###Assistant: The red ball.###Human: "
        "Is the object within the red rectangle left of the object within the lime rectangle?###Assistant:"
    ),
}
TALK = [
    ("user", QUESTION),
    ("assistant", "The red ball."),
    ("user", "Is <region1> left of <region2>?"),
    ("assistant", "to it\n\n* of 10"),  # which has merges at its beginning and its end
    ("user", " And what is <region2>, then? "),
]


@pytest.mark.parametrize("name", TWO_TURNS)
def test_a_follow_up_reads_as_written_by_hand(name: str) -> None:
    model = loaded(name)
    prompt = model.prompt(model.images(), IMAGE, TALK[:3], {1: BOX, 2: OTHER})
    assert in_words(model, prompt) == TWO_TURNS[name]


CHATS = [name for name in [*TINY, "llava"] if FAMILIES[name].format == "chat"]


@pytest.mark.parametrize("turns", [3, 5])
@pytest.mark.parametrize(
    ("name", "way"), [*((name, None) for name in CHATS), ("qwen3_vl", "full+crop"), ("internvl", "full+crop")]
)
def test_ids_of_a_follow_up_are_those_of_the_familys_own_template_and_processor(
    name: str, way: str | None, turns: int
) -> None:
    model, regions = loaded(name, way), {1: BOX, 2: OTHER}
    prompt = model.prompt(model.images(), IMAGE, TALK[:turns], regions)
    images = list(model.rendered(model.images(), IMAGE, TALK[:turns], regions).images)
    own = talk_by_its_processor(name, told_of(model, TALK[:turns], regions), images)
    assert prompt.input_ids == own["input_ids"][0].tolist()
    assert {f"question{turns // 2 + 1}", f"answer{turns // 2}"} <= prompt.spans.keys()


def told_of(model: PromptedModel, turns: Sequence[tuple[str, str]], regions: Any) -> list[str]:
    """What the model is told of each turn: of a question with its regions in the model's way."""
    store = model.images()
    return [
        model.rendered(store, IMAGE, turns[: index + 1], regions).text if role == "user" else text
        for index, (role, text) in enumerate(turns)
    ]


# LLaVA 1.5's template ends no answer, and puts a blank between all turns (card of llava-hf/llava-1.5-7b-hf).
LLAVA = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] + ' ' }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def test_a_template_that_only_names_who_speaks_is_followed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_family("llava")[1], "chat_template", LLAVA)
    model, regions = loaded("llava"), {1: BOX, 2: OTHER}
    assert model.differs == ""
    prompt = model.prompt(model.images(), IMAGE, TALK[:3], regions)
    assert in_words(model, prompt) == (
        "USER: IMAGE\nWhat is the object within the red rectangle? ASSISTANT: The red ball. USER: Is the object within "
        "the red rectangle left of the object within the lime rectangle? ASSISTANT:"
    )
    images = list(model.rendered(model.images(), IMAGE, TALK[:3], regions).images)
    own = talk_by_its_processor("llava", told_of(model, TALK[:3], regions), images)
    assert prompt.input_ids == own["input_ids"][0].tolist()


OWN_FORMATS = [
    *((name, None, question) for name, question in TASKS),
    ("kosmos-2", None, QUESTION),
    ("paligemma", "draw", QUESTION),
    ("paligemma", "crop", QUESTION),
]


@pytest.mark.parametrize(("name", "way", "question"), OWN_FORMATS)
def test_of_a_format_of_its_own_the_whole_prompt_is_shown(name: str, way: str | None, question: str) -> None:
    model = loaded(name, way)
    told = GOLDEN[name, way or FAMILIES[name].way, question].removeprefix("IMAGE").replace("is<phrase>", "is <phrase>")
    session = model.session(IMAGE)
    answer = session.ask(question, [BOX], max_new_tokens=2)
    assert model.render(IMAGE, question, [BOX]).text == session.render().text == answer.told == told
    assert model.answers([Question(IMAGE, question, [BOX])], max_new_tokens=2)[0].told == told


def test_a_region_alone_is_a_question_too() -> None:
    model = loaded("paligemma", "draw")
    told = "<s>answer en the object within the red rectangle\n"
    assert model.render(IMAGE, "<region1>", [BOX]).text == told and default_question("draw", "paligemma") == QUESTION
