"""A finished answer that can be run again, unchanged or with something changed in its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gpt4roi_nb.batches import BatchSize
from gpt4roi_nb.boxes import Box
from gpt4roi_nb.finite import log_probabilities
from gpt4roi_nb.inference.cache import new_cache
from gpt4roi_nb.inference.decode import decode, detokenizers
from gpt4roi_nb.inference.encoded_image import EncodedImage
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.prompt import Prompt


@dataclass(frozen=True, eq=False)
class Replay:
    """What an answer was made from: P prompt tokens and G written tokens, of which the last A are the answer.

    Attributes:
        encoded: the image.
        prompt: the P tokens.
        boxes: pixel xyxy of its `<bbox>` tokens, in order.
        ids: the G written tokens up to the last one that is kept; those before `first` = G - A are the role.
        first: index of the answer's first token in `ids`.
        tokens: text of each of the A answer tokens.
    """

    encoded: EncodedImage
    prompt: Prompt
    boxes: Sequence[Box]
    ids: Sequence[int]
    first: int
    tokens: list[str]

    @property
    def loaded(self) -> LoadedModel:
        """The model that wrote the answer."""
        return self.encoded.loaded

    @property
    def length(self) -> int:
        """P, the number of prompt tokens."""
        return len(self.prompt.input_ids)

    @property
    def steps(self) -> slice:
        """The A positions whose steps wrote the answer tokens."""
        return slice(self.length + self.first - 1, self.length + len(self.ids) - 1)

    def on(self, encoded: EncodedImage) -> Replay:
        """Return the same about another image."""
        return replace(self, encoded=encoded)

    def region(self, number: int) -> tuple[int, Box]:
        """Return prompt position and box of a region.

        Raises:
            ValueError: if the prompt has no such region.
        """
        if number not in self.prompt.regions:
            known = " and ".join(map(str, self.prompt.regions)) or "none"
            raise ValueError(f"the answer's prompt has no region {number!r}; its regions are: {known}")
        index = self.prompt.regions.index(number)
        return self.prompt.spans[f"region{number}"][0], self.boxes[index]

    def embeddings(self) -> Tensor:
        """Embed the prompt: (1, P, D)."""
        return self.encoded.embed(self.prompt, self.boxes)

    @torch.inference_mode()
    def forced(self, prompts: Tensor) -> Tensor:
        """Append the written tokens to prompts, except for the last, which is only predicted.

        Args:
            prompts: (B, P, D).

        Returns:
            (B, P + G - 1, D); without written tokens (B, P, D).
        """
        model = self.loaded.model
        ids = torch.tensor([list(self.ids[:-1])], dtype=torch.long, device=prompts.device)
        written = model.get_input_embeddings()(ids).expand(len(prompts), -1, -1)
        return torch.cat([prompts, written.to(prompts.dtype)], dim=1)

    @torch.inference_mode()
    def log_probabilities(self, prompts: Tensor, batch: BatchSize | None = None) -> Tensor:
        """Compute the log-probability of each answer token, given the prompt and the answer before it.

        Args:
            prompts: (B, P, D).
            batch: prompts at a time; halved if memory runs out. None takes 16.

        Returns:
            (B, A) float32 on the CPU.
        """
        batch = BatchSize(16, "prompts") if batch is None else batch
        count = len(self.tokens)
        if not count or not len(prompts):
            return torch.zeros(len(prompts), count)
        wanted = torch.tensor(list(self.ids[self.first :]))

        def likely(part: slice) -> Tensor:
            some = prompts[part]
            with self.loaded.inference() as model:
                logits = model.language_model(
                    inputs_embeds=self.forced(some), use_cache=False, logits_to_keep=count
                ).logits
            every = log_probabilities(logits, model).cpu()
            return every.gather(-1, wanted.expand(len(some), -1)[..., None]).squeeze(-1)

        return torch.cat(list(batch.run(len(prompts), likely)))

    def answer(self, prompt: Tensor, max_new_tokens: int) -> str:
        """Write the greedy answer to a prompt, (1, P, D)."""
        rows = detokenizers(self.loaded, 1)
        for _ in decode(self.loaded, rows, prompt, new_cache(), max_new_tokens=max_new_tokens):
            pass
        return rows[0].text
