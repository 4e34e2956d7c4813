"""The facts of every image in this package's own form: `objects.jsonl`, and the objects' masks in `masks/`."""

from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile
from gpt4roi_nb.data.scenes.formats.world_image import WorldImage

OBJECTS = "objects.jsonl"
FILES = (JsonFile(OBJECTS, lines=True),)


def add(shown: WorldImage, added: Added) -> None:
    """Add an image's line and its mask PNG: 0 where no object is seen, k + 1 where object k is."""
    added.pngs[f"masks/{shown.stem}.png"] = shown.owners
    record = {
        "image": f"images/{shown.stem}.jpg",
        "mask": f"masks/{shown.stem}.png",
        "split": shown.split,
        "seed": shown.scene.seed,  # make_scene(seed, …) draws it again
        "objects": [
            {
                "category": thing.category,
                "colour": thing.colour,
                "material": thing.material,
                "size": thing.size,
                "box": thing.box,  # pixel xyxy
                "position": thing.position,
                "rotation": thing.rotation,
            }
            for thing in shown.objects
        ],
    }
    added.row(OBJECTS, "", record)
