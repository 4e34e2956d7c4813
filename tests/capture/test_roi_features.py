"""Each step of the region encoder is what the model computes, and its parts add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb.boxes import normalise
from gpt4roi_nb.capture import RoIFeatures
from gpt4roi_nb.roi import resize

BOX, OTHER_BOX, THIRD_BOX = (3.0, 4.0, 30.0, 40.0), (20.0, 8.0, 60.0, 44.0), (40.0, 2.0, 60.0, 20.0)


@pytest.fixture(scope="module")
def gpt4roi():
    return tiny_gpt4roi(seed=1)


@pytest.fixture(scope="module")
def session(gpt4roi):
    return gpt4roi.session(tiny_image())


@pytest.fixture(scope="module")
def features(session):
    return session.roi_features([BOX, OTHER_BOX, THIRD_BOX], rounds=True)


@pytest.fixture(scope="module")
def other(gpt4roi):
    return gpt4roi.session(tiny_image(7)).roi_features([BOX, THIRD_BOX])


def test_every_step_is_what_the_models_modules_put_out(gpt4roi, features):
    """Recorded by hooks on the modules during the model's own pass."""
    encoder = gpt4roi.model.region_encoder
    seen = {}

    def hook(name):
        return lambda module, given, output: seen.setdefault(name, []).append(output)

    named = {
        "inputs": encoder.fusion.input_convs,
        "rounds": encoder.fusion.rounds,
        "head": encoder.head.level_convs,
        "content": [encoder.head.flatten_projection],
        "position": [encoder.head.position_embedding],
        "token": [encoder.head.output_projection],
    }
    handles = [module.register_forward_hook(hook(name)) for name, modules in named.items() for module in modules]
    boxes = torch.from_numpy(normalise([BOX, OTHER_BOX, THIRD_BOX], 64, 48))
    with torch.inference_mode():
        encoding = gpt4roi.model.encode_image(gpt4roi.processor.image_processor(tiny_image())["pixel_values"])
        gpt4roi.model.encode_regions(encoding.fused_maps, [boxes])
    for handle in handles:
        handle.remove()

    def same(recorded, outputs):
        for one, output in zip(recorded, outputs, strict=True):
            torch.testing.assert_close(one, output, atol=1e-5, rtol=0)

    # The model's own pass resizes after the first convolutions.
    sizes = encoder.fusion.sizes
    same(features.input_convs, [resize(out, size)[0] for out, size in zip(seen["inputs"], sizes, strict=True)])
    assert len(features.fusion_rounds) == 2
    same([level for maps in features.fusion_rounds for level in maps], [output[0] for output in seen["rounds"]])
    same(features.fused_maps, features.fusion_rounds[-1])
    same(features.head_outputs, seen["head"])
    same([features.content, features.position_embedding, features.tokens], [seen[n][0] for n in list(named)[3:]])


def test_rounds_come_on_request(session):
    assert session.roi_features([BOX]).fusion_rounds is None


def test_the_parts_add_up_to_the_tokens(features):
    parts = features.contribution()
    assert list(parts) == ["level 0", "level 1", "position", "bias"]
    torch.testing.assert_close(sum(parts.values()), features.tokens, atol=1e-4, rtol=0)
    shares = features.shares()
    torch.testing.assert_close(sum(shares.values()), torch.ones(3), atol=1e-4, rtol=0)


def test_each_part_is_what_a_linear_model_gives_its_source(gpt4roi, features):
    """With the ReLU's active set held the token is affine in each level's grid and in the position: by gradients."""
    head = gpt4roi.model.region_encoder.head
    pooled = [level.clone().requires_grad_() for level in features.pooled]
    position = features.position_embedding.clone().requires_grad_()
    levels = [conv(level) for conv, level in zip(head.level_convs, pooled, strict=True)]
    active = (sum(levels) > 0).detach()
    token = head.output_projection(head.flatten_projection((sum(levels) * active).flatten(1)) + position)
    torch.testing.assert_close(token, features.tokens, atol=1e-4, rtol=0)
    parts = features.contribution()
    for column in (0, 5, 31):
        gradients = torch.autograd.grad(token[:, column].sum(), [*pooled, position], retain_graph=True)
        sources = [*pooled, position]
        for name, gradient, source in zip(("level 0", "level 1", "position"), gradients, sources, strict=True):
            along = (gradient * source).flatten(1).sum(dim=1)
            torch.testing.assert_close(parts[name][:, column], along, atol=1e-4, rtol=0)


def test_similarity_is_cosine(features, other):
    expected = F.cosine_similarity(features.tokens[:, None], other.tokens[None], dim=-1)
    torch.testing.assert_close(features.similarity(other), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(features.similarity().diagonal(), torch.ones(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("of", "level", "side"), [("fused_maps", 0, 8), ("levels", 1, 4), ("input_convs", -1, 4)])
def test_similarity_to_every_place(features, of, level, side):
    found = features.similarity_map(1, of, level)
    assert found.shape == (side, side) and found.abs().max() <= 1 + 1e-5
    maps = getattr(features, of)[level]
    centred = maps - maps.mean(dim=(1, 2), keepdim=True)
    x1, y1, x2, y2 = (features.boxes[1] * side).tolist()
    xs = torch.tensor([x1 + (i + 0.5) * (x2 - x1) / 14 for i in range(14)]) / side * 2 - 1
    ys = torch.tensor([y1 + (i + 0.5) * (y2 - y1) / 14 for i in range(14)]) / side * 2 - 1
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)
    region = F.grid_sample(centred[None], grid[None], padding_mode="border", align_corners=False)[0].mean(dim=(1, 2))
    expected = F.cosine_similarity(centred, region[:, None, None], dim=0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_nearest_ranks_the_bank(features, other):
    found = features.nearest([other, features], k=2, labels=["a", "b", "one", "two", "three"])
    assert found.indices[:, 0].tolist() == [2, 3, 4] and found.similarity[:, 0].tolist() == pytest.approx([1] * 3)
    assert [row[0] for row in found.labels] == ["one", "two", "three"]
    cosines = features.similarity(other)
    alone = features.nearest(other, k=2)
    assert alone.indices[0].tolist() == cosines[0].argsort(descending=True).tolist()
    assert features.nearest(other.tokens, k=1).labels == [[int(index)] for index in cosines.argmax(dim=1)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"bank": torch.zeros(3, 5)}, r"the bank must be \(M, 32\).* but is \(3, 5\)"),
        ({"bank": torch.ones(3, 32), "k": 4}, "k must be between 1 and the 3 regions of the bank, but is 4"),
        ({"bank": torch.ones(3, 32), "k": 1, "labels": ["x"]}, "the bank has 3 regions, but 1 labels were given"),
    ],
)
def test_a_bad_bank_is_said(features, arguments, says):
    with pytest.raises(ValueError, match=says):
        features.nearest(**arguments)


@pytest.mark.parametrize("of", ["levels", "input_convs", "fused_maps", "pooled"])
def test_components_are_those_of_a_singular_value_decomposition(features, other, of):
    found = features.pca(of, n=2, others=[other])
    vectors = torch.cat(
        [each.movedim(-3, -1).flatten(0, -2) for one in (features, other) for each in getattr(one, of)]
    ).double()
    _, values, axes = torch.linalg.svd(vectors - vectors.mean(dim=0), full_matrices=False)
    cosines = (found.components.double() * axes[:2]).sum(dim=1).abs()
    torch.testing.assert_close(cosines, torch.ones(2, dtype=torch.float64), atol=1e-4, rtol=0)
    expected = (values**2 / (values**2).sum())[:2].float()
    torch.testing.assert_close(found.explained, expected, atol=1e-4, rtol=0)
    assert all(each.min() >= 0 and each.max() <= 1 for each in found.maps)
    assert [each.shape[-1] for each in found.maps] == [each.shape[-1] for each in getattr(features, of)]


def test_colours_compare_over_levels_and_images(features, other):
    """The same vector has the same colour on every level and image; both ends of the range are reached once."""
    found = features.pca("fused_maps", n=3, others=[other])
    again = other.pca("fused_maps", n=3, others=[features])
    for one, two in zip(found.maps_of(other), again.maps, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=0)
    everything = torch.cat([each.flatten(1) for each in (*found.maps, *found.maps_of(other))], dim=1)
    torch.testing.assert_close(everything.amin(dim=1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(everything.amax(dim=1), torch.ones(3), atol=1e-5, rtol=0)


def test_all_components_give_the_features_back(features):
    found = features.pca("fused_maps", n=16)
    for values, maps in zip(found.project(features), features.fused_maps, strict=True):
        back = torch.einsum("kc,khw->chw", found.components, values) + found.mean[:, None, None]
        torch.testing.assert_close(back, maps, atol=1e-4, rtol=0)
    assert float(found.explained.sum()) == pytest.approx(1, abs=1e-4)


def test_norms_have_the_shapes_of_their_vectors(features):
    norms = features.norms()
    assert norms["levels"][0].shape == (4, 4) and norms["fused_maps"][0].shape == (8, 8)
    assert norms["pooled"][1].shape == (3, 4, 4) and norms["tokens"].shape == (3,)
    expected = np.linalg.norm(features.fused_maps[1][:, 2, 3].numpy())
    assert float(norms["fused_maps"][1][2, 3]) == pytest.approx(expected, rel=1e-5)


def test_the_lens_reads_hidden_states_with_the_last_dictionary(gpt4roi, session, features):
    lens = features.logit_lens(k=3)
    assert len(lens.words) == 3 and [len(layer) for layer in lens.words] == [3, 3, 3]
    assert lens.probabilities.shape == (3, 3, 3) and "tuned" not in lens.caveat and "2303.08112" in lens.caveat
    model, processor = gpt4roi.model, gpt4roi.processor
    inputs = processor(tiny_image(), "What is <region1>?", [OTHER_BOX])
    with torch.inference_mode():
        states = model(
            input_ids=inputs["input_ids"],
            pixel_values=inputs["pixel_values"],
            boxes=inputs["boxes"],
            output_hidden_states=True,
        ).hidden_states
        position = processor.prompt([("user", "What is <region1>?")]).spans["region1"][0]
        for layer, state in enumerate(states):
            vector = state[0, position]
            if layer < 2:  # the last one is normalised already
                vector = model.language_model.model.norm(vector)
            expected = model.language_model.lm_head(vector).softmax(dim=-1).topk(3)
            torch.testing.assert_close(lens.probabilities[layer, 1], expected.values, atol=1e-4, rtol=0)
            words = [processor.tokenizer.decode([index]).strip() for index in expected.indices.tolist()]
            assert [word.strip() for word in lens.words[layer][1]] == words


def test_the_lens_over_the_image_has_a_row_a_place(features):
    lens = features.logit_lens(k=1, of="image")
    assert lens.probabilities.shape == (3, 16, 1) and len(lens.words[2]) == 16
    with pytest.raises(ValueError, match='of must be "regions" or "image"'):
        features.logit_lens(of="words")


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_saved_and_loaded_they_are_the_same(session, tmp_path, ending):
    features = session.roi_features([BOX, OTHER_BOX], rounds=True)
    lens = features.logit_lens(k=2)
    features.save(tmp_path / f"f{ending}")
    loaded = RoIFeatures.load(tmp_path / f"f{ending}")
    for name in ("boxes", "content", "position_embedding", "tokens"):
        assert torch.equal(getattr(loaded, name), getattr(features, name))
    for name in ("levels", "input_convs", "fused_maps", "pooled", "head_outputs"):
        assert all(map(torch.equal, getattr(loaded, name), getattr(features, name)))
    assert all(map(torch.equal, loaded.fusion_rounds[1], features.fusion_rounds[1]))
    assert loaded.image_size == (64, 48) and np.array_equal(np.asarray(loaded.image), tiny_image())
    assert torch.equal(loaded.contribution()["position"], features.contribution()["position"])
    assert loaded.logit_lens(k=2).words == lens.words
    assert torch.equal(loaded.pca().maps[0], features.pca().maps[0])
    with pytest.raises(RuntimeError, match="was not saved with these features"):
        loaded.logit_lens(k=5)


def test_without_boxes_there_are_maps_alone(session):
    features = session.roi_features([])
    assert features.contribution()["position"].shape == (0, 32) and features.logit_lens(2).probabilities.shape[1] == 0
    assert features.pca().maps[0].shape == (3, 8, 8) and features.similarity().shape == (0, 0)
    with pytest.raises(IndexError, match="there are 0 regions"):
        features.similarity_map(0)


def test_numbers_may_be_numpys_and_are_no_booleans(features):
    one = np.int64(1)
    assert torch.equal(features.similarity_map(one), features.similarity_map(1))
    assert torch.equal(features.nearest(features, k=one).indices, features.nearest(features, k=1).indices)
    assert features.pca(n=one).components.shape[0] == 1
    for asked in (features.similarity_map, lambda k: features.nearest(features, k), lambda n: features.pca(n=n)):
        with pytest.raises(TypeError, match="must be a whole number, but is True"):
            asked(True)
