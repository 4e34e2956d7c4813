"""The facts of every image in this package's own form: `objects.jsonl`, and the objects' masks in `masks/`."""

from gpt4roi_nb.data.scenes.formats.files import Added, JsonFile
from gpt4roi_nb.data.scenes.formats.picture import Picture

OBJECTS = "objects.jsonl"
FILES = (JsonFile(OBJECTS, lines=True),)


def add(picture: Picture, added: Added) -> None:
    """Add an image's line and its mask PNG: 0 where no object is seen, k + 1 where object k is."""
    added.pngs[f"masks/{picture.stem}.png"] = picture.owners
    record = {
        "image": f"images/{picture.stem}.jpg",
        "mask": f"masks/{picture.stem}.png",
        "split": picture.split,
        "seed": picture.scene.seed,  # make_scene(seed, …) draws it again
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
            for thing in picture.objects
        ],
    }
    added.row(OBJECTS, "", record)
