"""Language models and vision towers of several kinds, with random weights, as folders that look like pretrained ones.

Their templates and vocabularies are made here; they have the shape of those that are published, and none of their text.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipConfig,
    SiglipModel,
)

SENTENCES = [
    "What is region1 doing, and why is region2 behind it?",
    "The image provides an overview of the picture.\n A small red cup stands on the table.",
    "\n\nuser\n\n",
    "\n\nassistant\n\n",
    "user assistant system\n\n You are a helpful assistant. ### Human: ### Assistant: # ## ###",
]
# A header of two tokens and a role in front of each message, two line breaks, trimmed content, one token behind.
LLAMA_TEMPLATE = (
    "{{ bos_token }}"
    "{% for m in messages %}"
    "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# ChatML. Says who it is where no system message does, and opens the last answer with an empty chain of thought.
QWEN_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}"
    "<|im_start|>{{ m.role }}\n"
    "{% if thinks is defined and loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if thinks is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
QWEN3_TEMPLATE = "{% set thinks = true %}" + QWEN_TEMPLATE
# Marks of plain text, blanks around contents, and a system message inside the first question.
BRACKETS_TEMPLATE = (
    "{% set first = 1 if messages[0].role == 'system' else 0 %}"
    "{% for m in messages[first:] %}"
    "{% if m.role == 'user' %}{{ bos_token }}[INST] "
    "{% if loop.first and first %}<<SYS>>\n{{ messages[0].content }}\n<</SYS>>\n\n{% endif %}"
    "{{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}"
    "{% endfor %}"
)


def byte_level(
    special: list[str], plain: tuple[str, ...] = (), *, whole_breaks: bool = True, **options
) -> PreTrainedTokenizerFast:
    """A byte-level BPE.

    plain: tokens that are added, but not special.
    whole_breaks: whether line breaks stay together before a word, as with Llama 3 and Qwen, and not with GPT-2.
    """
    backend = Tokenizer(models.BPE())
    cuts = [pre_tokenizers.Split(Regex(r"[\r\n]+"), "isolated")] if whole_breaks else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    backend.add_tokens([AddedToken(token, normalized=False) for token in plain])
    if bos := options.get("bos_token"):
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **options)


def llama_tokenizer(**options) -> PreTrainedTokenizerFast:
    """As Llama 3 has it: BOS by the tokenizer and by the template, no padding token."""
    names = ["begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eom_id", "eot_id"]
    return byte_level(
        [f"<|{name}|>" for name in names],
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        chat_template=LLAMA_TEMPLATE,
        **options,
    )


def qwen_tokenizer(template: str = QWEN_TEMPLATE) -> PreTrainedTokenizerFast:
    """As Qwen has it: no BOS, a padding token of its own, tokens that are added but not special."""
    return byte_level(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        ("<tool_call>", "<think>", "</think>"),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template,
    )


def brackets_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama 2 and Mistral have it: SentencePiece's blanks, of which one stands before a text's beginning only."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")  # learnt within words
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    lines = [line for sentence in SENTENCES for line in sentence.split("\n")]
    backend.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False))
    # The trainer marks the bytes as special as well, which a vocabulary of SentencePiece's does not.
    state = json.loads(backend.to_str())
    state["added_tokens"] = state["added_tokens"][:3]
    backend = Tokenizer.from_str(json.dumps(state))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=BRACKETS_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


TOKENIZERS = {
    "llama": llama_tokenizer,
    "qwen2": qwen_tokenizer,
    "qwen3": lambda: qwen_tokenizer(QWEN3_TEMPLATE),
    "brackets": brackets_tokenizer,
    "split breaks": lambda: llama_tokenizer(whole_breaks=False),
}


def save_language_model(folder: Path, kind: str, *, spare_rows: int = 0, **changes) -> Path:
    """kind: "llama", "qwen2" or "qwen3". spare_rows: of the embedding, which no token belongs to."""
    tokenizer = TOKENIZERS[kind]()
    sizes = {
        "vocab_size": len(tokenizer) + spare_rows,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": kind != "llama",
    }
    torch.manual_seed(0)
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**{**sizes, **changes}))
        ends = tokenizer.convert_tokens_to_ids(["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"])
    else:
        configs = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}
        config_class, model_class = configs[kind]
        if kind == "qwen3":
            sizes["head_dim"] = 16
        model = model_class(config_class(**{**sizes, **changes}))
        ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    model.generation_config = GenerationConfig(bos_token_id=tokenizer.bos_token_id, eos_token_id=ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# A region encoder's sizes, of two levels.
REGION = {
    "num_levels": 2,
    "hidden_size": 16,
    "num_groups": 4,
    "num_fusion_rounds": 2,
    "output_size": 4,
    "embed_dim": 24,
    "position_hidden_size": 8,
}
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 12,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def save_siglip(folder: Path) -> Path:
    """A whole SigLIP: no CLS token, and other statistics than CLIP's."""
    torch.manual_seed(1)
    text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    SiglipModel(
        SiglipConfig(vision_config=TOWER, text_config={**text, "vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1})
    ).save_pretrained(folder)
    said = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


def save_clip(folder: Path) -> Path:
    """CLIP's tower alone, without a preprocessor_config.json."""
    torch.manual_seed(1)
    CLIPVisionModel(CLIPVisionConfig(**TOWER)).save_pretrained(folder)
    return folder
