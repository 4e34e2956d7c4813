"""Ref-L4: long referring expressions, two per box, in a Parquet file, for validation images only."""

import io

from gpt4roi_nb.data.scenes.formats.coco import CATEGORY_IDS
from gpt4roi_nb.data.scenes.formats.expressions import by_looks, by_neighbour, by_place
from gpt4roi_nb.data.scenes.formats.files import Added, ObjectFile, Record
from gpt4roi_nb.data.scenes.formats.referring import image_name
from gpt4roi_nb.data.scenes.formats.world_image import WorldImage, xywh
from gpt4roi_nb.data.scenes.question_kinds import an, pick, stuff

FOLDER = "ref_l4"
SPLIT = "val"
ANNOTATIONS = f"{FOLDER}/ref-l4-{SPLIT}.parquet"
EXPRESSIONS = 2  # per box


def parquet(records: list[Record]) -> bytes:
    """Write the records as a Parquet file with Ref-L4's columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("caption", pa.string()),
            ("bbox", pa.list_(pa.float64())),
            ("bbox_area", pa.float64()),
            ("bbox_id", pa.string()),
            ("ori_category_id", pa.string()),
            ("image_id", pa.string()),
            ("height", pa.int64()),
            ("width", pa.int64()),
            ("file_name", pa.string()),
            ("is_rewrite", pa.bool_()),
            ("split", pa.string()),
        ]
    )
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records, schema), stream)
    return stream.getvalue()


FILES = (ObjectFile(ANNOTATIONS, ANNOTATIONS, parquet),)


def add(shown: WorldImage, added: Added) -> None:
    """Add two expressions for each object that can be told from the others."""
    if shown.split != SPLIT:
        return
    rng = shown.rng("ref l4")
    added.links.append(f"{FOLDER}/images/{image_name(shown)}")
    for index, thing in enumerate(shown.objects):
        pools = (
            by_neighbour(shown.scene, index, rng),
            by_place(shown.scene, index),
            by_looks(shown.scene, index),
        )
        pool = next((found for found in pools if found), None)
        if pool is None:
            continue
        words = pick(rng, pool).words(rng)
        of_two = (
            f"A {thing.size} object made of {stuff(thing.material)}, the {words}, standing on the table.",
            f"On the table there is {an(thing.phrase)}, which is the {words}.",
        )
        x, y, width, height = xywh(thing.box)
        number = shown.object_id(index)
        for k, caption in enumerate(of_two):
            record = {
                "id": number * EXPRESSIONS + k,
                "caption": caption,
                "bbox": [x, y, width, height],
                "bbox_area": width * height,
                "bbox_id": f"coco_{number}",
                "ori_category_id": f"refcoco_{CATEGORY_IDS[thing.category]}",
                "image_id": f"coco_{shown.number}",
                "height": shown.height,
                "width": shown.width,
                "file_name": image_name(shown),
                "is_rewrite": bool(k),
                "split": shown.split,
            }
            added.row(ANNOTATIONS, "", record)
