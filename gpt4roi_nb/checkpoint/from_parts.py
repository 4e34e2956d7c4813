"""A GPT4RoI to train, from a pretrained language model and a pretrained vision tower of any kind."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import logging

from gpt4roi_nb.checkpoint.check import (
    OPTIONAL_FILES,
    PROCESSOR_FILES,
    UNBUILDABLE,
    check_layers,
    check_numbers,
    check_what_is_loaded,
    read_config,
    tower_in,
    undescribed,
)
from gpt4roi_nb.checkpoint.device import choose_device
from gpt4roi_nb.checkpoint.hub import Source, locate
from gpt4roi_nb.checkpoint.load import load_processor, load_weights
from gpt4roi_nb.checkpoint.shards import Shards
from gpt4roi_nb.config import GPT4RoIConfig, GPT4RoIRegionConfig, check_values
from gpt4roi_nb.files import read_json
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import CLIP_MEAN, CLIP_STD, GPT4RoIImageProcessor, GPT4RoIProcessor
from gpt4roi_nb.prompt import SYSTEM, token_id_of
from gpt4roi_nb.tokenizer import (
    ADDED_TOKENS,
    IMAGE_TOKEN,
    REGION_TOKEN,
    add_gpt4roi_tokens,
    tokenizer_from_sentencepiece,
)

_Path = str | os.PathLike[str]
JSON_FILES = (*PROCESSOR_FILES, *OPTIONAL_FILES)


def assemble_from_parts(
    language_model: _Path,
    vision_tower: _Path,
    *,
    region_config: GPT4RoIRegionConfig | dict[str, Any] | None = None,
    chat_format: str | None = None,
    system: str | None = None,
    image_mean: Sequence[float] | None = None,
    image_std: Sequence[float] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> tuple[GPT4RoIForConditionalGeneration, GPT4RoIProcessor]:
    """Make the model and its processor; the arguments and errors are those of `GPT4RoI.from_parts`."""
    language_source, tower_source = (locate(path, "model", one_word=True) for path in (language_model, vision_tower))
    target = choose_device(device)
    # Everything that can be checked without the weights comes first: they may be gigabytes.
    values = [check_what_is_loaded(source.folder, JSON_FILES) for source in (language_source, tower_source)]
    text_config, vision_config = _text_config(language_source, values[0]), _vision_config(tower_source, values[1])
    canonical = None if chat_format == "template" else _canonical(language_source, text_config, chat_format)
    if canonical is not None:
        tokenizer, known = canonical
    else:
        tokenizer = _tokenizer(language_source)
        known = set(tokenizer.get_vocab())
        add_gpt4roi_tokens(tokenizer)
    config = GPT4RoIConfig(
        text_config=text_config,
        vision_config=vision_config,
        region_config=region_config,
        image_token_id=token_id_of(IMAGE_TOKEN, tokenizer),
        region_token_id=token_id_of(REGION_TOKEN, tokenizer),
    )
    _ = config.feature_layers  # raises where the tower is not deep enough
    empty = (
        _built(AutoModelForCausalLM, language_source, values[0], text_config),
        _built(AutoModel, tower_source, values[1], config.vision_config),
    )
    image_processor = _image_processor(tower_source, config.vision_config, image_mean, image_std)
    if chat_format is None:
        chat_format = "template" if tokenizer.chat_template else "gpt4roi"
    processor = GPT4RoIProcessor(
        image_processor,
        tokenizer,
        num_image_tokens=config.num_image_tokens,
        system=system if system is not None else "" if chat_format == "template" else SYSTEM,
        chat_format=chat_format,
    )

    for source, said, model in zip((language_source, tower_source), values, empty, strict=True):
        source.get_weights()
        _check_weights(source, said, model)
    dtype = dtype or (torch.float32 if target.type == "cpu" else "auto")
    language = _loaded(AutoModelForCausalLM, language_source, dtype=dtype)
    if canonical is not None:
        _name_ends(language, tokenizer)
    _make_rows(language, [index for token, index in tokenizer.get_vocab().items() if token not in known])
    tower = _loaded(AutoModel, tower_source, config=config.vision_config, dtype=language.dtype)
    config.text_config, config.vision_config = language.config, tower.config
    whole = _assembled(config, tower, language)
    whole.generation_config = _generation_config(language, processor)
    return whole.to(target).eval(), processor


def _built(auto: Any, part: Source, values: Mapping[str, Any], config: PreTrainedConfig) -> nn.Module:
    """Build a part without values; raise ValueError if its configuration is not that of such a model."""
    check_layers(part.name, values, {} if part.is_remote else Shards(part.folder).tensors)
    try:
        with torch.device("meta"):
            made: nn.Module = auto.from_config(copy.deepcopy(config), trust_remote_code=False)
    except UNBUILDABLE as error:
        raise undescribed(part.name, f"model for {auto.__name__}", error) from error
    return made


def _check_weights(part: Source, values: Mapping[str, Any], model: nn.Module) -> None:
    """Raise ValueError if a part's weights are links out of its folder, unreadable or not floating-point numbers."""
    stored = Shards(part.folder).tensors
    check_layers(part.name, values, stored)
    if values.get("quantization_config") is not None:
        return  # quantised weights are integers
    check_numbers(part.name, model, stored)
    words = {name.rpartition(".")[2] for name, _ in model.named_parameters()}
    for name, tensor in stored.items():
        if name.rpartition(".")[2] in words and not tensor.dtype.is_floating_point:
            raise ValueError(
                f"{name} in {str(tensor.file)!r} is stored as {tensor.dtype}; expected floating-point numbers: it "
                "was not saved as weights, copy it again"
            )


def _text_config(part: Source, values: Mapping[str, Any]) -> PreTrainedConfig:
    """The language model's configuration; raises ValueError if it does not describe one."""
    config: PreTrainedConfig = read_config(part.folder, values, part.name, "language model")
    _check_values("text_config", part, config)
    return config


def _vision_config(part: Source, values: Mapping[str, Any]) -> PreTrainedConfig:
    """The tower's configuration, also from that of a whole model with a tower, such as CLIP."""
    config: Any = tower_in(read_config(part.folder, values, part.name, "vision tower"))
    for name in ("image_size", "patch_size", "hidden_size", "num_hidden_layers"):
        if not isinstance(value := getattr(config, name, None), int):
            raise ValueError(
                f"{part.name!r} cannot be the vision tower: its configuration ({config.model_type}) must give {name} "
                f"as one integer, but gives {value}; take a tower with a square grid of patches, such as CLIP, SigLIP, "
                "DINOv2 or ViT"
            )
    _check_values("vision_config", part, config)
    return config


def _check_values(section: str, part: Source, config: PreTrainedConfig) -> None:
    try:
        check_values(section, config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"config.json of {part.name!r} gives invalid sizes ({error}); copy it again") from error


def _image_processor(
    part: Source, config: PreTrainedConfig, mean: Sequence[float] | None, std: Sequence[float] | None
) -> GPT4RoIImageProcessor:
    """The image processor, with the given mean and standard deviation of each channel, or those of the tower's
    preprocessor_config.json."""
    if mean is not None and std is not None:
        return GPT4RoIImageProcessor(config.image_size, mean, std)
    try:
        said, _ = BaseImageProcessor.get_image_processor_dict(part.folder)
    except OSError:
        # Every CLIP has been trained with the same; those of other towers cannot be guessed.
        said = {"image_mean": CLIP_MEAN, "image_std": CLIP_STD} if config.model_type.startswith("clip") else {}
    if isinstance(said, dict):
        mean, std = mean or said.get("image_mean"), std or said.get("image_std")
    if mean is None or std is None:
        raise ValueError(
            f"the preprocessor_config.json of {part.name!r} must say how images are normalised, but has no image_mean "
            "and image_std; give them, such as image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]"
        )
    try:
        return GPT4RoIImageProcessor(config.image_size, mean, std)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the preprocessor_config.json of {part.name!r} does not say how images are normalised ({error}); copy it "
            "again, or give image_mean and image_std"
        ) from error


def _tokenizer(part: Source) -> PreTrainedTokenizerBase:
    # Prompts are padded on the left, so that the model can continue a batch of them.
    read = partial(AutoTokenizer.from_pretrained, trust_remote_code=False, padding_side="left")
    tokenizer: PreTrainedTokenizerBase = load_processor(read, part, ("tokenizer.json", "tokenizer_config.json"))
    if not tokenizer.is_fast:
        raise ValueError(
            f"{part.name!r} must have a fast tokenizer (tokenizer.json), which gives each token's position in a text, "
            f"but has a {type(tokenizer).__name__}; convert it"
        )
    return tokenizer


def _canonical(
    part: Source, config: PreTrainedConfig, chat_format: str | None
) -> tuple[PreTrainedTokenizerBase, set[str]] | None:
    """A LLaMA's tokenizer with SentencePiece's own ids, which GPT4RoI was trained with.

    Returns:
        The tokenizer, and the tokens that already have a row; None if there is no tokenizer.model, the chat has a
        template, or the files give tokens other ids.

    Raises:
        ValueError: tokenizer.model is not a SentencePiece model.
    """
    file, added = part.folder / "tokenizer.model", part.folder / "added_tokens.json"
    if config.model_type != "llama" or not file.is_file():
        return None
    said = part.folder / "tokenizer_config.json"
    content = read_json(said) if said.is_file() else {}
    if chat_format is None and (content.get("chat_template") or (part.folder / "chat_template.jinja").is_file()):
        return None
    own = {str(token): index for token, index in (read_json(added) if added.is_file() else {}).items()}
    try:
        own |= {entry["content"]: int(index) for index, entry in content.get("added_tokens_decoder", {}).items()}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"the added_tokens_decoder in {str(said)!r} must give a token with its content by each id "
            f"({type(error).__name__}: {error}); copy the file again"
        ) from error
    tokenizer = tokenizer_from_sentencepiece(file, model_max_length=getattr(config, "max_position_embeddings", 2048))
    vocabulary = tokenizer.get_vocab()
    if any(vocabulary.get(token) != index for token, index in own.items()):
        return None
    return tokenizer, vocabulary.keys() - set(ADDED_TOKENS) | own.keys()


def _name_ends(language: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Take the ids of special tokens from the tokenizer: early conversions of LLaMA wrote wrong ones."""
    for config in (language.config, language.generation_config):
        config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id


def _loaded(auto: Any, part: Source, **kwargs: Any) -> PreTrainedModel:
    """Load a model, all of whose tensors must be in its checkpoint; others in it, such as CLIP's text tower, may be."""
    said = logging.get_verbosity()
    logging.set_verbosity_error()  # otherwise the list of unused tensors would fill a page
    try:
        model: PreTrainedModel = load_weights(
            partial(auto.from_pretrained, trust_remote_code=False), part, others=True, **kwargs
        )
    finally:
        logging.set_verbosity(said)
    return model


@torch.no_grad()
def _make_rows(language: PreTrainedModel, new: Sequence[int]) -> None:
    """Make embedding rows for new ids: the mean of the rows before them, so that they do not stand out.

    A model may have more rows than its tokenizer had tokens; the new ids are then among those.
    """
    if not new:
        return
    rows = max(language.config.get_text_config().vocab_size, max(new) + 1)
    language.resize_token_embeddings(rows, mean_resizing=False)
    for embeddings in (language.get_input_embeddings(), language.get_output_embeddings()):
        for values in embeddings.parameters():  # the weight, and a bias where there is one
            values[list(new)] = values[: min(new)].mean(dim=0, dtype=torch.float32).to(values.dtype)


def _assembled(config: GPT4RoIConfig, tower: PreTrainedModel, language: PreTrainedModel) -> Any:
    """The whole model, without allocating a second language model first."""
    with torch.device("meta"):
        model = GPT4RoIForConditionalGeneration(config)
    model.vision_tower, model.language_model = tower, language
    for fresh in (model.multi_modal_projector, model.region_encoder):
        made: nn.Module = fresh.to_empty(device=language.device)
        made.apply(model._init_weights).to(language.dtype)
    return model


def _generation_config(language: PreTrainedModel, processor: GPT4RoIProcessor) -> Any:
    """The language model's generation config, with the end of the template's turn as another end."""
    tokenizer = processor.tokenizer
    config = copy.deepcopy(language.generation_config)
    own = config.eos_token_id
    ends = [own] if isinstance(own, int) else list(own or [])
    ends.append(tokenizer.eos_token_id)
    if processor.end_of_turn is not None:
        ends.append(token_id_of(processor.end_of_turn, tokenizer))
    config.eos_token_id = [*dict.fromkeys(end for end in ends if end is not None)]
    config.pad_token_id = tokenizer.pad_token_id
    return config
