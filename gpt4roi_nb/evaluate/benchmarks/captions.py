"""Visual Genome and RefCOCOg: one caption per region.

    vg/         test.json, val.json (one caption per annotation, the usual form in region captioning), here or in
                GRiT's `annotations/`; or, for the split `all`, region_descriptions.json with image_data.json; images in
                VG_100K and VG_100K_2, or GRiT's `images`
    refcocog/   finetune_refcocog_val.json and …_test.json (MDETR), or refs(umd).p with instances.json
    coco/       train2014, for RefCOCOg

Visual Genome's splits, and with them the metrics, differ between papers: GRiT's test split, which GPT4RoI uses, asks
about all regions of an image, GLaMM's about one. A region of RefCOCOg with several expressions is asked about once; all
of them are its references.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt4roi_nb.boxes import Box
from gpt4roi_nb.data.problems import Problems
from gpt4roi_nb.data.record import Annotation
from gpt4roi_nb.data.refcoco import read_refcoco
from gpt4roi_nb.data.visual_genome import ARCHIVES, read_visual_genome
from gpt4roi_nb.evaluate.benchmarks.benchmark import Benchmark, Published, part
from gpt4roi_nb.evaluate.benchmarks.item import EMPTY_ANSWER, EvalConfig, Item, Prediction, Scores
from gpt4roi_nb.evaluate.metrics.captions import score_captions
from gpt4roi_nb.evaluate.metrics.scorers import CAPTIONS

PROMPT = "Give a short description of <region1>."
CIDER = (
    "CIDEr is 100 for a score of 1, and at most 1000. It weights words by how rare they are among the references at "
    "hand, so figures for different sets of regions are not comparable."
)
VG_FOLDERS = ("", *ARCHIVES, "images")  # where an image may lie
REFCOCOG_IMAGES = "train2014"
_GPT4ROI = "GPT4RoI (arXiv 2307.03601)"
_GRIT = "all regions of GRiT's test split; prompt and decoding not stated"


@dataclass(frozen=True, slots=True)
class CaptionedRegion:
    """A region with all its reference captions.

    Attributes:
        id: unique within the dataset.
        image: path of the image file.
        box: pixel xyxy.
        references: what people wrote about it.
        group: id of the image.
    """

    id: str
    image: Path
    box: Box
    references: tuple[str, ...]
    group: str


def score(items: Sequence[Item], predictions: Sequence[Prediction], config: EvalConfig) -> Scores:
    """Compute METEOR, CIDEr, BLEU-4 and ROUGE-L. The `score` of an item is its METEOR; an empty answer scores 0."""
    answers = [prediction.answer for prediction in predictions]
    references = [list(map(str, item.facts["references"])) for item in items]
    counts = Counter({EMPTY_ANSWER: sum(not answer.strip() for answer in answers)})
    if not items:
        return Scores({}, {"score": []}, {}, ["There was nothing to score."])
    scores = score_captions(answers, references)
    each = (scores.items["METEOR"] / 100).tolist()
    share = sum(map(len, references)) / len(references)
    notes = [f"{share:.3g} references per region, {len(items)} regions ({config.split}).", CIDER]
    return Scores(scores.metrics([item.group for item in items]), {"score": each}, dict(+counts), notes)


def _benchmark(
    name: str,
    title: str,
    splits: tuple[str, ...],
    files: Callable[[Path, str], dict[str, Path]],
    regions: Callable[[Path, str, Problems], Iterator[CaptionedRegion]],
    published: tuple[Published, ...],
    folders: tuple[str, ...] = (),
) -> Benchmark:
    """Build a captioning benchmark. folders: of the dataset, may hold images beside those of `files`."""

    def items(config: EvalConfig, problems: Problems) -> Iterator[Item]:
        """Yield one item per region: `target` is its first reference, `facts` has all. `limit` draws whole images."""
        for region in regions(part(config.root, name), config.split, problems):
            yield Item(
                id=f"{name}/{region.id}",
                image=str(region.image.absolute()),
                boxes=(region.box,),
                question=config.question or PROMPT,
                target=region.references[0],
                region=1,
                group=f"{name}/{region.group}",
                facts={"references": list(region.references)},
            )

    return Benchmark(
        name=name,
        title=title,
        splits=splits,
        scoring=("generate",),
        prompt=PROMPT,
        mapping="",
        max_new_tokens=48,
        files=lambda root, split: files(part(root, name), split),
        more_folders=lambda root, split: [part(root, name) / folder for folder in folders],
        items=items,
        score=score,
        scorers=(CAPTIONS,),
        published=published,
    )


def _vg_files(base: Path, split: str) -> dict[str, Path]:
    """Return the annotations and the folders of images."""
    folders = [base / name for name in VG_FOLDERS[1:]]
    there = [folder for folder in folders if folder.is_dir()] or folders[:1]
    images = {f"images in {folder.name}": folder for folder in there}
    if split == "all":
        return {"regions": base / "region_descriptions.json", "sizes of images": base / "image_data.json"} | images
    places = [base / f"{split}.json", base / "annotations" / f"{split}.json"]
    return {"annotations": next((path for path in places if path.is_file()), places[0])} | images


def _vg_regions(base: Path, split: str, problems: Problems) -> Iterator[CaptionedRegion]:
    found = _vg_files(base, split)
    if split == "all":
        source = read_visual_genome(found["regions"], problems, image_data=found["sizes of images"])
    else:
        source = read_visual_genome(found["annotations"], problems)
    for annotation in source:
        places = [base / folder / annotation.image for folder in VG_FOLDERS]
        image = next((path for path in places if path.is_file()), places[1])
        for number, (box, text) in enumerate(zip(annotation.boxes.tolist(), annotation.texts, strict=True)):
            name = f"{annotation.id}/{number}"
            yield CaptionedRegion(name, image, (box[0], box[1], box[2], box[3]), (text,), annotation.id)


def _refcocog_files(base: Path, split: str) -> dict[str, Path]:
    """Return the annotations in one of their two forms, and the folder of COCO's images.

    That folder lies beside the dataset, as in the generated world, or within it.
    """
    mdetr, pickle = base / f"finetune_refcocog_{split}.json", base / "refs(umd).p"
    places = [folder / REFCOCOG_IMAGES for folder in (base.parent / "coco", base, base / "coco", base.parent)]
    images = {"images": next((path for path in places if path.is_dir()), places[0])}
    if not mdetr.is_file() and pickle.is_file():
        return {"references": pickle, "boxes": base / "instances.json"} | images
    return {"annotations": mdetr} | images


def _refcocog_regions(base: Path, split: str, problems: Problems) -> Iterator[CaptionedRegion]:
    found = _refcocog_files(base, split)
    if "references" in found:
        source = read_refcoco(found["references"], problems, name="refcocog", instances=found["boxes"], split=split)
    else:
        source = read_refcoco(found["annotations"], problems, name="refcocog")
    grouped: dict[tuple[str, Box], list[Annotation]] = {}
    for annotation in source:
        x1, y1, x2, y2 = annotation.boxes[0].tolist()
        grouped.setdefault((annotation.image, (x1, y1, x2, y2)), []).append(annotation)
    for (image, box), said in grouped.items():
        references = tuple(annotation.texts[0] for annotation in said)
        yield CaptionedRegion(said[0].id, found["images"] / image, box, references, Path(image).stem)


def _published_vg(model: str, weights: str, meteor: float, cider: float) -> Published:
    return Published(f"{_GPT4ROI}, {weights}", _GRIT, {"METEOR": meteor, "CIDEr": cider}, model=model, split="test")


VG = _benchmark(
    "vg",
    "Visual Genome region captions",
    ("test", "val", "train", "all"),  # published figures are for the first
    _vg_files,
    _vg_regions,
    (
        _published_vg("GPT4RoI-7B", "7B", 16.5, 134.5),
        _published_vg("GPT4RoI-7B, fine-tuned on VG", "7B fine-tuned on VG", 17.4, 145.2),
        _published_vg("GPT4RoI-13B, fine-tuned on VG", "13B fine-tuned on VG", 17.6, 146.8),
    ),
    VG_FOLDERS,
)
REFCOCOG = _benchmark(
    "refcocog",
    "RefCOCOg region captions",
    ("val", "test"),
    _refcocog_files,
    _refcocog_regions,
    (
        Published(
            "Osprey-7B (arXiv 2312.10032), for reference: none is published for GPT4RoI",
            "val split; another model, with masks",
            {"METEOR": 16.6, "CIDEr": 108.3},
            model="Osprey-7B",
            split="val",
        ),
        Published(
            "Kosmos-2 (arXiv 2306.14824)",
            "zero-shot, completing “It … is”; another model; split, decoding and clean-up not stated",
            {"METEOR": 12.2, "CIDEr": 60.3},
            model="Kosmos-2",
            split="val",
        ),
    ),
)
