"""The logit lens: the words nearest to a region or image token after each layer of the language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.capture.storage import float32_copy
from gpt4roi_nb.inference.encoded_image import EncodedImage
from gpt4roi_nb.prompt import DEFAULT_QUESTION
from gpt4roi_nb.tokenizer import token_texts

CAVEAT = (
    "The logit lens reads every layer with the vocabulary of the last one. Earlier layers write in directions of their "
    "own, so their words may mean nothing, and a position is trained to say what comes next, not what is there "
    "(nostalgebraist 2020; Belrose et al. 2023, arXiv 2303.08112; for image tokens Neo et al. 2024, arXiv 2410.07149, "
    "who find words for the objects from the middle layers on)."
)


@dataclass(frozen=True, eq=False)
class LogitLens:
    """The likeliest words at each token after each layer.

    Attributes:
        words: [layer][row][k], the likeliest first; layer 0 is the embedding itself, before the first layer.
        probabilities: (layers + 1, rows, k) float32.
        caveat: what the lens does not show.

    Examples:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> scene = make_scene(5)
        >>> gpt4roi = GPT4RoI.from_pretrained(device="cpu")
        >>> features = gpt4roi.session(scene.image).roi_features([scene.objects[0].box])
        >>> lens = features.logit_lens(k=3)
        >>> layers = gpt4roi.model.config.text_config.num_hidden_layers
        >>> lens.probabilities.shape == (layers + 1, 1, 3) and len(lens.words[-1][0])
        3
    """

    words: list[list[list[str]]]
    probabilities: Tensor
    caveat: str = CAVEAT


@torch.inference_mode()
def read_words(encoded: EncodedImage, boxes: Sequence[Box], of: str, k: int) -> LogitLens:
    """Read the words; see `RoIFeatures.logit_lens`.

    Args:
        encoded: the image.
        boxes: pixel xyxy.
        of: "regions" or "image".
        k: words per row.
    """
    model, processor = encoded.loaded.model, encoded.loaded.processor
    k = min(k, model.config.text_config.vocab_size)
    prompt = processor.prompt([("user", DEFAULT_QUESTION)])
    asked: list[Box | None] = [None] if of == "image" else [*boxes]
    positions = prompt.spans["image" if of == "image" else "region1"]
    end = positions[-1] + 1  # later tokens cannot change it
    norm, read = _final_norm(model.language_model), model.language_model.get_output_embeddings()
    values, indices = [], []
    for box in asked:
        with encoded.loaded.inference():
            if box is None:
                ids = torch.tensor([prompt.input_ids[:end]], device=encoded.loaded.device)
                embeddings = model.embed(ids, encoded.encoding.image_features, None)
            else:
                embeddings = encoded.embed(prompt, [box])[:, :end]
            states = model.language_model.get_decoder()(
                inputs_embeds=embeddings, use_cache=False, output_hidden_states=True
            ).hidden_states
            found = []
            for layer, state in enumerate(states):
                chosen = state[0, positions]
                # transformers returns the last state with the final norm already applied
                logits = read(chosen if layer == len(states) - 1 else norm(chosen.to(read.weight.device)))
                # Reduced layer by layer: all places × the whole vocabulary of all layers would take gigabytes.
                found.append(logits.float().cpu().softmax(dim=-1).topk(k, dim=-1))
        values.append(torch.stack([layer_found.values for layer_found in found]))
        indices.append(torch.stack([layer_found.indices for layer_found in found]))
    layers = model.config.text_config.num_hidden_layers + 1
    if not values:
        return LogitLens([[] for _ in range(layers)], torch.zeros(layers, 0, k))
    words = [[token_texts(row, processor.tokenizer) for row in layer] for layer in torch.cat(indices, dim=1).tolist()]
    return LogitLens(words, float32_copy(torch.cat(values, dim=1)))


def _final_norm(language_model: nn.Module) -> nn.Module:
    """Find the norm between the last layer and the vocabulary.

    Raises:
        NotImplementedError: if the language model has none with a known name.
    """
    decoder = language_model.get_decoder()  # type: ignore[operator]
    for name in ("norm", "ln_f", "final_layer_norm", "final_layernorm"):
        if isinstance(found := getattr(decoder, name, None), nn.Module):
            return found
    raise NotImplementedError(f"{type(decoder).__name__} has no final norm of a known name; the lens cannot read it")
