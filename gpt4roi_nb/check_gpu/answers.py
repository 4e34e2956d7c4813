"""Whether the demo checkpoint's answers on this device are those on the CPU in float32."""

from __future__ import annotations

from functools import partial

import torch

from gpt4roi_nb.check_gpu.device_config import DeviceConfig, exact_float32
from gpt4roi_nb.check_gpu.report import Measurement, NotThisTime, Section
from gpt4roi_nb.memory import dtype_name

SEED, SCENES, FEW_SCENES = 123, 4, 1


class DemoAnswers:
    """Questions about generated scenes, and the demo checkpoint's answers on the CPU in float32."""

    def __init__(self, device_config: DeviceConfig) -> None:
        import numpy as np

        from gpt4roi_nb.data.scenes.scene import scenes
        from gpt4roi_nb.demo.check.queries import draw_questions, query_of

        self._device_config = device_config
        rng = np.random.default_rng(SEED)
        self._asked = [
            (scene, query_of(question))
            for scene in scenes(SEED, FEW_SCENES if device_config.small else SCENES)
            for question in draw_questions(scene, rng)
        ]
        self._expected = self._answers(torch.device("cpu"), torch.float32)

    def _answers(self, device: torch.device, dtype: torch.dtype) -> list[str]:
        from gpt4roi_nb.demo.check import model_answerer
        from gpt4roi_nb.session.gpt4roi import GPT4RoI

        with GPT4RoI.from_pretrained(device=device, dtype=dtype) as gpt4roi:
            return model_answerer(gpt4roi)(self._asked)

    def same(self, dtype: torch.dtype) -> Measurement:
        """Count the answers that are the same in this dtype."""
        if not self._device_config.on_gpu and dtype == torch.float16:
            raise NotThisTime("float16 takes minutes on a CPU")
        with exact_float32():
            found = self._answers(self._device_config.device, dtype)
        same = sum(one == other for one, other in zip(found, self._expected, strict=True))
        exact = dtype == torch.float32
        return Measurement(
            f"{same} of {len(found)}", f"all {len(found)}" if exact else "", same == len(found) if exact else None
        )


def section(device_config: DeviceConfig) -> Section:
    return Section(
        "The demo checkpoint: answers that are the same as on the CPU in float32",
        [
            (f"answers in {dtype_name(dtype)}", partial(lambda dtype, answers: answers.same(dtype), dtype))
            for dtype in (torch.float32, torch.bfloat16, torch.float16)
        ],
        share=0.4,
        prepare=lambda: DemoAnswers(device_config),
    )
