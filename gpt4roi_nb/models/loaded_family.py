"""A loaded model of transformers: what is known of its family, its prompts and the images that it is shown."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import ArrayLike
from PIL import Image

from gpt4roi_nb.boxes import Box, checked_boxes
from gpt4roi_nb.capture.answer_replay import AnswerReplay
from gpt4roi_nb.draw import REGION_COLORS
from gpt4roi_nb.images import ImageLike, load_image
from gpt4roi_nb.inference.detokenizer import AnswerFormat, StreamingDetokenizer
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.models.attention import attention_modules
from gpt4roi_nb.models.families import (
    GPT4ROI,
    Family,
    check_askable,
    convention_of,
    family_of,
    pieces_of,
    point,
    rendered_text_of,
    takes_only_tasks,
    task_of,
    way_of,
)
from gpt4roi_nb.models.images import PreparedImage, SessionImages, frame_of, resized_size, seen_size, takes_features
from gpt4roi_nb.models.own_prompts import check_class, differs
from gpt4roi_nb.models.placement import has_places
from gpt4roi_nb.models.prompts import PromptedPrompt, build, end_of_turn
from gpt4roi_nb.models.reading import has_states
from gpt4roi_nb.models.ways import SPECS, Pen, Pointing, Regions, Way
from gpt4roi_nb.models.ways.context import MARGIN
from gpt4roi_nb.models.ways.conventions import UNVERIFIED
from gpt4roi_nb.models.ways.draw import ANCHOR, RED
from gpt4roi_nb.models.ways.without import without
from gpt4roi_nb.prompt import check_turns
from gpt4roi_nb.session.conversation import NOT_KEPT, Answer
from gpt4roi_nb.session.references import read_question
from gpt4roi_nb.session.region_model import Capabilities, Rendered

# What Kosmos-2 writes beside words (processing_kosmos2.py).
_OF_BOXES = re.compile(r"</?(?:phrase|object|grounding|patch_index_\d+|delimiter_of_multi_objects/)>")


def pointing_for(
    processor: Any,
    prepared: Callable[[Image.Image], PreparedImage],
    whole: Image.Image,
    regions: Regions,
    way: Way,
    model_type: str,
    *,
    pen: Pen,
    margin: float,
) -> Pointing:
    """Return how regions of an image are presented to a model with this processor.

    Args:
        processor: the model's own.
        prepared: lets it prepare an image.
        whole, regions, way, model_type, pen, margin: as `families.point` takes them.

    Raises:
        ValueError: if the way takes fewer regions.
    """
    convention, resized = convention_of(model_type, way), None
    if convention is not None and convention.frame == "resized":
        resized = resized_size(processor, prepared(whole))
    return point(whole, regions, way, model_type, resized=resized, frame=frame_of(processor), pen=pen, margin=margin)


@dataclass
class _Format:
    """tokenizer: of the model. end_of_turn: the token that ends an answer."""

    tokenizer: Any
    end_of_turn: str | None


class LoadedFamily(LoadedModel):
    """A model of transformers with what is known of its family.

    Attributes:
        model: the model, in evaluation mode.
        processor: its own.
        source: where it was loaded from.
        family: what is known of models of its kind.
        way: how boxes are presented to it.
        pen: what `draw` draws with.
        margin: what `context` adds on each side, as a share of the box's side.
        differs: how prompts differ from those of the processor itself; "" if they are the same.
    """

    def __init__(self, model: Any, processor: Any, way: str | None = None, source: str = "") -> None:
        """Join a model with what is known of its family.

        Args:
            model: of transformers.
            processor: its own.
            way: one of `ways.WAYS`; None takes what the model's makers document.
            source: where it was loaded from.

        Raises:
            ValueError: if the way does not suit the model, or if its class takes images in a way that is not known.
        """
        super().__init__(model, processor, source)
        self.model_type: str = model.config.model_type
        check_class(model.config, type(model), processor)
        self.way: Way = way_of(self.model_type, way)
        self.pen, self.margin = RED, MARGIN
        self.family: Family = family_of(self.model_type)
        # Kept here, so that `about` and `capabilities` can be read after `unload`.
        self._attends, self._takes_features = bool(attention_modules(model)), takes_features(model)
        self._has_states = has_states(model.config)
        self._format = _Format(processor.tokenizer, end_of_turn(self.family.format, processor))
        self.differs = differs(self.family.format, processor)
        if self.differs:
            warnings.warn(f"{self.model_type}: {self.differs}", stacklevel=3)

    @property
    def answer_format(self) -> AnswerFormat:
        return self._format

    @property
    def context_length(self) -> int:
        return self.model.config.get_text_config(decoder=True).max_position_embeddings

    def never_written(self) -> list[int]:
        if self.family is GPT4ROI:
            return super().never_written()
        config: Any = self.model.config
        of_images = {getattr(config, name, None) for name in ("image_token_id", "video_token_id")} - {None}
        known = len(self.processor.tokenizer)
        return sorted({*of_images, *range(known, config.get_text_config(decoder=True).vocab_size)})

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do with boxes presented in this way."""
        tasks = takes_only_tasks(self.way, self.model_type)
        one_image = SPECS[self.way].image_per_region and not self.family.several_images
        return Capabilities(
            free_question=not tasks,
            several_regions=not (tasks or one_image),
            follow_ups=self.family.follow_ups,
            likelihood=True,
            attention=self._attends,
            attention_map=self._attends and has_places(self.model_type),
            roi_features=False,
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """What can be asked, for a model that takes tasks and no free question; () for others."""
        return () if self.capabilities.free_question else tuple(self.family.tasks)

    @property
    def about(self) -> str:
        """What this model is, how boxes are presented to it, and how often an image is encoded."""
        convention = convention_of(self.model_type, self.way)
        status = UNVERIFIED if convention is None else convention.status
        takes = SPECS[self.way].takes
        details = [convention.summary] if convention else []
        details += [f"{self.pen.colour} first, {self.pen.line}"] if "pen" in takes else []
        details += [f"margin {self.margin:g}"] if "margin" in takes else []
        how = f"{self.way} ({', '.join(details)})" if details else self.way
        often = (
            "each image is encoded once per session"
            if self._takes_features
            else "its class takes no features, so an image is encoded again where the key/value cache does not hold it"
        )
        again = "; a conversation is read whole after an undo" if self._has_states else ""
        if not self.family.keeps_prefixes:
            again = "; every question is read whole"
        what = f"{self.model_type} from {self.source or 'memory'}"
        if self.family is GPT4ROI:
            what, status = super().about.removesuffix("."), "not what it was trained with"
        about = f"{what}, regions={how}; {status}; {often}{again}"
        return f"{about}; {self.differs}" if self.differs else about

    @property
    def note(self) -> dict[str, str]:
        """What a card says of the way, whatever the image: all that could move a figure.

        `region` is what a question gets in place of `<region1>`; `colours` are those of the regions in order.
        """
        pointing = self.point(self.images(), Image.new("RGB", (ANCHOR, ANCHOR)), {1: (0, 0, ANCHOR, ANCHOR)})
        of_the_image = ("line", "resized")
        note = {name: str(value) for name, value in pointing.note.items() if name not in of_the_image}
        convention = convention_of(self.model_type, self.way)
        if convention is None:
            note["region"] = pointing.mentions[1]
        else:
            note["region"] = self.family.mention.replace("{box}", convention.form)
        if "colours" in note:
            note["colours"] = ", ".join(self.pen.colours if "pen" in SPECS[self.way].takes else REGION_COLORS)
        return note

    def seen(self, image: ImageLike, boxes: ArrayLike = ()) -> tuple[str, ...]:
        """Return in words the size in which the model gets each image that it is shown.

        Args:
            image: as `session` takes it.
            boxes: (N, 4) pixel xyxy in the original image, as many as the way takes.
        """
        images, whole = self.images(), load_image(image)
        regions = dict(enumerate(checked_boxes(boxes, *whole.size), 1))
        shown = self.point(images, whole, regions).images
        return tuple(seen_size(self.processor, images.prepared(one)) for one in shown)

    def without_boxes(self, answer: str) -> str:
        """Return an answer without the boxes that the model wrote between its words."""
        if self.family.format != "kosmos-2":
            return answer
        return " ".join(_OF_BOXES.sub("", answer).split())

    def images(self) -> SessionImages:
        """Make a store for a session's images."""
        return SessionImages(self, self.family.format)

    def point(self, images: SessionImages, whole: Image.Image, regions: Regions) -> Pointing:
        """Return how regions of an image, by number, are presented to the model."""
        return pointing_for(
            self.processor,
            images.prepared,
            whole,
            regions,
            self.way,
            self.model_type,
            pen=self.pen,
            margin=self.margin,
        )

    def prompt(
        self,
        images: SessionImages,
        whole: Image.Image,
        turns: Sequence[tuple[str, str]],
        regions: Regions,
        *,
        hidden: int | None = None,
    ) -> PromptedPrompt:
        """Tokenize a conversation.

        Args:
            images: the session's.
            whole: the session's image.
            turns: ("user" or "assistant", text) in turn, the user first.
            regions: by number, pixel xyxy, checked.
            hidden: number of a region that is asked about and not pointed at; see `ways.without`.

        Raises:
            ValueError: for turns out of order, or one that the model cannot take.
        """
        pointing = self.point(images, whole, regions)
        if hidden is not None:
            pointing = without(pointing, whole, regions, hidden, self.way, pen=self.pen)
        return self._built(images, turns, pointing)

    def rendered(
        self, images: SessionImages, whole: Image.Image, turns: Sequence[tuple[str, str]], regions: Regions
    ) -> Rendered:
        """Return what the model reads of the last question of a conversation; as `prompt`."""
        pointing = self.point(images, whole, regions)
        return Rendered(pointing.images, self._built(images, turns, pointing).rendered_text, pointing.note)

    def _built(self, images: SessionImages, turns: Sequence[tuple[str, str]], pointing: Pointing) -> PromptedPrompt:
        check_turns(turns)
        pieces = [
            (role, pieces_of(text, pointing, self.way, self.model_type) if role == "user" else [(text.strip(), False)])
            for role, text in turns
        ]
        shown = tuple(images.prepared(image) for image in pointing.images)
        format, ids = self.family.format, [image.ids for image in shown]
        task = task_of(turns[0][1], self.way, self.model_type) is not None
        prompt = build(format, self.processor, pieces, ids, task=task)
        asked = next(said for role, said in reversed(pieces) if role == "user")
        return replace(
            prompt,
            shown=shown,
            rendered_text=rendered_text_of(format, asked, prompt.rendered_text),
            frames=pointing.frames or tuple((0, 0, image.width, image.height) for image in pointing.images),
            turns=tuple(turns),
        )

    def checked(self, whole: Image.Image, text: str, boxes: ArrayLike) -> tuple[str, dict[int, Box]]:
        """Read a question that begins a conversation: its references in the spelling of prompts, and its regions.

        Raises:
            ValueError: for bad boxes, references that do not fit them, or a question that the model cannot take.
        """
        self.check_loaded()
        text, regions = read_question(text, boxes, *whole.size)
        check_askable(text, len(regions), self.way, self.model_type)
        return text, regions

    def check_tokens(self, prompt: int, answer: int) -> None:
        """Raise ValueError if a prompt and an answer of so many tokens do not fit into the model's context."""
        if prompt + answer > self.context_length:
            raise ValueError(
                f"the prompt is {prompt} tokens long and its answer {answer} or more, but "
                f"{self.model_type} takes {self.context_length} together; shorten the question, or show a smaller image"
            )

    def as_answer(
        self,
        row: StreamingDetokenizer,
        prompt: PromptedPrompt,
        reused: int,
        seconds: float,
        replay: AnswerReplay | None = None,
    ) -> Answer:
        """Make an `Answer` of what was written after a prompt.

        Args:
            row: what was written.
            prompt: what came before.
            reused: how many of its tokens had their keys and values in the cache.
            seconds: time from the question to the last token.
            replay: runs it again; None for an answer that keeps nothing of its image.
        """
        cannot = NOT_KEPT if replay is None else ""
        tokens = len(prompt.input_ids)
        return Answer.from_row(row, tokens, reused, seconds, told=prompt.rendered_text, cannot=cannot, replay=replay)

    def check_loaded(self) -> None:
        if not self.is_loaded:
            raise RuntimeError("this model has been unloaded; load it again with load_model(…) and make a new session")
