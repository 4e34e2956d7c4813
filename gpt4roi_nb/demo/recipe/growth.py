"""A larger vocabulary for a model that has learnt to talk: each new word becomes one piece, and all else stays.

New merges are appended to those of the tokenizer, so that a text without the new words is tokenized as before. A new
piece begins as the mean of the old pieces that spell it; its logit is then the mean of theirs and never the highest, so
that greedy answers are the same as before.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gpt4roi_nb.config import GPT4RoIConfig
from gpt4roi_nb.files import read_json, write_json
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.prompt import token_id_of
from gpt4roi_nb.tokenizer import IMAGE_TOKEN, REGION_TOKEN, tokenizer_from_json

SPACE = "▁"

Merge = tuple[str, str]


def words_of(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Counter[tuple[str, ...]]:
    """Count the words of the texts, each as the pieces that spell it now.

    Only runs of letters, with the space before them if there is one: a piece with a mark in it would be used rarely.
    """
    found: Counter[tuple[str, ...]] = Counter()
    for text, times in Counter(texts).items():
        word: list[str] = []
        for piece in [*tokenizer.tokenize(text), SPACE]:
            letters = piece.removeprefix(SPACE)
            if piece.startswith(SPACE) or not letters.isalpha():
                if len(word) > 1:
                    found[tuple(word)] += times
                word = []
            if letters.isalpha() or piece == SPACE:
                word.append(piece)
    return found


def new_merges(words: Mapping[tuple[str, ...], int], count: int, known: Iterable[str] = ()) -> list[Merge]:
    """Up to `count` merges by byte-pair encoding, the most frequent pair first, and equal ones in order of spelling.

    Args:
        words: pieces of each word, and how often it occurs in the texts.
        known: pieces that no merge may make again.
    """
    left = dict(words)
    taken, merges = set(known), list[Merge]()
    while len(merges) < count:
        pairs: Counter[Merge] = Counter()
        for word, times in left.items():
            for pair in pairwise(word):
                if "".join(pair) not in taken:
                    pairs[pair] += times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        taken.add("".join(best))
        merged: dict[tuple[str, ...], int] = {}
        for word, times in left.items():
            shorter = _merged(word, best)
            merged[shorter] = merged.get(shorter, 0) + times
        left = merged
    return merges


def _merged(word: tuple[str, ...], pair: Merge) -> tuple[str, ...]:
    found: list[str] = []
    for piece in word:
        if found and (found[-1], piece) == pair:
            found[-1] += piece
        else:
            found.append(piece)
    return tuple(found)


def grown_tokenizer(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], count: int, folder: Path
) -> tuple[PreTrainedTokenizerFast, dict[str, tuple[str, ...]]]:
    """A tokenizer with up to `count` more pieces for words of these texts, and the old pieces that spell each new one.

    The old pieces keep their ids; GPT4RoI's added tokens follow the new pieces. The new vocabulary is kept in `folder`,
    as `grown.json`, and read from there if it exists.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary, known = model["vocab"], model["merges"]
    path = folder / "grown.json"
    if path.exists():
        merges = [(left, right) for left, right in read_json(path)["model"]["merges"][len(known) :]]
    else:
        merges = new_merges(words_of(texts, tokenizer), count, vocabulary)
    spelled: dict[str, tuple[str, ...]] = {}
    for left, right in merges:
        spelled[left + right] = spelled.get(left, (left,)) + spelled.get(right, (right,))
    if not path.exists():
        model["vocab"] = vocabulary | {piece: len(vocabulary) + k for k, piece in enumerate(spelled)}
        model["merges"] = [*known, *merges]
        write_json(path, {"model": model})
    return tokenizer_from_json(path, model_max_length=tokenizer.model_max_length), spelled


@torch.no_grad()
def grow(
    model: GPT4RoIForConditionalGeneration,
    old: PreTrainedTokenizerBase,
    new: PreTrainedTokenizerBase,
    spelled: Mapping[str, tuple[str, ...]],
) -> None:
    """Give the model rows for the new pieces, in place, and move those of the old ones to their new ids."""
    numbers = old.get_vocab()
    pieces = sorted(new.get_vocab().items(), key=lambda item: item[1])
    rows = [[numbers[part] for part in spelled.get(piece, (piece,))] for piece, _ in pieces]
    model.resize_token_embeddings(len(rows), mean_resizing=False)
    language = model.language_model
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        for weight in layer.parameters():
            weight.copy_(torch.stack([weight[row].mean(0) for row in rows]))
    for text_config in (model.config.text_config, language.config):
        text_config.pad_token_id = new.pad_token_id
    language.model.padding_idx = model.get_input_embeddings().padding_idx = new.pad_token_id
    model.config.image_token_id = token_id_of(IMAGE_TOKEN, new)
    model.config.region_token_id = token_id_of(REGION_TOKEN, new)


def deepened(model: GPT4RoIForConditionalGeneration, *, vision: int, text: int) -> GPT4RoIForConditionalGeneration:
    """The same model with more layers: `vision` at the end of the tower, `text` in the middle of the language model.

    What a new layer adds to its input is zero at first, so that the model computes what it did. Region levels keep
    their layers; image tokens are made of the last one.
    """
    config = GPT4RoIConfig(**model.config.to_dict())
    old = config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers
    config.region_config.feature_layers = model.config.feature_layers
    config.vision_config.num_hidden_layers += vision
    config.text_config.num_hidden_layers += text
    config.vision_feature_layer = -1
    deeper = GPT4RoIForConditionalGeneration(config)
    middle = (old[1] + 1) // 2
    deeper.load_state_dict(
        {_moved(name, middle, text): value for name, value in model.state_dict().items()}, strict=False
    )
    new_tower = deeper.vision_tower.encoder.layers[old[0] :]
    new_text = deeper.language_model.model.layers[middle : middle + text]
    with torch.no_grad():
        for layer in new_tower:
            for out in (layer.self_attn.out_proj, layer.mlp.fc2):
                out.weight.zero_()
                out.bias.zero_()
        for layer in new_text:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    deeper.generation_config = model.generation_config
    return deeper.eval()


def _moved(name: str, middle: int, more: int) -> str:
    """The name of a parameter after `more` layers were put before language layer `middle`."""
    found = re.match(r"(language_model\.model\.layers\.)(\d+)(\..*)", name)
    if found is None or int(found[2]) < middle:
        return name
    return f"{found[1]}{int(found[2]) + more}{found[3]}"
