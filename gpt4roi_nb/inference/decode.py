"""The only decode loop: from prompts' embeddings and a cache to the texts of their answers, token by token."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache

from gpt4roi_nb.arguments import real_number, whole_number
from gpt4roi_nb.finite import nan_error, unchecked_log_probabilities
from gpt4roi_nb.inference.compiled import CompiledWriting
from gpt4roi_nb.inference.detokenizer import StreamingDetokenizer
from gpt4roi_nb.inference.loaded_model import LoadedModel, WeightsChangedError

LOWEST_TEMPERATURE = 1e-6  # logits divided by less overflow
HIGHEST_TEMPERATURE = 1e6  # far below this, all tokens are equally likely already; float32 ends at 3e38
WEIGHTS_CHANGED = (
    "the model was trained while this answer was being written, so its end would come from other weights than its "
    "beginning; ask again (ask() keeps training waiting until the answer is complete)"
)


class Read(Protocol):
    """How a model that is not a GPT4RoI reads B prompts, and then what is written after each."""

    def __call__(self, model: Any, input_ids: Tensor, cache: Cache, attention_mask: Tensor | None) -> Tensor:
        """Map (B, n) ids to logits, (B, m, V), of which the last are those of the last id.

        Args:
            model: the model.
            input_ids: (B, n) int64, what follows the content of the cache.
            cache: grows by n.
            attention_mask: (B, cached + n) int64, 0 for padding; None without padding.
        """

    def keep(self, rows: Tensor) -> None:
        """Continue with these of the B rows only, (b,) int64."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: greedily, or sampled from a nucleus.

    Attributes:
        temperature: 0 takes the likeliest token.
        top_p: probability mass of the nucleus, above 0 and at most 1.
        seed: makes sampling repeatable.

    Raises:
        TypeError: if one of them is not a number.
        ValueError: if one of them is out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        # Frozen for its users; here, NumPy's numbers become Python's.
        object.__setattr__(self, "temperature", real_number(self.temperature, "temperature"))
        object.__setattr__(self, "top_p", real_number(self.top_p, "top_p"))
        if self.seed is not None:
            object.__setattr__(self, "seed", whole_number(self.seed, "seed"))
            if not -(2**63) <= self.seed < 2**63:
                raise ValueError(f"seed must be a whole number of at most 63 bits, or None, but is {self.seed!r}")
        if self.temperature != 0 and not LOWEST_TEMPERATURE <= self.temperature <= HIGHEST_TEMPERATURE:  # or NaN
            raise ValueError(
                f"temperature must be 0 (greedy), or from {LOWEST_TEMPERATURE} to {HIGHEST_TEMPERATURE:g}, but is "
                f"{self.temperature}"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, but is {self.top_p}")

    def generator(self, device: torch.device) -> torch.Generator | None:
        """Make the random generator for a device; None without a seed."""
        if self.seed is None:
            return None
        return torch.Generator(device).manual_seed(self.seed)

    def choose(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """Choose tokens: (B, V) float32 logits → (B,) int64."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        probabilities, order = (logits / self.temperature).softmax(dim=-1).sort(dim=-1, descending=True)
        # A token is kept while the mass before it is below top_p, so the likeliest is always kept.
        outside = probabilities.cumsum(dim=-1) - probabilities >= self.top_p
        drawn = torch.multinomial(probabilities.masked_fill(outside, 0), 1, generator=generator)
        return order.gather(-1, drawn).squeeze(-1)


GREEDY = Sampling()


def detokenizers(loaded: LoadedModel, count: int) -> list[StreamingDetokenizer]:
    """Make one `StreamingDetokenizer` per row, which ends where the model's answers end."""
    end = loaded.model.generation_config.eos_token_id
    return [StreamingDetokenizer(loaded.answer_format, end) for _ in range(count)]


def decode(
    loaded: LoadedModel,
    rows: Sequence[StreamingDetokenizer],
    inputs_embeds: Tensor,
    cache: Cache,
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
    attention_mask: Tensor | None = None,
    stop: threading.Event | None = None,
    training_steps: int | None = None,
    read: Read | None = None,
) -> Iterator[list[str]]:
    """Write the answers of B prompts, each until it ends by itself, for at most `max_new_tokens` steps.

    Once half of the rows are finished, they leave the batch and the cache. Never written are added tokens, which stand
    for images and regions, and ids without a token (some models round the rows of their embedding up). The reader of
    the pieces may pause; after one second training continues, and the answer then ends with an error. If the loaded
    model's steps are compiled, this is used for an answer that is written alone.

    Args:
        loaded: the model.
        rows: from `detokenizers`, one per prompt; they hold the answers.
        inputs_embeds: (B, T, D), what follows the content of the cache; padded on the left, if at all.
        cache: grows by T, then by one token per step. It does not hold the last token written.
        max_new_tokens: the most steps.
        sampling: how tokens are chosen.
        generator: from `sampling`, on the embeddings' device.
        attention_mask: (B, cached + T) int64, 0 for padding; None without padding.
        stop: an event that ends the writing early; unfinished rows are marked as `stopped`.
        training_steps: the loaded model's, when the embeddings were computed; None takes the current one.
        read: how a model that is not a GPT4RoI reads tokens; `inputs_embeds` are then the ids, (B, T) int64. None takes
            GPT4RoI's language model.

    Yields:
        The new text of each of the B rows, "" for none.

    Raises:
        FloatingPointError: if the model computes NaN; the message names the cause, as far as it can be found.
        WeightsChangedError: if the model was trained between two steps.
        KeyboardInterrupt: passed on; the rows keep what was written, and unfinished ones are marked as `stopped`.
    """
    forbidden = torch.tensor(loaded.never_written(), dtype=torch.long, device=inputs_embeds.device)
    written = list(range(len(rows)))  # the rows in the batch
    answer = object()  # identifies this answer to the lock
    steps = loaded.training_steps if training_steps is None else training_steps
    compiled = loaded.compiled if len(rows) == 1 and attention_mask is None else None
    writing: CompiledWriting | None = None  # from the second token on, if steps are compiled
    try:
        for step in range(max_new_tokens):
            if stop is not None and stop.is_set():
                _mark_stopped(rows)
                break
            with loaded.inference() as model, torch.inference_mode():
                if loaded.training_steps != steps:
                    raise WeightsChangedError(WEIGHTS_CHANGED)
                if read is not None:
                    computed = read(model, inputs_embeds, cache, attention_mask)
                elif compiled is not None and step:
                    writing = writing or compiled.begin(cache, max_new_tokens - step)
                    computed = writing.logits(inputs_embeds)
                else:
                    masked = masked_positions(attention_mask, inputs_embeds.shape[1])
                    if step and masked and takes_whole_masks(model.language_model.config):
                        # For a (B, T) mask, transformers would ask the device whether it masks anything.
                        masked["attention_mask"] = whole_mask(masked["attention_mask"], inputs_embeds.dtype)
                    computed = model.language_model(
                        inputs_embeds=inputs_embeds, past_key_values=cache, use_cache=True, logits_to_keep=1, **masked
                    ).logits
                # A model that is spread over several devices has its logits on the last of them.
                logits = computed[:, -1].to(inputs_embeds.device).float()
                likely, finite = unchecked_log_probabilities(logits)
                # On a GPU, sampling from NaN would end the whole process; what is drawn here instead is never used.
                allowed = torch.where(finite[:, None], logits, 0).index_fill(-1, forbidden, float("-inf"))
                tokens = sampling.choose(allowed, generator)
                chosen = likely.gather(-1, tokens[:, None]).squeeze(-1)
                # float32 holds whole numbers up to 16 million.
                outcome = torch.stack([tokens.float(), chosen, finite.float()], dim=-1)
                inputs_embeds = tokens[:, None] if read else model.get_input_embeddings()(tokens[:, None])
                if attention_mask is not None:
                    attention_mask = torch.cat([attention_mask, attention_mask.new_ones(len(attention_mask), 1)], dim=1)
                values = outcome.tolist()  # the only place in a step that waits for the device
                if not all(usable for _, _, usable in values):
                    raise nan_error(model)
            pieces = [""] * len(rows)
            for index, (token, logprob, _) in zip(written, values, strict=True):
                if not rows[index].finished:
                    pieces[index] = rows[index].push(int(token), logprob)
            loaded.forward_lock.reserve(answer)
            yield pieces
            left = [place for place, index in enumerate(written) if not rows[index].finished]
            if not left:
                break
            if len(left) <= len(written) / 2:
                written = [written[place] for place in left]
                kept = torch.tensor(left)
                cache.batch_select_indices(kept)
                inputs_embeds = inputs_embeds[kept]
                attention_mask = None if attention_mask is None else attention_mask[kept]
                if read is not None:
                    read.keep(kept)
        yield [row.rest() for row in rows]
    except KeyboardInterrupt:
        _mark_stopped(rows)
        for row in rows:
            row.rest()
        raise
    finally:
        if writing is not None:
            writing.end()
        loaded.forward_lock.end_reservation(answer)


def _mark_stopped(rows: Sequence[StreamingDetokenizer]) -> None:
    for row in rows:
        row.stopped = not row.finished


def takes_whole_masks(config: PreTrainedConfig) -> bool:
    """Whether all layers of a language model attend to all earlier tokens, with only rotary positions and a mask."""
    return (
        config._attn_implementation in ("sdpa", "eager")
        and bool(getattr(config, "rope_parameters", None))
        and not getattr(config, "alibi", False)
        and getattr(config, "sliding_window", None) is None
        and set(getattr(config, "layer_types", None) or ()) <= {"full_attention"}
    )


def whole_mask(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a (B, T) mask, 0 for padding, into what is added to the scores of one query per row: (B, 1, 1, T)."""
    least = torch.finfo(dtype).min
    scores = torch.zeros_like(attention_mask, dtype=dtype).masked_fill(attention_mask == 0, least)
    return scores[:, None, None]


def masked_positions(attention_mask: Tensor | None, length: int) -> dict[str, Tensor]:
    """Return a language model's arguments: the mask, (B, T) with 0 for padding, and its last `length` positions."""
    if attention_mask is None:
        return {}
    positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, -length:]
    return {"attention_mask": attention_mask, "position_ids": positions}
