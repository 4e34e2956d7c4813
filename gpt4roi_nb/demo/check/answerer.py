"""Use a model as the examination's answerer: it answers many questions about a few images at a time, greedily."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gpt4roi_nb.boxes import normalise
from gpt4roi_nb.data.scenes.scene import Scene
from gpt4roi_nb.demo.check.queries import Answerer, Asked
from gpt4roi_nb.inference.loaded_model import LoadedModel
from gpt4roi_nb.inference.shared_opening import SharedOpening
from gpt4roi_nb.prompt import Prompt, Turns

MAX_NEW_TOKENS = 48  # longer than any answer of the generated world; a list of seven things has about 35


def model_answerer(loaded: LoadedModel) -> Answerer:
    """Return an answerer that answers greedily, as a session on the scene would answer each question asked alone.

    For the same scenes, it reads images, the common beginning of their prompts, and repeated prompts only once.
    """
    latest: list[
        tuple[int, dict[int, int], list[Scene], SharedOpening]
    ] = []  # empty, or one entry: the weights' version and the scenes asked about last

    def opening_of(scenes: Sequence[Scene]) -> tuple[dict[int, int], SharedOpening]:
        """The row of each scene by its id in Python, and the opening of all scenes."""
        version = loaded.weights_version
        if not latest or latest[0][0] != version or not all(id(scene) in latest[0][1] for scene in scenes):
            shown = list({id(scene): scene for scene in scenes}.values())
            pixel_values = [loaded.processor.image_processor(scene.image)["pixel_values"] for scene in shown]
            rows = {id(scene): row for row, scene in enumerate(shown)}
            latest[:] = [
                (version, rows, shown, SharedOpening(loaded, torch.cat(pixel_values)))
            ]  # `shown` keeps the scenes alive, so that no id is reused
        _, rows, _, opening = latest[0]
        return rows, opening

    def answer(asked: Sequence[Asked]) -> list[str]:
        if not asked:
            return []
        with loaded.hold_weights():
            place, opening = opening_of([scene for scene, _ in asked])
            read: dict[Turns, Prompt] = {}
            prompts, boxes = [], []
            for scene, query in asked:
                turns = (*query.earlier, ("user", query.question.text))
                if turns not in read:
                    read[turns] = loaded.processor.prompt(turns)
                prompts.append(read[turns])
                height, width = scene.image.shape[:2]
                exact = [scene.objects[k].box for k in query.objects]
                given = torch.from_numpy(normalise(exact if query.boxes is None else query.boxes, width, height))
                boxes.append(given[[number - 1 for number in prompts[-1].regions]])
            batch = opening.read(prompts, [place[id(scene)] for scene, _ in asked], boxes)
            rows = opening.write(batch, MAX_NEW_TOKENS)
        return [row.text for row in rows]

    return answer
