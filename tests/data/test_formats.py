"""Each format's parser on files of the real form, and on genuine records."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import annotation_files as files
import numpy as np
import pytest
from annotation_files import Given

from gpt4roi_nb.data import RegionDataset, load
from gpt4roi_nb.data.coco import CROWDS
from gpt4roi_nb.data.pickles import read_pickle
from gpt4roi_nb.data.problems import NO_IMAGE, Problems
from gpt4roi_nb.data.record import ANSWER_CHOICE, Annotation
from gpt4roi_nb.data.vcr import read_vcr


def opened(given: Given, **more: Any) -> RegionDataset:
    cache = given.annotations.parent / "cache"
    return load(given.format, given.annotations, given.images, cache=cache, **given.options, **more)


def facts(given: Given, **more: Any) -> list[Annotation]:
    dataset = opened(given, **more)
    return [dataset.annotation(number) for number in range(len(dataset))]


@pytest.mark.parametrize("make", files.ALL)
def test_every_format_gives_records_with_their_images_and_nothing_to_complain(
    make: Callable[[Path], Given], tmp_path: Path
) -> None:
    dataset = opened(make(tmp_path), strict=True)
    assert len(dataset) > 0
    for number, record in enumerate(dataset):
        found = dataset.read(number)
        assert found is not None
        assert found[1].turns == record.turns
        assert record.boxes.dtype == np.float32
    assert not dataset.problems.counts()


def test_coco_leaves_crowds_out_counts_them_and_cuts_boxes_at_the_edge(tmp_path: Path) -> None:
    dataset = opened(files.coco(tmp_path))
    (annotation,) = [dataset.annotation(0)]
    assert annotation.texts == ("toothbrush", "person")
    np.testing.assert_allclose(annotation.boxes, [[1, 2, 11.5, 22], [30, 5, 64, 25]])
    assert dataset.problems.left_out == {CROWDS: 1, "images without a box": 1}


def test_lvis_takes_the_image_from_its_address(tmp_path: Path) -> None:
    (annotation,) = facts(files.lvis(tmp_path))
    assert annotation.image == "val2017/000000000007.jpg"
    assert annotation.texts == ("water bottle (sports)",)
    assert annotation.source == "lvis"


def test_mdetr_refcoco_is_one_record_per_sentence(tmp_path: Path) -> None:
    found = facts(files.refcoco(tmp_path))
    assert [annotation.texts[0] for annotation in found] == ["teh girafe on left", "small one"]
    assert {annotation.source for annotation in found} == {"refcoco+"}
    assert {annotation.image for annotation in found} == {"COCO_train2014_000000000025.jpg"}


def test_unc_refs_use_the_image_id_and_the_clean_sentence(tmp_path: Path) -> None:
    found = facts(files.unc_refs(tmp_path))
    assert [(annotation.texts[0], annotation.id) for annotation in found] == [("the lady", "5"), ("blue shirt", "6")]
    assert {annotation.image for annotation in found} == {"COCO_train2014_000000581857.jpg"}
    given = files.unc_refs(tmp_path)
    with pytest.raises(ValueError, match="instances"):
        load(given.format, given.annotations, given.images, cache=tmp_path)


def test_flickr_numbers_regions_as_one_reads(tmp_path: Path) -> None:
    (annotation,) = facts(files.flickr(tmp_path))
    assert annotation.texts == ("a man (<region1>) in blue with two dogs (<region2> and <region3>)",)
    np.testing.assert_allclose(annotation.boxes[:, 0], [1, 41, 51])


def test_visual_genomes_images_are_found_in_both_folders_of_its_archives(tmp_path: Path) -> None:
    content = json.loads(files.vg_train(tmp_path / "given").annotations.read_text())
    content["images"].append({**content["images"][0], "id": 3, "file_name": "3.jpg"})
    content["annotations"].append({**content["annotations"][0], "id": 9, "image_id": 3})
    annotations = files.write(tmp_path / "train.json", content)
    files.image_files(tmp_path / "vg" / "VG_100K", "2.jpg")
    few = load("visual_genome", annotations, tmp_path / "vg", cache=tmp_path / "cache")
    assert [record.image for record in few] == ["VG_100K/2.jpg"] and few.problems.counts() == {NO_IMAGE: 1}
    files.image_files(tmp_path / "vg" / "VG_100K_2", "3.jpg")  # the second archive, unpacked later
    both = load("visual_genome", annotations, tmp_path / "vg", cache=tmp_path / "cache")
    assert [record.image for record in both] == ["VG_100K/2.jpg", "VG_100K_2/3.jpg"]
    assert not both.problems.counts() and all(both.read(number) for number in range(2))


def test_a_small_file_of_ones_own_is_read_as_visual_genomes(tmp_path: Path) -> None:
    """As docs/data.md shows it."""
    files.image_files(tmp_path / "images", "a.jpg")
    image = {"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}
    region = {"id": 1, "image_id": 1, "bbox": [1, 2, 30, 20], "caption": "a cracked cup"}
    mine = files.write(tmp_path / "mine.json", {"images": [image], "annotations": [region]})
    dataset = load("visual_genome", mine, tmp_path / "images", name="mine", cache=tmp_path / "cache")
    assert dataset[0].source == "mine" and dataset[0].turns[1] == ("assistant", "a cracked cup")


def test_visual_genome_reads_both_forms_and_strips_phrases(tmp_path: Path) -> None:
    (annotation,) = facts(files.vg_train(tmp_path / "a"))
    assert annotation.texts == ("a clock", "bckground")
    given = files.vg_regions(tmp_path / "b")
    dataset = opened(given)
    assert dataset.annotation(0).texts == ("shade along the street", "a clock")
    assert dataset.annotation(0).boxes.max() == 140  # the image's size is not known yet
    found = dataset.read(0)
    assert found is not None
    assert found[1].boxes.max() == files.WIDTH
    data = [{"image_id": 2, "width": 64, "height": 48, "url": "https://x/images/VG_100K_2/2.jpg"}]
    (annotation,) = facts(given._replace(images=None), image_data=files.write(tmp_path / "image_data.json", data))  # type: ignore[arg-type]
    assert annotation.image == "VG_100K_2/2.jpg"
    assert annotation.boxes.max() == files.WIDTH


def test_vcr_takes_objects_from_tokens_and_leaves_ordinary_numbers(tmp_path: Path) -> None:
    first, _ = facts(files.vcr(tmp_path))
    assert first.texts == (
        "Why is <region2>'s hand up at 3 o'clock?",
        "<region2> can't see <region3>",
        '<region3> says "hi".',
    )
    np.testing.assert_allclose(first.boxes, np.array(files.VCR_BOXES)[:, :4])


def test_vcr_renders_single_and_several_regions_with_their_boxes_alone(tmp_path: Path) -> None:
    (single,) = facts(files.vcr_single(tmp_path / "a"))
    assert single.texts == ("Why is <region1>'s hand up at 3 o'clock?", "<region1> waves.")
    assert single.boxes[:, 0].tolist() == [20]
    several = facts(files.vcr_several(tmp_path / "b"))
    assert [annotation.boxes[:, 0].tolist() for annotation in several] == [[20, 40], [20, 40]]
    assert several[0].texts[1] == "<region1> can't see <region2>"


def test_vcr_multiple_choice_asks_for_answer_and_rationale_in_the_protocols_form(tmp_path: Path) -> None:
    dataset = opened(files.vcr_choice(tmp_path))
    answer, rationale = dataset[0], dataset[1]
    opening = (
        "<region1>,<region2>,<region3> refers to specific areas within the photo along with their respective "
        "identifiers.\n"
    )
    for record, letter in ((answer, "(B)"), (rationale, "(A)")):
        assert record.turns[0][1].startswith(opening)
        assert record.turns[1] == ("assistant", letter)
    assert "\n(C) <region1> and <region2> wave.\n" in answer.turns[0][1]
    assert "Answer: <region2> can't see <region3>\n" in rationale.turns[0][1]
    assert dataset.annotation(0).kind == ANSWER_CHOICE


def test_vcr_without_its_folder_or_with_an_unknown_rendering_says_so(tmp_path: Path) -> None:
    given = files.vcr(tmp_path)
    with pytest.raises(ValueError, match="vcr1images"):
        next(read_vcr(given.annotations, Problems()))
    with pytest.raises(ValueError, match="'several'"):
        next(read_vcr(given.annotations, Problems(), given.images, rendering="both"))


@pytest.mark.parametrize("kind", ["pkl", "npz", "parquet"])
def test_llava_joins_the_detectors_boxes_best_first(kind: str, tmp_path: Path) -> None:
    first, second = facts(files.llava(tmp_path, kind))
    assert first.texts == ("What is it?", "A bus.\nA red one.", "Sure?", "Yes.")
    assert second.texts == ("Describe it.", "A bus.")
    np.testing.assert_allclose(first.boxes, [[32, 24, 48, 36], [0, 0, 16, 24]])
    assert first.id != second.id
    names = [{"id": k, "name": name} for k, name in ((7, "cup_(for_tea)"), (2, "toy_car"), (5, "dog"))]
    lvis = files.write(tmp_path / "lvis.json", {"categories": names})
    (named, _) = facts(files.llava(tmp_path, kind), categories=lvis)
    assert named.texts[:2] == ("toy car", "dog") and named.texts[2:] == first.texts
    (best, _) = facts(files.llava(tmp_path, kind), min_score=0.95, fallback=2, categories=lvis)
    assert best.texts[:2] == named.texts[:2]
    (wide, _) = facts(files.llava(tmp_path, kind), min_side=0.3, min_score=0, categories=lvis)
    assert wide.texts[0] == "cup (for tea)" and len(wide.boxes) == 1


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_may_hold_data_and_nothing_else(protocol: int, tmp_path: Path) -> None:
    file = tmp_path / "data.pkl"
    content = [{"a": (1, 2.5, "é"), "rows": np.ones((2, 5), np.float32), "fortran": np.asfortranarray(np.eye(3))}]
    file.write_bytes(pickle.dumps(content, protocol=protocol))
    (read,) = read_pickle(file, arrays=True)
    assert read["a"] == (1, 2.5, "é")
    np.testing.assert_array_equal(read["rows"], content[0]["rows"])
    np.testing.assert_array_equal(read["fortran"], np.eye(3))
    with pytest.raises(ValueError, match="only plain containers"):
        read_pickle(file)
    for harmful in (print, np.ones(2).tofile, np.array([Path("x")], object), Problems):
        file.write_bytes(pickle.dumps(harmful, protocol=protocol))
        with pytest.raises(ValueError, match=r"cannot be read|truncated"):
            read_pickle(file, arrays=True)
    file.write_bytes(b"\x80\x04cut short")
    with pytest.raises(ValueError, match=r"truncated|cannot be read"):
        read_pickle(file)


SAMPLES: list[tuple[str, str, dict[str, Any], int, dict[str, int]]] = [
    ("coco", "coco/instances_val2014_subset.json", {}, 1, {}),
    ("coco", "coco/instances_val2017_subset.json", {}, 1, {}),
    ("coco", "coco_panoptic/panoptic_examples.json", {}, 2, {}),
    ("coco", "lvis/lvis_v0.5_val_subset.json", {"name": "lvis"}, 1, {}),
    ("visual_genome", "visual_genome/region_descriptions_sample.json", {}, 1, {}),
    ("visual_genome", "visual_genome/densecap_gt_region_sample.json", {}, 1, {}),
]


@pytest.mark.samples
@pytest.mark.parametrize(
    ("format", "name", "options", "at_least", "bad"), SAMPLES, ids=[name for _, name, *_ in SAMPLES]
)
def test_genuine_records_load(
    format: str, name: str, options: dict[str, Any], at_least: int, bad: dict[str, int], samples: Path, tmp_path: Path
) -> None:
    dataset = load(format, samples / name, cache=tmp_path, **options)
    assert len(dataset) >= at_least
    assert dataset.problems.counts() == bad, dataset.report()
    assert all(len(record.boxes) for record in dataset)


@pytest.mark.samples
def test_genuine_lvis_records_that_refer_elsewhere_are_counted(samples: Path, tmp_path: Path) -> None:
    """The printed records are of several files: the annotation's image and category are not among them."""
    dataset = load("coco", samples / "lvis/lvis_v1_printed_records.json", cache=tmp_path)
    assert dataset.problems.counts() == {"index out of range": 1}
    assert len(dataset) == 0


@pytest.mark.samples
def test_genuine_panoptic_images_are_read_with_their_boxes(samples: Path, tmp_path: Path) -> None:
    folder = samples / "coco_panoptic"
    dataset = load("coco", folder / "panoptic_examples.json", folder / "input_images", cache=tmp_path, strict=True)
    assert all(dataset.read(number) is not None for number in range(len(dataset)))


@pytest.mark.samples
def test_genuine_refcocog_captions_load_beside_an_instances_file(samples: Path, tmp_path: Path) -> None:
    file = samples / "refcocog/RefCOCOg_annotation_subset.json"
    captions = json.loads(file.read_text())
    ids = [int(key) for key in captions]
    instances = {
        "images": [files.image_entry(number, f"{number}.jpg") for number in ids],
        "annotations": [{"id": number, "image_id": number, "bbox": [1, 2, 30, 20]} for number in ids],
    }
    path = files.write(tmp_path / "instances.json", instances)
    dataset = load("refcoco", file, cache=tmp_path, instances=path, name="refcocog", strict=True)
    assert [dataset.annotation(k).texts[0] for k in range(len(dataset))] == [
        c[0]["caption"][0] for c in captions.values()
    ]
