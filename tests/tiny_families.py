"""Every family of `gpt4roi_nb.models` in miniature: random weights, a tokenizer made in memory, its own processor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

SIDE = 56  # pixels of a fixed tower
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 14,
}
QWEN_TOWER = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "out_hidden_size": 32,
}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As the card of llava-hf/vip-llava-7b-hf and transformers' page about VipLlava write it: nothing ends an answer.
VICUNA = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions."
    "{% for m in messages %}###{% if m['role'] == 'user' %}Human: {% else %}Assistant: {% endif %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}###Assistant:{% endif %}"
)
LLAMA3 = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|image|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


# How Llama 3's tokenizer.json cuts a text into words: the line breaks before an answer stay together.
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def tokenizer(*special: str, pattern: str = "", **named: str) -> Any:
    """A byte-level tokenizer that knows some words, with special tokens of a family.

    pattern: how it cuts a text into words; as GPT-2's if empty. named: tokens that are attributes too.
    """
    words = ["<pad>", "<s>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [("i", "s"), ("o", "f"), ("Ġ", "t"), ("Ċ", "Ċ"), ("1", "0")]
    words += ["".join(pair) for pair in merges]
    backend = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pattern)
    if pattern:
        cut = pre_tokenizers.Split(Regex(pattern), "isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([cut, backend.pre_tokenizer])
    backend.decoder = decoders.ByteLevel()
    made = tf.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=named,
    )
    made.add_special_tokens({"additional_special_tokens": list(special)}, replace_extra_special_tokens=False)
    return made


def _text(made: Any, **changes: Any) -> dict[str, Any]:
    return {**TEXT, "vocab_size": len(made) + 5, **changes}


def _qwen(name: str, text: dict[str, Any] | None = None, **tower: Any) -> tuple[Any, Any]:
    """text: besides `TEXT`."""
    made = tokenizer(
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
    )
    ids = {
        key: made.convert_tokens_to_ids(f"<|{token}|>")
        for key, token in (
            ("image_token_id", "image_pad"),
            ("video_token_id", "video_pad"),
            ("vision_start_token_id", "vision_start"),
            ("vision_end_token_id", "vision_end"),
        )
    }
    template = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    images = tf.Qwen2VLImageProcessor(
        patch_size=14, merge_size=2, size={"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 30}
    )
    processor_class = {
        "qwen2_vl": tf.Qwen2VLProcessor,
        "qwen2_5_vl": tf.Qwen2_5_VLProcessor,
        "qwen3_vl": tf.Qwen3VLProcessor,
        "qwen3_vl_moe": tf.Qwen3VLProcessor,
        "qwen3_5": tf.Qwen3VLProcessor,
        "qwen3_5_moe": tf.Qwen3VLProcessor,
    }[name]
    video = (tf.Qwen3VLVideoProcessor if processor_class is tf.Qwen3VLProcessor else tf.Qwen2VLVideoProcessor)()
    processor = processor_class(images, made, video, chat_template=template)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = _text(made, rope_parameters=rope, head_dim=8, **(text or {}))
    config = tf.AutoConfig.for_model(name, text_config=text, vision_config={**QWEN_TOWER, **tower}, **ids)
    return config, processor


def _qwen2_vl() -> tuple[Any, Any]:
    return _qwen("qwen2_vl", embed_dim=16, hidden_size=32, mlp_ratio=2)


def _qwen2_5_vl() -> tuple[Any, Any]:
    return _qwen("qwen2_5_vl", fullatt_block_indexes=[1], window_size=56)


def _qwen3_vl() -> tuple[Any, Any]:
    return _qwen("qwen3_vl", deepstack_visual_indexes=[0], num_position_embeddings=16)


def _qwen3_vl_moe() -> tuple[Any, Any]:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
    return _qwen("qwen3_vl_moe", experts, deepstack_visual_indexes=[0], num_position_embeddings=16)


STATES = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}


def _qwen3_5() -> tuple[Any, Any]:
    return _qwen("qwen3_5", STATES, num_position_embeddings=16)


def _qwen3_5_moe() -> tuple[Any, Any]:
    experts = {
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16
    }  # fmt: skip
    return _qwen("qwen3_5_moe", STATES | experts, num_position_embeddings=16)


def _vipllava() -> tuple[Any, Any]:
    made = tokenizer(image_token="<image>")
    images = tf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor = tf.LlavaProcessor(
        images,
        made,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA,
    )
    config = tf.VipLlavaConfig(
        vision_config={"model_type": "clip_vision_model", **TOWER},
        text_config={"model_type": "llama", **_text(made)},
        image_token_index=made.image_token_id,
        image_token_id=made.image_token_id,
        vision_feature_layer=[-2, -1],
        vision_feature_layers=[-2, -1],
        image_seq_length=16,
    )
    return config, processor


def _paligemma() -> tuple[Any, Any]:
    made = tokenizer(image_token="<image>")
    images = tf.SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    images.image_seq_length = 16
    processor = tf.PaliGemmaProcessor(images, made)
    config = tf.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", **TOWER, "vision_use_head": False, "projection_dim": 32},
        text_config={"model_type": "gemma", **_text(made), "head_dim": 8},
        image_token_id=made.image_token_id,
        image_token_index=made.image_token_id,
        projection_dim=32,
        hidden_size=32,
    )
    return config, processor


def _kosmos() -> tuple[Any, Any]:
    made = tokenizer()
    # As its makers' preprocessor_config.json ("use_square_size"): it squeezes an image into a square.
    images = tf.CLIPImageProcessor(size={"height": SIDE, "width": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor = tf.Kosmos2Processor(images, made)
    config = tf.Kosmos2Config(
        text_config={
            "vocab_size": len(made) + 5, "max_position_embeddings": 512, "embed_dim": 32, "layers": 2, "ffn_dim": 48,
            "attention_heads": 4, "init_std": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        },
        vision_config=TOWER,
        latent_query_num=64,  # as many as the processor makes places for
    )  # fmt: skip
    return config, processor


def _florence() -> tuple[Any, Any]:
    made = tokenizer(*(f"<loc_{index}>" for index in range(1000)), image_token="<image>")
    images = tf.CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5
    processor = tf.Florence2Processor(images, made)
    config = tf.Florence2Config(
        text_config={
            "model_type": "bart", "vocab_size": len(made) + 5, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
            "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
            "max_position_embeddings": 512, "init_std": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
            "decoder_start_token_id": 2, "forced_eos_token_id": None,
        },
        vision_config={
            "embed_dim": [8, 8, 8, 16], "num_heads": [2, 2, 2, 2], "num_groups": [2, 2, 2, 2], "depths": [1, 1, 1, 1],
            "window_size": 4, "projection_dim": 32, "max_temporal_embeddings": 4, "max_position_embeddings": 8,
        },
        image_token_id=made.image_token_id,
    )  # fmt: skip
    return config, processor


def _perception_lm() -> tuple[Any, Any]:
    """With CLIP's tower in the place of its own, for which transformers needs the package timm."""
    made = tokenizer(
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        pattern=LLAMA3_WORDS,
        image_token="<|image|>",
        video_token="<|video|>",
    )
    images = tf.PerceptionLMImageProcessor(tile_size=SIDE, max_num_tiles=2, vision_input_type="thumb+tile")
    processor = tf.PerceptionLMProcessor(
        tf.PerceptionLMVideoProcessor(), images, made, patch_size=14, pooling_ratio=2, chat_template=LLAMA3
    )
    config = tf.PerceptionLMConfig(
        vision_config={
            "model_type": "clip_vision_model", **TOWER, "model_args": {"embed_dim": 16},
        },
        text_config={"model_type": "llama", **_text(made)},
        projector_pooling_ratio=2,
        image_token_id=made.image_token_id,
        video_token_id=made.video_token_id,
        vision_use_cls_token=True,
    )  # fmt: skip
    return config, processor


def _internvl() -> tuple[Any, Any]:
    made = tokenizer(
        "<|im_start|>", "<|im_end|>", "<box>", "</box>", "<ref>", "</ref>",
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>",
    )  # fmt: skip
    images = tf.GotOcr2ImageProcessor(
        size={"height": SIDE, "width": SIDE}, min_patches=1, max_patches=2, crop_to_patches=True
    )
    processor = tf.InternVLProcessor(
        images,
        made,
        tf.InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=CHATML.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    config = tf.InternVLConfig(
        vision_config={**TOWER, "image_size": [SIDE, SIDE], "patch_size": [14, 14]},
        text_config={"model_type": "qwen2", **_text(made)},
        image_token_id=made.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    return config, processor


def _video_llama_3() -> tuple[Any, Any]:
    made = tokenizer("<|im_start|>", "<|im_end|>", image_token="<image>", video_token="<video>")
    images = tf.VideoLlama3ImageProcessor(
        patch_size=14, merge_size=1, size={"shortest_edge": 14 * 14 * 4, "longest_edge": 14 * 14 * 60}
    )
    processor = tf.VideoLlama3Processor(
        images, made, tf.VideoLlama3VideoProcessor(), chat_template=CHATML.replace("IMAGE", "<image>\n")
    )
    config = tf.VideoLlama3Config(
        vision_config={key: value for key, value in TOWER.items() if key != "image_size"},
        text_config={"model_type": "qwen2", **_text(made)},
        image_token_id=made.image_token_id,
        video_token_id=made.video_token_id,
    )
    return config, processor


def _llava() -> tuple[Any, Any]:
    made = tokenizer("<|im_start|>", "<|im_end|>", image_token="<image>")
    images = tf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor = tf.LlavaProcessor(
        images,
        made,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHATML.replace("IMAGE", "<image>\n"),
    )
    config = tf.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **TOWER},
        text_config={"model_type": "llama", **_text(made)},
        image_token_index=made.image_token_id,
        image_token_id=made.image_token_id,
        image_seq_length=16,
        vision_feature_layer=-2,
    )
    return config, processor


def _llava_next() -> tuple[Any, Any]:
    made = tokenizer("<|im_start|>", "<|im_end|>", image_token="<image>")
    images = tf.LlavaNextImageProcessor(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
    )
    processor = tf.LlavaNextProcessor(
        images,
        made,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHATML.replace("IMAGE", "<image>\n"),
    )
    config = tf.LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **TOWER},
        text_config={"model_type": "llama", **_text(made)},
        image_token_index=made.image_token_id,
        image_token_id=made.image_token_id,
        image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
        image_seq_length=16,
        vision_feature_layer=-2,
    )
    return config, processor


def _llava_onevision() -> tuple[Any, Any]:
    made = tokenizer("<|im_start|>", "<|im_end|>", image_token="<image>", video_token="<video>")
    images = tf.LlavaOnevisionImageProcessor(
        size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]]
    )
    processor = tf.LlavaOnevisionProcessor(
        images,
        made,
        tf.LlavaOnevisionVideoProcessor(),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=CHATML.replace("IMAGE", "<image>\n"),
    )
    config = tf.LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **TOWER, "vision_use_head": False},
        text_config={"model_type": "qwen2", **_text(made)},
        image_token_index=made.image_token_id,
        image_token_id=made.image_token_id,
        video_token_id=made.video_token_id,
        image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return config, processor


def _gemma3() -> tuple[Any, Any]:
    made = tokenizer(
        "<|im_start|>",
        "<|im_end|>",
        image_token="<image_soft_token>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
    )
    images = tf.Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE})
    processor = tf.Gemma3Processor(
        images, made, chat_template=CHATML.replace("IMAGE", "<start_of_image>"), image_seq_length=4
    )
    config = tf.Gemma3Config(
        vision_config={"model_type": "siglip_vision_model", **TOWER, "vision_use_head": False},
        text_config={"model_type": "gemma3_text", **_text(made), "head_dim": 8},
        mm_tokens_per_image=4,
        image_token_index=made.image_token_id,
        image_token_id=made.image_token_id,
        boi_token_index=made.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=made.convert_tokens_to_ids("<end_of_image>"),
    )
    return config, processor


def _idefics3() -> tuple[Any, Any]:
    made = tokenizer(
        "<|im_start|>",
        "<end_of_utterance>",
        "<fake_token_around_image>",
        "<global-img>",
        *[f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)],
        image_token="<image>",
    )
    images = tf.Idefics3ImageProcessor(size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE})
    processor = tf.Idefics3Processor(
        images,
        made,
        image_seq_len=4,
        chat_template=CHATML.replace("IMAGE", "<image>").replace("<|im_end|>", "<end_of_utterance>"),
    )
    config = tf.Idefics3Config(
        vision_config={"model_type": "idefics3_vision", **TOWER},
        text_config={"model_type": "llama", **_text(made)},
        image_token_id=made.image_token_id,
        scale_factor=2,
    )
    return config, processor


def _mistral3() -> tuple[Any, Any]:
    made = tokenizer("<|im_start|>", "<|im_end|>", "[IMG_BREAK]", "[IMG_END]", image_token="[IMG]")
    images = tf.PixtralImageProcessor(size={"longest_edge": 112}, patch_size={"height": 14, "width": 14})
    processor = tf.PixtralProcessor(
        images, made, patch_size=14, spatial_merge_size=2, chat_template=CHATML.replace("IMAGE", "[IMG]")
    )
    config = tf.Mistral3Config(
        vision_config={"model_type": "pixtral", **TOWER, "head_dim": 8},
        text_config={"model_type": "mistral", **_text(made), "head_dim": 8},
        image_token_index=made.image_token_id,
        image_token_id=made.image_token_id,
        spatial_merge_size=2,
        vision_feature_layer=-1,
    )
    return config, processor


FAMILIES = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "kosmos-2": _kosmos,
    "florence2": _florence,
    "vipllava": _vipllava,
    "paligemma": _paligemma,
    "perception_lm": _perception_lm,
    "internvl": _internvl,
    "video_llama_3": _video_llama_3,
}
# Of Qwen3-VL's mixture of experts, and of what came after it.
LATER = {"qwen3_vl_moe": _qwen3_vl_moe, "qwen3_5": _qwen3_5, "qwen3_5_moe": _qwen3_5_moe}
# Classes that are not in the table, and LLaVA, whose row is what its users report: shown images, as any other.
OTHERS = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "gemma3": _gemma3,
    "idefics3": _idefics3,
    "mistral3": _mistral3,
}


@cache
def tiny_family(name: str, seed: int = 0) -> tuple[Any, Any]:
    """(model in evaluation mode, processor), made once per process."""
    with torch.inference_mode(False), torch.no_grad():  # whichever the test that asks first is in
        config, processor = {**FAMILIES, **LATER, **OTHERS}[name]()
        torch.manual_seed(seed)
        model = tf.AutoModelForImageTextToText.from_config(config).eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)  # so that answers differ with what is asked
    ends = [
        2,
        *(
            processor.tokenizer.convert_tokens_to_ids(end)
            for end in ("<|im_end|>", "<|eot_id|>")
            if end in processor.tokenizer.get_added_vocab()
        ),
    ]
    model.generation_config.eos_token_id = ends
    model.generation_config.pad_token_id = 0
    return model, processor


def saved_family(folder: Path, name: str) -> Path:
    """The folder, with the model and its processor in it."""
    for part in tiny_family(name):
        part.save_pretrained(folder)
    return folder


def expanded(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """A square with the image in its middle, as LLaVA's makers pad."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(255 * one) for one in mean))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


# What Florence-2's own processor makes of its tasks (processing_florence2.py).
FLORENCE_TASKS = {
    r"What does the region (.*) describe\?": "<REGION_TO_DESCRIPTION>",
    r"What is the region (.*)\?": "<REGION_TO_CATEGORY>",
    r"What text is in the region (.*)\?": "<REGION_TO_OCR>",
}


def by_its_processor(name: str, told: str, images: list[Any]) -> dict[str, torch.Tensor]:
    """What the family's own processor makes of what was told, put together as its documents say.

    told: of a chat model the question; of others the whole prompt without its image.
    """
    _, processor = tiny_family(name)
    if name == "kosmos-2":  # what was told is the whole text, as in the families below
        return processor(images=images[0], text=told, return_tensors="pt")
    if name == "florence2":  # its processor makes words of the task itself
        ((found, task),) = [
            (match, task) for words, task in FLORENCE_TASKS.items() if (match := re.fullmatch(f"<s>{words}</s>", told))
        ]
        return processor(images=images[0], text=f"{task}{found[1]}", return_tensors="pt")
    if name == "paligemma":
        (asked,) = re.fullmatch(r"<s>(.*)\n", told).groups()
        made = processor(images=images[0], text=f"<image>{asked}", return_tensors="pt")
        made.pop("labels")
        made["token_type_ids"] = torch.zeros_like(made["input_ids"])  # 0: the prefix, which sees all of itself
        return made
    return talk_by_its_processor(name, [told], images)


def talk_by_its_processor(name: str, said: Sequence[str], images: list[Any]) -> dict[str, torch.Tensor]:
    """What a chat model's own template and processor make of a conversation that shows its images first.

    said: what the user and the assistant say in turn.
    """
    _, processor = tiny_family(name)
    if name in ("vipllava", "llava"):  # as mm_utils.py (process_images, "pad") of both makers
        images = [expanded(image, processor.image_processor.image_mean) for image in images]
    messages = [
        {
            "role": ("user", "assistant")[index % 2],
            "content": [{"type": "image"}] * (len(images) if index == 0 else 0) + [{"type": "text", "text": text}],
        }
        for index, text in enumerate(said)
    ]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    given = [images] if name in ("gemma3", "idefics3") else images
    return processor(images=given, text=[text], return_tensors="pt")
