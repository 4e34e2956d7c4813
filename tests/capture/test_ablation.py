"""An ablation changes exactly what it says about a region, and scores the same answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb.capture import ABLATIONS
from gpt4roi_nb.capture.ablation import blurred, farthest_corner, reference_boxes

BOX, OTHER_BOX, THIRD_BOX = (3.0, 4.0, 30.0, 40.0), (20.0, 8.0, 60.0, 44.0), (40.0, 2.0, 60.0, 20.0)
FEW = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def gpt4roi():
    return tiny_gpt4roi(seed=1)


@pytest.fixture(scope="module")
def session(gpt4roi):
    return gpt4roi.session(tiny_image())


@pytest.fixture(scope="module")
def answer(session):
    return session.ask("Is <region1> like <region2>?", [BOX, OTHER_BOX], **FEW)


def scores(gpt4roi, answer, regions, image=None):
    """Log-probabilities of the answer in one plain pass of the whole model with these region vectors."""
    replay, model = answer.replay, gpt4roi.model
    ids = torch.tensor([[*replay.prompt.input_ids, *replay.ids]])
    pixel_values = gpt4roi.processor.image_processor(tiny_image() if image is None else image)["pixel_values"]
    with torch.inference_mode():
        logits = model(input_ids=ids, pixel_values=pixel_values, region_features=regions).logits[0]
    start = len(replay.prompt.input_ids) + replay.first - 1
    rows = logits[start:-1].log_softmax(dim=-1)
    return rows.gather(-1, torch.tensor(answer.token_ids)[:, None]).squeeze(-1)


def vectors(session, *boxes):
    return session.roi_features(boxes).tokens


def check(ablation, expected, answer):
    assert ablation.before.tolist() == pytest.approx(answer.logprobs, abs=1e-4)
    torch.testing.assert_close(ablation.after, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(ablation.change, ablation.after - ablation.before)
    assert ablation.tokens == answer.tokens


def test_remove_takes_the_mean_of_boxes_that_do_not_touch(gpt4roi, session, answer):
    boxes = reference_boxes((64, 48), BOX)
    assert len(boxes) == 13 and all(x1 >= 30 or x2 <= 3 or y1 >= 40 or y2 <= 4 for x1, y1, x2, y2 in boxes)
    mean = vectors(session, *boxes).mean(dim=0)
    expected = scores(gpt4roi, answer, torch.stack([mean, vectors(session, OTHER_BOX)[0]]))
    check(answer.ablate(1), expected, answer)


def test_remove_with_zero(gpt4roi, session, answer):
    one = vectors(session, BOX)[0]
    expected = scores(gpt4roi, answer, torch.stack([one, torch.zeros_like(one)]))
    check(answer.ablate(2, "remove", baseline="zero"), expected, answer)


def test_swap_exchanges_two_regions_or_takes_a_box(gpt4roi, session, answer):
    expected = scores(gpt4roi, answer, vectors(session, OTHER_BOX, BOX))
    for ablation in (answer.ablate(1, "swap"), answer.ablate(2, "swap", other=1)):
        check(ablation, expected, answer)
    replaced = answer.ablate(1, "swap", box=THIRD_BOX)
    assert replaced.box == THIRD_BOX
    check(replaced, scores(gpt4roi, answer, vectors(session, THIRD_BOX, OTHER_BOX)), answer)


def test_move_goes_to_the_farthest_corner_or_where_it_is_told(gpt4roi, session, answer):
    assert farthest_corner(BOX, (64, 48)) == (37, 12, 64, 48)
    assert farthest_corner((40, 30, 60, 40), (64, 48)) == (0, 0, 20, 10)
    moved = answer.ablate(1, "move")
    assert moved.box == (37, 12, 64, 48)
    check(moved, scores(gpt4roi, answer, vectors(session, moved.box, OTHER_BOX)), answer)
    assert answer.ablate(1, "move", box=THIRD_BOX).box == THIRD_BOX


def test_blur_changes_only_the_inside_and_the_whole_encoding_follows(gpt4roi, answer):
    image = Image.fromarray(tiny_image())
    dull = np.asarray(blurred(image, BOX)).astype(int)
    inside = np.zeros((48, 64), bool)
    inside[4:40, 3:30] = True
    assert (dull[~inside] == tiny_image()[~inside]).all()
    assert dull[inside].std() < tiny_image()[inside].std() / 10
    with torch.inference_mode():
        encoding = gpt4roi.model.encode_image(gpt4roi.processor.image_processor(blurred(image, BOX))["pixel_values"])
        boxes = torch.tensor([BOX, OTHER_BOX]) / torch.tensor([64, 48, 64, 48])
        regions = gpt4roi.model.encode_regions(encoding.fused_maps, [boxes])
    check(answer.ablate(1, "blur"), scores(gpt4roi, answer, regions, blurred(image, BOX)), answer)


@pytest.mark.parametrize("size", [(300, 40), (40, 300)])
def test_blur_leaves_no_structure_along_a_long_box(size):
    width, height = size
    waves = (127.5 + 127.5 * np.sin(np.arange(300) * 2 * np.pi / 100)).astype(np.uint8)
    pixels = np.broadcast_to(waves[None, :] if width > height else waves[:, None], (height, width))
    dull = np.asarray(blurred(Image.fromarray(np.stack([pixels] * 3, axis=-1)), (0, 0, width, height))).astype(int)
    assert dull.std() < pixels.std() / 10  # with the short side's radius for both, about half of it stays


@pytest.mark.parametrize("baseline", ["mean", "zero"])
def test_position_and_features_alone(gpt4roi, session, answer, baseline):
    features = session.roi_features([BOX, *reference_boxes((64, 48), BOX)])
    content, position = features.content, features.position_embedding
    project = gpt4roi.model.region_encoder.head.output_projection
    other = vectors(session, OTHER_BOX)[0]

    def instead(values):
        return values[1:].mean(dim=0) if baseline == "mean" else torch.zeros_like(values[0])

    with torch.inference_mode():
        only_position = project(instead(content) + position[0])
        only_features = project(content[0] + instead(position))
    expected = scores(gpt4roi, answer, torch.stack([only_position, other]))
    check(answer.ablate(1, "position_only", baseline=baseline), expected, answer)
    expected = scores(gpt4roi, answer, torch.stack([only_features, other]))
    check(answer.ablate(1, "feature_only", baseline=baseline), expected, answer)


def test_the_new_answer_is_what_the_model_says_then(gpt4roi, answer):
    """With the token of another box, the model answers as when asked about that box."""
    alone = gpt4roi.session(tiny_image()).ask("What is <region1>?", [BOX], **FEW)
    asked = gpt4roi.session(tiny_image()).ask("What is <region1>?", [THIRD_BOX], **FEW)
    changed = alone.ablate(1, "move", box=THIRD_BOX, max_new_tokens=6)
    assert changed.answer == asked.text != alone.text
    assert answer.ablate(1, generate=False).answer is None


def test_every_way_leaves_the_answer_and_the_conversation_alone(session, answer):
    before = session.history, answer.logprobs
    for how in ABLATIONS:
        ablation = answer.ablate(2, how, generate=False)
        assert ablation.how == how and ablation.change.abs().max() > 0 and len(ablation.change) == len(answer.tokens)
        ablation.change.requires_grad_()  # an ordinary tensor
    assert (session.history, answer.logprobs) == before


def test_verdicts_are_words(answer):
    from gpt4roi_nb.capture import Ablation

    before, after = torch.tensor([-0.1, -0.2, -0.1]), torch.tensor([-0.1004, -3.3, -0.12])
    made = Ablation("remove", 1, "mean", None, ["a", " red", " cup"], before, after, "")
    assert made.verdict(1) == "without region 1 the log-probability of 'red' falls by 3.1"
    assert made.verdict(0) == "without region 1 the log-probability of 'a' stays the same"
    assert made.verdict(2) == "without region 1 the log-probability of 'cup' hardly changes (-0.02)"
    assert made.verdict() == "without region 1 the log-probability of the answer falls by 3.1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"region": 3}, "has no region 3; its regions are: 1 and 2"),
        ({"how": "hide"}, "how must be one of remove, blur, swap, move, position_only, feature_only, but is 'hide'"),
        ({"baseline": "max"}, "baseline must be one of mean, zero, but is 'max'"),
        ({"how": "swap", "other": 1}, "region 1 cannot be swapped with itself"),
        ({"how": "move", "other": 2}, 'other=… goes only with how="swap"'),
        ({"how": "blur", "box": BOX}, 'box=… goes with how="swap" or "move"'),
        ({"how": "move", "box": (5, 5, 5, 9)}, "box"),
    ],
)
def test_bad_arguments_are_said(answer, arguments, says):
    with pytest.raises(ValueError, match=says):
        answer.ablate(**arguments)


def test_a_single_region_has_none_to_swap_with(gpt4roi):
    alone = gpt4roi.session(tiny_image()).ask("What is <region1>?", [BOX], **FEW)
    with pytest.raises(ValueError, match="only one region, so there is none to swap it with; give box="):
        alone.ablate(1, "swap")
    without = gpt4roi.session(tiny_image()).ask("What is there?", **FEW)
    with pytest.raises(ValueError, match="has no region 1; its regions are: none"):
        without.ablate(1)


def test_occlusion_is_a_grid_of_drops(gpt4roi, answer):
    each = answer.occlusion(2, "each", batch_size=3)
    assert each.shape == (len(answer.tokens), 2, 2)
    torch.testing.assert_close(answer.occlusion(2), each.sum(dim=0), atol=1e-4, rtol=0)
    torch.testing.assert_close(answer.occlusion(2, 1), each[1], atol=1e-4, rtol=0)
    assert answer.occlusion(3).shape == (2, 2) and answer.occlusion(1).shape == (4, 4)
    # By hand: the upper right quarter in the mean colour, the whole model run again.
    covered = tiny_image().copy()
    covered[:24, 32:] = tiny_image().reshape(-1, 3).mean(axis=0).round()
    with torch.inference_mode():
        encoding = gpt4roi.model.encode_image(gpt4roi.processor.image_processor(covered)["pixel_values"])
        boxes = torch.tensor([BOX, OTHER_BOX]) / torch.tensor([64, 48, 64, 48])
        regions = gpt4roi.model.encode_regions(encoding.fused_maps, [boxes])
    expected = torch.tensor(answer.logprobs) - scores(gpt4roi, answer, regions, covered)
    torch.testing.assert_close(each[:, 0, 1], expected, atol=1e-4, rtol=0)


def test_occlusion_without_regions_and_with_bad_arguments(gpt4roi, answer):
    without = gpt4roi.session(tiny_image()).ask("What is there?", **FEW)
    assert without.occlusion(2).abs().max() > 0
    with pytest.raises(ValueError, match="patch must be a whole number of places, from 1 to 4, but is 5"):
        answer.occlusion(5)
    with pytest.raises(IndexError, match='token must be None, "each" or one of the 6 answer tokens, but is 9'):
        answer.occlusion(2, 9)
    with pytest.raises(TypeError, match='token, if it is neither None nor "each", must be a whole number, but is True'):
        answer.occlusion(2, True)
