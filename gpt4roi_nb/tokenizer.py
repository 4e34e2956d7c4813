"""Tokenizers with the ids that GPT4RoI was trained on, from a SentencePiece file.

The model was trained with LLaMA's slow SentencePiece tokenizer. transformers 5 no longer has it, and its own conversion
of the file gives other ids around added tokens. This one gives SentencePiece's ids exactly, as a fast tokenizer that
`save_pretrained` and `AutoTokenizer` preserve.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gpt4roi_nb.files import read_json
from gpt4roi_nb.typed import typed

PAD_TOKEN = "[PAD]"
IMAGE_TOKEN = "<im_patch>"
REGION_TOKEN = "<bbox>"
POINT_TOKEN = "<point>"  # a released checkpoint has a row for it; nothing uses it
IMAGE_START_TOKEN = "<im_start>"
IMAGE_END_TOKEN = "<im_end>"
# In the order of a released checkpoint's embedding rows after the base vocabulary.
ADDED_TOKENS = (PAD_TOKEN, IMAGE_TOKEN, REGION_TOKEN, POINT_TOKEN, IMAGE_START_TOKEN, IMAGE_END_TOKEN)

LLAMA_BOS, LLAMA_EOS, LLAMA_UNK = "<s>", "</s>", "<unk>"
_SPACE = "▁"


def tokenizer_from_sentencepiece(
    path: str | os.PathLike[str], *, model_max_length: int = 2048
) -> PreTrainedTokenizerFast:
    """Make a fast tokenizer from a SentencePiece BPE `tokenizer.model`, with GPT4RoI's tokens added in their order.

    Args:
        path: the SentencePiece file.
        model_max_length: tokens that the model can take.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a SentencePiece model.
    """
    import sentencepiece

    if not os.path.isfile(path):
        raise FileNotFoundError(f"no SentencePiece model at {os.fspath(path)!r}; expected a tokenizer.model file")
    pieces = sentencepiece.SentencePieceProcessor()
    try:
        pieces.Load(os.fspath(path))
        vocabulary = {pieces.id_to_piece(index): index for index in range(len(pieces))}
        bos, eos, unk = (pieces.id_to_piece(index) for index in (pieces.bos_id(), pieces.eos_id(), pieces.unk_id()))
        merges = _merges(pieces, vocabulary)
    except (RuntimeError, OSError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{os.fspath(path)!r} is not a SentencePiece model: {error}") from error
    return _canonical(vocabulary, merges, bos, eos, unk, model_max_length)


def tokenizer_from_json(path: str | os.PathLike[str], *, model_max_length: int = 2048) -> PreTrainedTokenizerFast:
    """Make the same from the vocabulary and merges of a `tokenizer.json` converted from a LLaMA `tokenizer.model`.

    Args:
        path: the `tokenizer.json`.
        model_max_length: tokens that the model can take.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not JSON, or not a byte-fallback BPE with LLaMA's special tokens.
    """
    file = Path(path)
    model = read_json(file).get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise ValueError(
            f"{str(file)!r} was not converted from a LLaMA tokenizer.model (it is not a BPE with byte_fallback); get "
            "that file itself"
        )
    vocabulary = typed(model.get("vocab"), dict[str, int], f"the vocabulary of {str(file)!r}")
    pairs = typed(model.get("merges"), list[Any], f"the merges of {str(file)!r}")
    merges = [
        typed(pair.split(" ") if isinstance(pair, str) else pair, tuple[str, str], f"each of the merges of {file}")
        for pair in pairs
    ]
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError(f"the vocabulary of {str(file)!r} must number its tokens from 0 without gaps; copy it again")
    if unknown := [pair for pair in merges if not vocabulary.keys() >= {*pair, "".join(pair)}]:
        raise ValueError(f"{str(file)!r} merges {unknown[0]}, but lacks one of them or what they make; copy it again")
    absent = [token for token in (LLAMA_BOS, LLAMA_EOS, LLAMA_UNK) if token not in vocabulary]
    if absent:
        raise ValueError(f"the vocabulary of {str(file)!r} lacks {', '.join(absent)}; expected LLaMA's tokenizer")
    return _canonical(vocabulary, merges, LLAMA_BOS, LLAMA_EOS, LLAMA_UNK, model_max_length)


def canonical_tokenizer(folder: str | os.PathLike[str], *, model_max_length: int = 2048) -> PreTrainedTokenizerFast:
    """Make the tokenizer of a LLaMA folder from its `tokenizer.model`, or else from its `tokenizer.json`.

    Args:
        folder: has one of the two files.
        model_max_length: tokens that the model can take.

    Raises:
        FileNotFoundError: if it has neither.
        ValueError: if the file is not LLaMA's.
    """
    for name, make in (("tokenizer.model", tokenizer_from_sentencepiece), ("tokenizer.json", tokenizer_from_json)):
        file = Path(folder) / name
        if file.is_file():
            return make(file, model_max_length=model_max_length)
    raise FileNotFoundError(
        f"{os.fspath(folder)!r} lacks tokenizer.model, and tokenizer.json as well; copy one of them into it"
    )


def _canonical(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], bos: str, eos: str, unk: str, model_max_length: int
) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=unk, fuse_unk=True, byte_fallback=True))
    # A space is always put in front, even before a space, once per run of text between added tokens.
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocabulary[bos])]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        pad_token=_added(PAD_TOKEN),
        model_max_length=model_max_length,
        padding_side="left",  # so that a batch of prompts can be continued
        clean_up_tokenization_spaces=False,
    )
    add_gpt4roi_tokens(tokenizer)
    return tokenizer


def add_gpt4roi_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """Add the missing tokens of `ADDED_TOKENS` to a tokenizer, in their order; return how many were missing."""
    added = tokenizer.add_special_tokens({"pad_token": _added(PAD_TOKEN)}) if tokenizer.pad_token is None else 0
    return added + tokenizer.add_tokens([_added(token) for token in ADDED_TOKENS[1:]], special_tokens=True)


def _added(content: str) -> AddedToken:
    # White space next to an added token is dropped, as by the slow tokenizer.
    return AddedToken(content, lstrip=True, rstrip=True, normalized=False, special=True)


def _merges(pieces: Any, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """List every way to make a piece from two pieces, best score first: SentencePiece's rule as BPE merges."""
    ranked = []
    for index in range(len(pieces)):
        if pieces.is_control(index) or pieces.is_unknown(index) or pieces.is_byte(index):
            continue
        piece = pieces.id_to_piece(index)
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                ranked.append((-pieces.get_score(index), vocabulary[left], vocabulary[right], left, right))
    return [(left, right) for *_, left, right in sorted(ranked)]


def token_texts(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the text of each token, with the space that it begins with; special tokens by their names."""
    different = list(dict.fromkeys(ids))  # an image's tokens are all the same
    texts = {}
    for token_id, piece in zip(different, tokenizer.convert_ids_to_tokens(different), strict=True):
        text = str(tokenizer.decode([token_id], skip_special_tokens=False, clean_up_tokenization_spaces=False))
        # Some decoders drop the space at the beginning of a text, which SentencePiece writes as ▁ and byte BPE as Ġ.
        begins = piece is not None and piece.startswith(("▁", "Ġ"))
        texts[token_id] = f" {text}" if begins and not text.startswith(" ") else text
    return [texts[token_id] for token_id in ids]
