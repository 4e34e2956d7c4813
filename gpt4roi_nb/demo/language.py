"""The later phases: the language model learns to say what the region vectors and image tokens tell."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt4roi_nb.demo.bank import SceneBank
from gpt4roi_nb.demo.curriculum import MOST_TURNS, REGION_SHARES, SHARES, draw_conversation, draw_family
from gpt4roi_nb.demo.recipe import Recipe
from gpt4roi_nb.demo.rows import RowBuilder, Rows
from gpt4roi_nb.demo.vision import Readers, draw_batch, see
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.prompt import IGNORE, ROLES, TURN_MARK, token_id_of

DECISIONS = ("yes", "no", "left", "right", "in", "behind")
DECISION_WEIGHT = 5.0
ENDINGS = (f"▁{ROLES['assistant']}", ":", "<0x0A>", TURN_MARK)
ENDING_WEIGHT = 0.1


class Talking(nn.Module):
    """What the joint phase trains: the whole model, and the readers beside it."""

    def __init__(self, model: GPT4RoIForConditionalGeneration, readers: Readers) -> None:
        super().__init__()
        self.model = model
        self.readers = readers


@torch.no_grad()
def scale_words(model: GPT4RoIForConditionalGeneration, scale: float) -> None:
    """Draws the word embeddings afresh, in place, at the scale that region and image tokens have."""
    for weight in model.get_input_embeddings().parameters():
        nn.init.normal_(weight, std=scale)


def rows_loss(
    model: GPT4RoIForConditionalGeneration,
    rows: Rows,
    image_features: Tensor | None,
    region_vectors: Tensor,
    token_weights: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy over the answers of packed rows, weighted by token where weights are given.

    image_features: (B, grid², D), or None for rows without image tokens. region_vectors: (objects of all images, D).
    """
    hidden = model.language_model.model(
        inputs_embeds=model.embed(rows.input_ids, image_features, region_vectors[rows.regions]),
        position_ids=rows.position_ids,
        use_cache=False,
        prefix_length=rows.prefix_length,
        slot_length=rows.slot_length,
    ).last_hidden_state
    targets = rows.labels[:, 1:]
    learnt = targets != IGNORE
    logits = model.language_model.lm_head(hidden[:, :-1][learnt])
    losses = F.cross_entropy(logits.float(), targets[learnt], reduction="none")
    if token_weights is None:
        return losses.mean()
    weights = token_weights[targets[learnt]]
    return (weights * losses).sum() / weights.sum()


def decision_weights(processor: GPT4RoIProcessor) -> Tensor:
    """(V,) weight of each token's loss: words that decide an answer weigh more, what every answer ends with less."""
    tokenizer = processor.tokenizer
    weights = torch.ones(len(tokenizer))
    weights[[token_id_of(f"▁{word}", tokenizer) for word in DECISIONS]] = DECISION_WEIGHT
    weights[[token_id_of(token, tokenizer) for token in ENDINGS]] = ENDING_WEIGHT
    return weights


def talk_step(
    talking: Talking,
    builder: RowBuilder,
    bank: SceneBank,
    recipe: Recipe,
    rng: np.random.Generator,
    *,
    joint: bool,
    token_weights: Tensor | None = None,
    long_share: float = 0.0,
) -> dict[str, Tensor]:
    """Losses of one batch of conversations about random scenes; about regions alone where rows have no image tokens.

    Args:
        joint: also train tower and region encoder, with the readers' loss beside; else they are frozen.
        token_weights: as `rows_loss` takes them.
        long_share: share of batches with conversations of 2 to `MOST_TURNS` turns (and fewer of them).
    """
    model = talking.model
    indices = rng.integers(len(bank), size=recipe.images_a_step).tolist()
    batch = draw_batch(bank, indices, recipe.box_jitter, rng)
    long = rng.random() < long_share
    number = max(recipe.questions_an_image // MOST_TURNS, 1) if long else recipe.questions_an_image
    shares = SHARES if builder.image_tokens else REGION_SHARES
    if not long:
        shares = draw_family(shares, rng)
    conversations = []
    for index in indices:
        scene = bank.scene(index)
        turns = rng.integers(2, MOST_TURNS + 1, size=number) if long else np.ones(number, int)
        conversations.append([draw_conversation(scene, int(count), rng, shares) for count in turns])
    rows = builder.rows(conversations, [len(boxes) for boxes in batch.boxes])
    with torch.autocast("cpu", torch.bfloat16):
        with torch.set_grad_enabled(joint):
            encoding, regions = see(model, batch.pixel_values, batch.boxes)
        losses = {
            "words": rows_loss(
                model, rows, encoding.image_features if builder.image_tokens else None, regions, token_weights
            )
        }
        if joint:
            readers = talking.readers.losses(encoding.image_features, regions, batch)
            losses.update({name: recipe.attribute_share * loss for name, loss in readers.items()})
    return losses
