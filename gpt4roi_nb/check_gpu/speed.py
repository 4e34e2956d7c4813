"""How long each part of an answer takes at GPT4RoI-7B's shapes, and what share of the GPU's peak the fusion reaches."""

from __future__ import annotations

import itertools
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from gpt4roi_nb.check_gpu.device_config import DeviceConfig, milliseconds
from gpt4roi_nb.check_gpu.random_model import HEIGHT, QUESTION, WIDTH, Endless, RandomModel, boxes, image
from gpt4roi_nb.check_gpu.report import Measurement, NotThisTime, Section
from gpt4roi_nb.inference.cache import new_cache
from gpt4roi_nb.inference.compiled import CompiledSteps
from gpt4roi_nb.inference.decode import decode
from gpt4roi_nb.inference.encoded_image import EncodedImage
from gpt4roi_nb.session.gpt4roi import GPT4RoI

FUSION_GOAL, FIRST_TOKEN_GOAL = 4.5e-3, 60e-3  # seconds, on an H200
GOAL_CARD = "H200"
DESCRIBED = 16


class Speed:
    """The parts of an answer, each measured separately."""

    def __init__(self, device_config: DeviceConfig, gpt4roi: GPT4RoI) -> None:
        self.device_config, self.gpt4roi = device_config, gpt4roi
        self.image = image()
        self.tokens = 6 if device_config.small else 48
        self.session = gpt4roi.session(self.image)
        self.encoded = EncodedImage(gpt4roi, self.session.image)
        self.pixels = gpt4roi.processor.image_processor(self.image)["pixel_values"].to(device_config.device)
        self._fresh = itertools.cycle(boxes(60))
        self._fusion: tuple[float, float] | None = None  # seconds, operations

    def _goal(self, seconds: float, goal: float) -> tuple[str, bool | None]:
        """The demand, and whether it is met; None on another GPU than the one that it is for."""
        met = seconds <= goal if GOAL_CARD in self.device_config.name else None
        return f"at most {milliseconds(goal)} on an {GOAL_CARD}", met

    @torch.inference_mode()
    def encoding(self) -> Measurement:
        return Measurement(
            milliseconds(self.device_config.seconds(lambda: self.gpt4roi.model.encode_image(self.pixels)))
        )

    @torch.inference_mode()
    def fusion(self) -> tuple[float, float]:
        """Median seconds, and the number of operations, counting those of matrix products and convolutions."""
        if self._fusion is None:
            fuse = self.gpt4roi.model.region_encoder.fusion
            levels = self.gpt4roi.model.encode_image(self.pixels).levels
            with FlopCounterMode(display=False) as counted:
                fuse(levels)
            self._fusion = self.device_config.seconds(lambda: fuse(levels)), float(counted.get_total_flops())
        return self._fusion

    def fusion_seconds(self) -> Measurement:
        seconds, _ = self.fusion()
        return Measurement(milliseconds(seconds), *self._goal(seconds, FUSION_GOAL))

    def fusion_share(self) -> Measurement:
        seconds, operations = self.fusion()
        reached = operations / seconds
        product = self.device_config.product_flops(self.gpt4roi.model.dtype)
        sheet = self.device_config.datasheet_flops
        return Measurement(
            f"{operations / 1e12:.3g} TFLOP, {reached / 1e12:.3g} TFLOP/s: {reached / product:.0%} of a large matrix "
            "product's" + ("" if sheet is None else f", {reached / sheet:.0%} of the data sheet's")
        )

    def new_box(self) -> Measurement:
        return Measurement(
            milliseconds(self.device_config.seconds(lambda: self.encoded.region_tokens([next(self._fresh)])))
        )

    def first_token(self) -> Measurement:
        def ask() -> None:
            self.session.reset()
            self.session.ask(QUESTION, [next(self._fresh)], max_new_tokens=1)

        seconds = self.device_config.seconds(ask)
        return Measurement(milliseconds(seconds), *self._goal(seconds, FIRST_TOKEN_GOAL))

    def _steps(self, count: int) -> tuple[float, list[float]]:
        """Seconds until the second token, and those of each later one."""
        prompt = self.gpt4roi.processor.prompt([("user", QUESTION)])
        embeddings = self.encoded.embed(prompt, boxes(1))
        row = Endless(self.gpt4roi.processor)
        times = [time.perf_counter()]
        for _ in decode(self.gpt4roi, [row], embeddings, new_cache(), max_new_tokens=count):
            self.device_config.synchronise()
            times.append(time.perf_counter())
        each = [after - before for before, after in itertools.pairwise(times[:-1])]  # the last yields no token
        return sum(each[:2]), each[2:]

    def tokens_per_second(self) -> Measurement:
        _, each = self._steps(self.tokens)
        median = statistics.median(each)
        return Measurement(f"{1 / median:.3g} tokens/s ({milliseconds(median)} each)")

    def compiled(self, mode: str) -> Measurement:
        if self.device_config.small:
            raise NotThisTime("compiling is left out of the small size (tests/inference/test_compiled.py has it)")
        self.gpt4roi.compiled = CompiledSteps(self.gpt4roi.model, mode)
        try:
            begun, _ = self._steps(4)
            again, _ = self._steps(4)
            measurement = self.tokens_per_second()
        finally:
            self.gpt4roi.compiled = None
        return Measurement(
            f"{measurement.measured}; {begun:.0f} s to compile, second answer's first tokens {again:.2g} s"
        )

    def describe(self) -> Measurement:
        count, tokens = (4, 4) if self.device_config.small else (DESCRIBED, 32)
        session = self.gpt4roi.session(self.image)
        started = time.perf_counter()
        answers = session.describe(boxes(count), max_new_tokens=tokens, progress=False)
        self.device_config.synchronise()
        written = sum(len(answer.token_ids) for answer in answers)
        return Measurement(
            f"{milliseconds(time.perf_counter() - started)} for {count} boxes, {written} tokens of answers"
        )

    def vcr(self) -> Measurement:
        import numpy as np

        from gpt4roi_nb.data.protocol_texts import LETTERS
        from gpt4roi_nb.data.scenes.scene import make_scene
        from gpt4roi_nb.demo.choices import draw_pairs
        from gpt4roi_nb.evaluate.benchmarks.item import Item
        from gpt4roi_nb.evaluate.predict import BatchedPredictor, LoadedImage

        scene = make_scene(seed=5)
        (pair,) = draw_pairs(scene, 1, np.random.default_rng(0))
        found = [tuple(map(float, scene.objects[k].box)) for k in pair[0].objects]
        items = [
            Item(question.kind, "scene", tuple(found), question.text, options=tuple(LETTERS))  # type: ignore[arg-type]
            for question in pair
        ]
        height, width = scene.image.shape[:2]
        image = LoadedImage(self.gpt4roi.processor.image_processor(scene.image)["pixel_values"][0], (width, height))
        predictor = BatchedPredictor(self.gpt4roi, "likelihood", len(items), 1)
        seconds = self.device_config.seconds(lambda: list(predictor.answer([items], {"scene": image})))
        return Measurement(f"{milliseconds(seconds)}, question and rationale, the image's encoding included")

    def attention(self) -> Measurement:
        session = self.gpt4roi.session(self.image)
        answer = session.ask(QUESTION, boxes(1), max_new_tokens=self.tokens)
        seconds = self.device_config.seconds(answer.attention, repeats=3)
        layers, heads, tokens, prompt = answer.attention().weights.shape
        return Measurement(f"{milliseconds(seconds)} for {layers} layers × {heads} heads × {tokens} × {prompt} tokens")


def sections(device_config: DeviceConfig, model: RandomModel) -> list[Section]:
    def prepare() -> Speed:
        return Speed(device_config, model.get())

    size = "small shapes" if device_config.small else "GPT4RoI-7B's shapes"
    rows = [
        ("an image's encoding: tower, projector, fusion", lambda speed: speed.encoding()),
        ("… of it the fusion", lambda speed: speed.fusion_seconds()),
        ("… share of the GPU's peak", lambda speed: speed.fusion_share()),
        ("a new box", lambda speed: speed.new_box()),
        ("first answer token after a new box", lambda speed: speed.first_token()),
        ("tokens of one answer", lambda speed: speed.tokens_per_second()),
        ("boxes described together", lambda speed: speed.describe()),
        ("an item of VCR", lambda speed: speed.vcr()),
        ("attention recorded", lambda speed: speed.attention()),
    ]
    modes = [
        ("tokens of one answer, compiled", lambda speed: speed.compiled("default")),
        ("… with CUDA graphs (reduce-overhead)", lambda speed: speed.compiled("reduce-overhead")),
    ]

    def fresh() -> Speed:
        model.drop()  # earlier sections have trained it
        return prepare()

    about = f"{size}, random weights, {HEIGHT} × {WIDTH} pixels"
    return [
        Section(f"Speed: {about}", rows, share=0.55, prepare=prepare),
        Section("Speed of compiled steps", modes, share=1.0, prepare=fresh),
    ]
