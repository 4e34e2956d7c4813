"""The demo checkpoint's tokenizer and processor: a small SentencePiece vocabulary in which every word of the generated
world is one piece, and any other text still has a spelling, in bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import sentencepiece
from transformers import GenerationConfig, PreTrainedTokenizerFast

from gpt4roi_nb.data.scenes.questions import vocabulary_texts
from gpt4roi_nb.demo.choices import choice_texts
from gpt4roi_nb.demo.recipe.recipe import Recipe
from gpt4roi_nb.processor import GPT4RoIImageProcessor, GPT4RoIProcessor
from gpt4roi_nb.prompt import AFTER_IMAGE, BEFORE_IMAGE, ROLES, SYSTEM, TURN_MARK, token_id_of
from gpt4roi_nb.tokenizer import tokenizer_from_sentencepiece

# The prompt of an unfinished conversation is then the start of the finished one, and the answer follows at once.
CLOSING = f"{TURN_MARK} {ROLES['assistant']}:"
PROMPT_REPEATS = 200  # every conversation has the prompt's own strings, so they count as frequent
REFERENCE_REPEATS = 20
CHOICE_SCENES = 60


def training_texts() -> Iterator[str]:
    """Every wording, every answer, and the prompt's fixed strings; region tokens as the prompt writes them."""
    for text in chain(vocabulary_texts(), choice_texts(CHOICE_SCENES)):
        yield text.replace("<", "").replace(">", "")
    for _ in range(PROMPT_REPEATS):
        yield SYSTEM
        yield BEFORE_IMAGE.strip()
        yield AFTER_IMAGE.strip()
        for role in ROLES.values():
            yield f"{TURN_MARK} {role}:"
        yield "#"
    for _ in range(REFERENCE_REPEATS):
        for number in range(1, 10):
            yield f"region{number}"
            yield f"What is region {number}?"


def train_sentencepiece(path: Path, size: int) -> None:
    """Writes a SentencePiece BPE model of at most `size` pieces; the same file whenever it is run."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=training_texts(),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        split_digits=True,
        num_threads=1,
        shuffle_input_sentence=False,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())


def make_processor(recipe: Recipe, folder: Path) -> GPT4RoIProcessor:
    """The processor of the model that a recipe makes; its SentencePiece file is kept in `folder`."""
    path = folder / "tokenizer.model"
    if not path.exists():
        train_sentencepiece(path, recipe.vocabulary)
    tokenizer: PreTrainedTokenizerFast = tokenizer_from_sentencepiece(path, model_max_length=recipe.context)
    image_processor = GPT4RoIImageProcessor(image_size=recipe.image_size)
    return GPT4RoIProcessor(image_processor, tokenizer, num_image_tokens=recipe.grid**2, closing=CLOSING)


def generation_config(processor: GPT4RoIProcessor) -> GenerationConfig:
    """Greedy; an answer ends at the end of text or at the mark of the next turn."""
    tokenizer = processor.tokenizer
    mark = token_id_of(TURN_MARK, tokenizer)
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, mark],
        pad_token_id=tokenizer.pad_token_id,
    )
