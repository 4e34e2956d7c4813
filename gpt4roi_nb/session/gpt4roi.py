"""`GPT4RoI`: load a model with its processor, open sessions on images, free the memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike

from gpt4roi_nb.arguments import whole_number
from gpt4roi_nb.checkpoint.from_parts import assemble_from_parts
from gpt4roi_nb.checkpoint.load import DEMO_CHECKPOINT, load_checkpoint
from gpt4roi_nb.config import GPT4RoIRegionConfig
from gpt4roi_nb.images import ImageLike, load_image
from gpt4roi_nb.inference.compiled import CompiledSteps, check_mode
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.inference.shared_opening import SharedOpening
from gpt4roi_nb.session.answers import answer_batches
from gpt4roi_nb.session.conversation import Answer
from gpt4roi_nb.session.options import check_options, whole_answers
from gpt4roi_nb.session.references import read_references
from gpt4roi_nb.session.region_model import Capabilities, Question, Rendered
from gpt4roi_nb.session.region_session import RegionSession
from gpt4roi_nb.session.rendering import rendered


class GPT4RoI(LoadedModel):
    """A loaded model and its processor, to ask about regions of images.

    Also a context manager, which unloads the model at the end, also after an error.

    Attributes:
        model: a `GPT4RoIForConditionalGeneration`, an ordinary transformers model in evaluation mode.
        processor: its `GPT4RoIProcessor`.
        source: where it was loaded from.

    Examples:
        >>> from gpt4roi_nb import GPT4RoI
        >>> from gpt4roi_nb.data.scenes import make_scene
        >>> scene = make_scene(5)
        >>> with GPT4RoI.from_pretrained(device="cpu") as gpt4roi:
        ...     print(gpt4roi.session(scene.image).ask("What colour is <region1>?", [scene.objects[0].box]))
        red
    """

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        quantization: str | None = None,
        attn_implementation: str | None = None,
        device_map: str | dict[str, Any] | None = None,
        compile: bool | str = False,
        check_free_memory: bool = True,
        **kwargs: Any,
    ) -> GPT4RoI:
        """Load a checkpoint in this package's layout.

        Args:
            path: a folder or a hub id. From the hub, small files are fetched first; the weights follow once those are
                checked and there is enough memory. None loads the embedded demo checkpoint, offline: a teaching model
                for generated scenes, not for photographs.
            device: where to load to; None takes a GPU if there is one, else the CPU. Warns if there is an NVIDIA device
                that PyTorch cannot use.
            dtype: of the weights; None takes float32 on a CPU, and the checkpoint's own on a GPU or with `device_map`.
                With `quantization`, it is the dtype of the other parts, and None takes half precision.
            quantization: "8bit" or "4bit" for the language model (needs bitsandbytes). See docs/memory.md.
            attn_implementation: None leaves the choice to transformers (SDPA). "flash_attention_2" needs the package
                flash_attn, a GPU and half precision; while attention is recorded, the model switches to "eager".
            device_map: as transformers takes it, instead of `device`.
            compile: True compiles the step that writes one token (`torch.compile`), during the first answer; a string
                is torch's mode, such as "reduce-overhead". See docs/gpu.md.
            check_free_memory: whether to compare needed with free memory before the weights are read, and later before
                each larger piece of work.
            kwargs: `subfolder`; for a hub id also `revision`, `cache_dir`, `local_files_only`, `token` and
                `force_download`. Others are passed on to transformers' `from_pretrained`.

        Raises:
            FileNotFoundError, ValueError: if the checkpoint is missing, incomplete, truncated or another model's; the
                message names the file or tensor.
            MemoryError: if the model and a session do not fit; the message names the smallest change that would.
            ImportError: for quantization without bitsandbytes, or flash attention without flash_attn.
            RuntimeError: if `compile` finds no C++ compiler.
        """
        check_mode(compile)
        source = DEMO_CHECKPOINT if path is None else path
        model, processor = load_checkpoint(
            source,
            device=device,
            dtype=dtype,
            quantization=quantization,
            attn_implementation=attn_implementation,
            device_map=device_map,
            check_free_memory=check_free_memory,
            compiled=bool(compile),
            **kwargs,
        )
        loaded = cls(model, processor, os.fspath(source))
        loaded.check_free_memory = check_free_memory
        if compile:
            loaded.compiled = CompiledSteps(model, compile)
        return loaded

    @classmethod
    def from_parts(
        cls,
        language_model: str | os.PathLike[str],
        vision_tower: str | os.PathLike[str],
        *,
        region_config: GPT4RoIRegionConfig | dict[str, Any] | None = None,
        chat_format: str | None = None,
        system: str | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> GPT4RoI:
        """Assemble a GPT4RoI to train, from a pretrained language model and a pretrained vision tower.

        The projector and the region encoder are new: until they are trained, it answers as if blind. Call
        `torch.manual_seed` before to make them repeatable. See docs/other_models.md.

        Args:
            language_model: folder or hub id of a causal language model with a fast tokenizer, or of a LLaMA with
                tokenizer.model, which gives SentencePiece's own ids if there is no chat template. GPT4RoI's tokens are
                added; their embedding rows begin as the mean of the others.
            vision_tower: folder or hub id of a tower whose hidden states are a square grid of patches (CLIP, SigLIP,
                DINOv2, ViT), or of a whole model that has one, as CLIP's and SigLIP's are.
            region_config: sizes of the region encoder; None takes GPT4RoI-7B's.
            chat_format: "template", the tokenizer's own chat template, or "gpt4roi"; None takes the template if there
                is one.
            system: the system message; None means none with a template, and GPT4RoI's sentence without.
            image_mean, image_std: of the three channels; None takes those in the tower's preprocessor_config.json.
            device: where to load to; None takes a GPU if there is one, else the CPU.
            dtype: of all weights; None takes float32 on a CPU, and the language model's own on a GPU, as "auto" does.

        Raises:
            FileNotFoundError, ValueError: if a part is missing, incomplete or of a kind that does not fit.
        """
        model, processor = assemble_from_parts(
            language_model,
            vision_tower,
            region_config=region_config,
            chat_format=chat_format,
            system=system,
            image_mean=image_mean,
            image_std=image_std,
            device=device,
            dtype=dtype,
        )
        return cls(model, processor, f"{os.fspath(language_model)} and {os.fspath(vision_tower)}")

    def save_pretrained(self, folder: str | os.PathLike[str], state: dict[str, torch.Tensor] | None = None) -> None:
        """Write model and processor to a folder, from which `from_pretrained` loads them.

        Args:
            folder: made if there is none.
            state: all weights, if the model itself holds only a part of them.
        """
        self.model.save_pretrained(folder, state_dict=state)
        self.processor.save_pretrained(folder)

    @property
    def is_demo(self) -> bool:
        """Whether this is the embedded demo checkpoint."""
        return self.source == os.fspath(DEMO_CHECKPOINT)

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do: all that a session offers."""
        return Capabilities(True, True, True, True, True, True, True)

    def render(self, image: ImageLike, text: str, boxes: ArrayLike = ()) -> Rendered:
        """Return what the model would read: the image, and each region's token where it is first named.

        Args:
            image: as `session` takes it.
            text: a question with `<regionN>`.
            boxes: (N, 4) pixel xyxy in the original image.

        Raises:
            ValueError: for bad boxes, or references that do not match them.
        """
        loaded = load_image(image)
        turns = [("user", read_references(text, 0))]
        self.processor.order_boxes(self.processor.prompt(turns), boxes, loaded)
        return rendered(self.processor, loaded, turns)

    def answers(
        self, questions: Sequence[Question], *, max_new_tokens: int = 256, batch_size: int = 16
    ) -> list[Answer]:
        """Answer many questions greedily, in batches, each as in a conversation of its own.

        All questions are checked before the first is answered. An image of a batch is encoded once for all questions
        about the same image object. The answers cannot be inspected: ask a session for that.

        Args:
            questions: about any images.
            max_new_tokens: the most tokens per answer.
            batch_size: questions at a time; fewer, with a warning, if memory runs out.

        Returns:
            One answer per question, in their order.

        Raises:
            ValueError: for bad boxes, or references that do not match them; the message begins with the question's
                number.
        """
        return answer_batches(
            self,
            questions,
            whole_number(max_new_tokens, "max_new_tokens", least=1),
            whole_number(batch_size, "batch_size", least=1),
        )

    def likelihoods(
        self, image: ImageLike, text: str, boxes: ArrayLike, options: Sequence[str], *, batch_size: int = 16
    ) -> list[float]:
        """Return the natural log-probability of each option as the whole answer, with the marks that open and end it.

        The prompt is read once for all options, and the options are read together.

        Args:
            image: as `session` takes it.
            text: a question with `<regionN>`.
            boxes: (N, 4) pixel xyxy in the original image.
            options: answers to compare.
            batch_size: options at a time.

        Raises:
            ValueError: for bad boxes, references that do not match them, or an empty option.
        """
        check_options(options)
        batch_size = whole_number(batch_size, "batch_size", least=1)
        whole = load_image(image)
        asked = whole_answers(self.processor, read_references(text, 0), options)
        given = self.processor.order_boxes(asked.prompt, boxes, whole)
        if not options:
            return []
        with self.hold_weights():
            opening = SharedOpening(self, self.processor.image_processor.pixels(whole)[None].to(self.device))
            score = opening.scorer(opening.read([asked.prompt], [0], [given]))
            return score.of_one_prompt(asked.continuations, batch_size)

    def session(self, image: ImageLike) -> RegionSession:
        """Start a conversation about an image, which is encoded here, once.

        Args:
            image: a path, the bytes of an image file, a PIL image, or a uint8 array (H, W), (H, W, 3) or (H, W, 4). Its
                EXIF orientation is applied; boxes refer to the upright image at its original size.

        Raises:
            FileNotFoundError, IsADirectoryError, TypeError, ValueError: for an image that cannot be read.
            RuntimeError: after `unload()`.
        """
        return RegionSession(self, image)

    def __repr__(self) -> str:
        if self._model is None:
            return f"GPT4RoI({self.source!r}, unloaded)"
        return f"GPT4RoI({self.source!r}, {self._model.num_parameters():,} parameters, {self.device})"
