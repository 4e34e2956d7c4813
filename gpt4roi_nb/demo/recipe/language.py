"""The language model learns to read region vectors and image tokens: first made of symbols, then of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt4roi_nb.data.scenes.question_kinds import DEPTH_MARGIN, SIDE_MARGIN
from gpt4roi_nb.data.scenes.scene import MAX_OBJECTS, Scene
from gpt4roi_nb.demo.recipe.bank import SceneBank
from gpt4roi_nb.demo.recipe.curriculum import (
    Conversation,
    Family,
    Mix,
    careless,
    draw_conversation,
    draw_family,
    out_of_domain_conversation,
)
from gpt4roi_nb.demo.recipe.hidden import HiddenStates, encode
from gpt4roi_nb.demo.recipe.recipe import Recipe
from gpt4roi_nb.demo.recipe.rows import RowBuilder, Rows
from gpt4roi_nb.demo.recipe.symbols import NUMBERS, PLACE_SCALES, PLACES, Code, attribute_loss, some_objects
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.prompt import IGNORE, ROLES, TURN_MARK, token_id_of

DECISIONS = ("▁yes", "▁no", "▁left", "▁right", "▁in", "▁behind", *"0123456789ABCD")
DECISION_WEIGHT = 5.0
ENDINGS = (f"▁{ROLES['assistant']}", ":", "<0x0A>", TURN_MARK)
ENDING_WEIGHT = 0.1
# Weights of the throw-away heads' losses.
WEIGHTS = {
    "tallies": 3.0,
    "totals": 3.0,
    "counts": 2.0,
    "names": 1.0,
    "pairs": 6.0,
    "claims": 1.0,
    "so far": 2.0,
    "options": 3.0,
}
ORDERS = (0, 3)  # of the places of `symbols`: those by which pairs are ordered, from left to right and from near to far
CLEAR = np.array([SIDE_MARGIN, DEPTH_MARGIN], np.float32) / PLACE_SCALES[list(ORDERS)]  # margins of the questions


class ProbeHeads(nn.Module):
    """Throw-away heads that read from hidden states, layer by layer, what an answer is based on.

    They read:

    - at each image token, how many objects of each value there are so far;
    - where a question says what it counts, how many objects there are of each value, and of what it counts;
    - where a region is named, its attributes and place;
    - where it is named after another one, which attributes both share, and which is further left and which is nearer;
    - where a word names a value, whether the region has it;
    - in each option of a multiple-choice question, whether it is true up to there.

    Without them a question of 150 tokens would teach through a single letter.
    """

    # How many layers before the last each head reads; later ones build on earlier ones.
    NAMES = 3
    TALLIES = PAIRS = CLAIMS = 2
    COUNTS = OPTIONS = 1

    def __init__(self, width: int) -> None:
        super().__init__()

        def head(outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

        self.names, self.pairs = head(sum(NUMBERS) + PLACES), head(len(NUMBERS) + len(ORDERS))
        self.claims, self.options = head(1), head(1)
        self.tallies, self.totals, self.counts = head(sum(NUMBERS)), head(sum(NUMBERS)), head(MAX_OBJECTS + 1)

    def losses(self, hidden: Sequence[Tensor], rows: Rows) -> dict[str, Tensor]:
        """hidden: one (B, T, D) per layer, the embeddings first. Losses by name, for what the rows hold."""

        def state(before: int) -> Tensor:
            return hidden[max(0, len(hidden) - 1 - before)]

        def read(head: nn.Module, before: int, at: Tensor) -> Tensor:
            outputs: Tensor = head(state(before)[at[:, 0], at[:, 1]])
            return outputs.float()

        found = {}
        count = rows.tallies.shape[1]
        if count:
            tokens = state(self.TALLIES)[:, rows.image_start : rows.image_start + count]
            found["tallies"] = F.mse_loss(self.tallies(tokens).float(), rows.tallies)
        if count and len(rows.count_at):
            totals = rows.tallies[rows.count_at[:, 0], -1]
            found["totals"] = F.mse_loss(read(self.totals, self.COUNTS, rows.count_at), totals)
            found["counts"] = F.cross_entropy(read(self.counts, self.COUNTS, rows.count_at), rows.counts)
        if len(rows.name_at):
            named, placed = read(self.names, self.NAMES, rows.name_at).split([sum(NUMBERS), PLACES], dim=1)
            of_attributes = attribute_loss(named, rows.attributes[rows.name_objects]) / len(NUMBERS)
            found["names"] = of_attributes + F.mse_loss(placed, rows.places[rows.name_objects])
        if len(rows.pair_at):
            true, clear = relations(rows)
            logits_of_pairs = read(self.pairs, self.PAIRS, rows.pair_at)
            each = F.binary_cross_entropy_with_logits(logits_of_pairs, true.float(), reduction="none")
            found["pairs"] = ((each * clear).sum(0) / clear.sum(0).clamp(min=1)).mean()
        for name, head, before, at, right in (
            ("claims", self.claims, self.CLAIMS, rows.claim_at, rows.claim_true),
            ("so far", self.options, self.OPTIONS, rows.so_far_at, rows.so_far_true),
            ("options", self.options, self.OPTIONS, rows.option_at, rows.option_right),
        ):
            if len(at):
                found[name] = F.binary_cross_entropy_with_logits(read(head, before, at)[:, 0], right.float())
        return {name: WEIGHTS[name] * loss for name, loss in found.items()}


def relations(rows: Rows) -> tuple[Tensor, Tensor]:
    """Of each pair of regions (n, 6) bool: whether each attribute is shared, whether the first is further left, whether
    it is nearer; and whether that is clear."""
    first, second = rows.pair_objects.unbind(1)
    shared = rows.attributes[first] == rows.attributes[second]
    ahead = (rows.places[second] - rows.places[first])[:, list(ORDERS)]
    clear = torch.cat([torch.ones_like(shared), ahead.abs() >= torch.from_numpy(CLEAR)], dim=1)
    return torch.cat([shared, ahead > 0], dim=1), clear


class LanguagePhase(nn.Module):
    """What the language phases train beside parts of the model: the model, and the throw-away heads."""

    def __init__(self, model: GPT4RoIForConditionalGeneration, probe_heads: ProbeHeads) -> None:
        super().__init__()
        self.model = model
        self.understanding = probe_heads  # the attribute's name stands in the files of a run


@torch.no_grad()
def scale_words(model: GPT4RoIForConditionalGeneration, scale: float) -> None:
    """Draws the word embeddings afresh, in place, at the scale that region and image tokens have."""
    for weight in model.get_input_embeddings().parameters():
        nn.init.normal_(weight, std=scale)


def rows_losses(
    model: GPT4RoIForConditionalGeneration,
    rows: Rows,
    image_features: Tensor | None,
    region_vectors: Tensor,
    token_weights: Tensor | None = None,
    probe_heads: ProbeHeads | None = None,
) -> dict[str, Tensor]:
    """Losses by name: "words", or "letters" of multiple choice, is the mean cross-entropy over the answers of packed
    rows, weighted by token where weights are given.

    image_features: (B, grid², D), or None for rows without image tokens. region_vectors: (objects of all images, D).
    probe_heads: add their losses.
    """
    output = model.language_model.model(
        inputs_embeds=model.embed(rows.input_ids, image_features, region_vectors[rows.regions]),
        position_ids=rows.position_ids,
        use_cache=False,
        output_hidden_states=True,
        prefix_length=rows.prefix_length,
        slot_length=rows.slot_length,
    )
    targets = rows.labels[:, 1:]
    in_loss = targets != IGNORE
    logits = model.language_model.lm_head(output.last_hidden_state[:, :-1][in_loss]).float()
    losses = F.cross_entropy(logits, targets[in_loss], reduction="none")
    weights = torch.ones_like(losses) if token_weights is None else token_weights[targets[in_loss]]
    found = {"letters" if len(rows.option_at) else "words": (weights * losses).sum() / weights.sum()}
    return found if probe_heads is None else {**found, **probe_heads.losses(output.hidden_states, rows)}


def decision_weights(processor: GPT4RoIProcessor) -> Tensor:
    """(V,) weight of each token's loss: words that decide an answer weigh more, what every answer ends with less."""
    tokenizer = processor.tokenizer
    weights = torch.ones(len(tokenizer))
    weights[[token_id_of(word, tokenizer) for word in DECISIONS]] = DECISION_WEIGHT
    weights[[token_id_of(token, tokenizer) for token in ENDINGS]] = ENDING_WEIGHT
    return weights


def draw_rows(
    builder: RowBuilder, scenes: Sequence[Scene], family: Family, rng: np.random.Generator, typed: bool = False
) -> Rows:
    """Conversations of a family about each scene, which is one without objects where an image is not of this world.

    typed: questions come as people type them.
    """
    fewest, most = family.turns

    def conversation_about(scene: Scene) -> Conversation:
        if not scene.objects:
            found = out_of_domain_conversation(scenes[0], scene.image.shape[0], rng)
        else:
            turns = int(rng.integers(fewest, most + 1))
            found = draw_conversation(scene, turns, rng, family.shares, family.followups)
        return careless(found, rng) if typed else found

    conversations = [[conversation_about(scene) for _ in range(family.questions)] for scene in scenes]
    return builder.rows(conversations, scenes)


def symbol_step(
    phase: LanguagePhase,
    builder: RowBuilder,
    families: Mix,
    bank: SceneBank,
    code: Code,
    recipe: Recipe,
    token_weights: Tensor,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """Losses of one batch of conversations about scenes that are described in symbols; no image is used."""
    family = draw_family(families, rng)
    chosen = rng.integers(len(bank), size=family.rows).tolist()
    scenes = [some_objects(bank.scene(index), recipe.plain_objects, rng) for index in chosen]
    rows = draw_rows(builder, scenes, family, rng)
    regions, patches = code.tell(scenes, recipe.grid, rng)
    features = patches if builder.image_tokens else None
    return rows_losses(phase.model, rows, features, regions, token_weights, phase.understanding)


def stage_step(
    phase: LanguagePhase,
    builder: RowBuilder,
    families: Mix,
    states: HiddenStates,
    recipe: Recipe,
    token_weights: Tensor,
    rng: np.random.Generator,
    typed: bool = False,
) -> dict[str, Tensor]:
    """Losses of one batch of conversations about images, whose hidden states are kept.

    typed: questions are worded as people type them, and some images are not of this world.
    """
    family = draw_family(families, rng)
    bank, known = states.bank, states.bank.scenes
    chosen = rng.integers(known, size=family.rows).tolist()
    if family.out_of_domain:
        chosen[-family.out_of_domain :] = rng.integers(known, len(bank), size=family.out_of_domain).tolist()
    rows = draw_rows(builder, [bank.scene(index) for index in chosen], family, rng, typed)
    patches, regions = encode(phase.model, states, chosen, recipe.box_jitter, rng, rows.other_boxes)
    with torch.autocast(patches.device.type, torch.bfloat16, enabled=recipe.autocast):
        return rows_losses(phase.model, rows, patches, regions, token_weights, phase.understanding)
