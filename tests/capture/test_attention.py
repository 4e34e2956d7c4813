"""Named parts, subsets, sizes and files of recorded attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import tiny_gpt4roi, tiny_image

from gpt4roi_nb import RegionSession
from gpt4roi_nb.capture import Attention, RoIFeatures, eager_attention
from gpt4roi_nb.inference.loaded_model import WeightsChangedError

BOX, OTHER_BOX = (3, 4, 30, 40), (20, 8, 60, 44)
FEW = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def gpt4roi():
    return tiny_gpt4roi(seed=1)


@pytest.fixture(scope="module")
def talk(gpt4roi):
    session = gpt4roi.session(tiny_image())
    session.ask("What is <region1>?", [BOX], **FEW)
    session.ask("Is <region2> like region 1?", [OTHER_BOX], **FEW)
    return session


@pytest.fixture(scope="module")
def answer(talk):
    return talk.history[1].answer


@pytest.fixture(scope="module")
def attention(answer):
    return answer.attention()


def own_attentions(gpt4roi, answer):
    """(layers, heads, A, P + G) of transformers' own `output_attentions`, from pixels and ids of the whole model."""
    replay = answer.replay
    ids = torch.tensor([[*replay.prompt.input_ids, *replay.ids]])
    pixel_values = gpt4roi.processor.image_processor(tiny_image())["pixel_values"]
    boxes = [torch.tensor(replay.boxes) / torch.tensor([64, 48, 64, 48])]
    with eager_attention(gpt4roi.model), torch.inference_mode():
        outputs = gpt4roi.model(input_ids=ids, pixel_values=pixel_values, boxes=boxes, output_attentions=True)
    start = len(replay.prompt.input_ids) + replay.first - 1
    return torch.stack([layer[0, :, start : start + len(answer.tokens)] for layer in outputs.attentions])


@pytest.mark.parametrize("path", ["first turn", "follow-up on the cache", "batch of describe"])
def test_weights_equal_those_of_transformers(gpt4roi, talk, path):
    answers = {
        "first turn": lambda: talk.history[0].answer,
        "follow-up on the cache": lambda: talk.history[1].answer,
        "batch of describe": lambda: talk.describe([OTHER_BOX, BOX], **FEW)[1],
    }
    answer = answers[path]()
    assert path != "follow-up on the cache" or answer.reused_tokens > 0
    attention = answer.attention()
    expected = own_attentions(gpt4roi, answer)
    prompt = answer.prompt_tokens
    torch.testing.assert_close(attention.weights, expected[..., :prompt], atol=1e-5, rtol=0)
    torch.testing.assert_close(attention.to_answer, expected[..., prompt:-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(attention.logprobs, torch.tensor(answer.logprobs), atol=1e-4, rtol=0)


def test_mass_sums_to_one_over_spans_and_answer(attention):
    for where in ({}, {"layer": 1}, {"head": 2}, {"layer": 0, "head": 3}):
        mass = attention.mass(**where)
        assert list(mass) == [*attention.spans, "answer so far"]
        torch.testing.assert_close(sum(mass.values()), torch.ones(len(attention.tokens)), atol=1e-5, rtol=0)
    assert attention.mass()["answer so far"][-1] > 0
    one = attention.mass(layer=1, head=2)["region2"][3]
    (column,) = attention.spans["region2"]
    assert one == attention.weights[1, 2, 3, column]


def test_spans_are_disjoint_and_cover_the_prompt(attention, answer):
    positions = [position for span in attention.spans.values() for position in span]
    assert sorted(positions) == list(range(answer.prompt_tokens))


def test_images_are_rows_of_the_weights_and_keep_their_scale(attention):
    grid = attention.to_image(2, layer=1, head=0)
    assert grid.shape == (attention.grid, attention.grid)
    first = attention.spans["image"][0]
    assert grid[1, 2] == attention.weights[1, 0, 2, first + attention.grid + 2]
    assert attention.to_image(-1).sum() == pytest.approx(float(attention.mass()["image"][-1]), abs=1e-6)
    torch.testing.assert_close(attention.matrix("image", 2)[1, 0], grid.sum())
    torch.testing.assert_close(attention.matrix("image").mean(), attention.mass()["image"].mean())


def test_a_subset_is_part_of_the_whole_and_keeps_the_models_numbers(answer, attention):
    part = answer.attention(layers=[1], heads=[3, 0])
    assert part.layers == [1] and part.heads == [3, 0]
    torch.testing.assert_close(part.weights, attention.weights[[1]][:, [3, 0]])
    torch.testing.assert_close(part.to_image(0, layer=1, head=3), attention.to_image(0, layer=1, head=3))
    with pytest.raises(IndexError, match="layer 0 was not recorded; recorded: 1"):
        part.to_image(0, layer=0)
    assert answer.attention(layers=-1).layers == [1]


def test_half_storage_is_the_same_to_half_precision(answer, attention):
    half = answer.attention(dtype=torch.float16)
    assert half.weights.dtype == torch.float16 and half.mass()["image"].dtype == torch.float32
    torch.testing.assert_close(half.weights.float(), attention.weights, atol=5e-4, rtol=0)


def test_the_size_is_known_before_and_limited(answer, attention):
    whole, part = answer.attention_size(), answer.attention_size(layers=0, heads=[1], dtype=torch.float16)
    kept = attention.weights.nbytes + attention.to_answer.nbytes
    assert kept < whole < kept + 1_000_000 and part < whole - 7 / 8 * kept
    with pytest.raises(MemoryError, match=r"narrow it with layers=… \(now 2\), heads=… \(now 4\), dtype=torch.float16"):
        answer.attention(limit=whole - 1)
    assert answer.attention(limit=whole).weights.shape == attention.weights.shape


def test_seven_billion_parameters_and_a_hundred_tokens_fit():
    from gpt4roi_nb import GPT4RoIConfig
    from gpt4roi_nb.capture.recording import LIMIT, sizes

    config = GPT4RoIConfig()
    size = sizes(config, 350, 100, 100, 32, 32, torch.float32, torch.float16)
    assert 150e6 < size < LIMIT == 2e9


def test_no_more_than_one_layer_is_held(gpt4roi, answer):
    """Weights are freed layer by layer: when a layer is seen, all weights of the layer before are gone."""
    import gc
    import weakref

    from gpt4roi_nb.capture.recording import attention_modules, capture_attention, record

    seen = []

    def look(layer, weights):
        gc.collect()
        seen.append((layer, [reference() is not None for _, reference in passed]))
        passed.append((layer, weakref.ref(weights)))

    passed = []
    with capture_attention(attention_modules(gpt4roi.model), look):
        record(answer.replay, [0], [0], torch.float32)
    assert seen == [(0, []), (1, [False])]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"layers": [7]}, ValueError, "layers must be some of 0 to 1, or None for all, but holds 7"),
        ({"layers": True}, TypeError, "each of layers must be a whole number, but is True"),
        ({"heads": []}, ValueError, "heads must be some of 0 to 3, or None for all, but is empty"),
        ({"dtype": torch.bfloat16}, ValueError, "dtype must be torch.float16 or torch.float32, but is torch.bfloat16"),
    ],
)
def test_bad_arguments_are_said(answer, arguments, error, says):
    with pytest.raises(error, match=says):
        answer.attention(**arguments)


def test_layers_and_heads_may_be_numpys(answer):
    some = answer.attention(np.int64(1), np.array([0, 2]))
    assert (some.layers, some.heads) == ([1], [0, 2])


def test_tokens_are_positions(attention):
    assert torch.equal(attention.to_image(np.int64(5)), attention.to_image(5))
    with pytest.raises(IndexError, match="the answer has 6 tokens, numbered from 0, but token is 6"):
        attention.to_image(6)
    with pytest.raises(
        TypeError, match="token, an index into the 6 answer tokens, must be a whole number, but is 'red'"
    ):
        attention.relevancy("red")


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_saved_and_loaded_it_draws_the_same(answer, tmp_path, ending):
    attention = answer.attention(layers=[1], dtype=torch.float16)
    attention.save(tmp_path / f"a{ending}")
    loaded = Attention.load(tmp_path / f"a{ending}")
    assert [path.name for path in tmp_path.iterdir()] == [f"a{ending}"]
    for name in ("tokens", "prompt_tokens", "spans", "layers", "heads", "grid", "image_size", "regions"):
        assert getattr(loaded, name) == getattr(attention, name), name
    assert np.array_equal(np.asarray(loaded.image), tiny_image())
    assert torch.equal(loaded.weights, attention.weights) and torch.equal(loaded.logprobs, attention.logprobs)
    assert torch.equal(loaded.rollout(), attention.rollout())
    assert torch.equal(loaded.relevancy(3), attention.relevancy(3))
    assert loaded.sinks() == attention.sinks() and loaded.sink_thresholds == attention.sink_thresholds
    assert loaded.mass(layer=1)["region1"].tolist() == attention.mass(layer=1)["region1"].tolist()


def test_what_was_not_saved_is_an_error_and_a_loaded_one_can_be_saved_again(answer, tmp_path):
    answer.attention().save(tmp_path / "a.npz", relevancy=False)
    loaded = Attention.load(tmp_path / "a.npz")
    with pytest.raises(RuntimeError, match="the relevancy of this token was not saved with this attention"):
        loaded.relevancy(0)
    loaded.save(tmp_path / "b.safetensors")
    assert torch.equal(Attention.load(tmp_path / "b.safetensors").weights, loaded.weights)


def test_other_files_are_refused(tmp_path, talk):
    (tmp_path / "a.npz").write_bytes(b"PK no")
    talk.roi_features([BOX]).save(tmp_path / "f.npz")
    with pytest.raises(ValueError, match="is damaged, or no saved attention"):
        Attention.load(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"expected saved attention, but .* holds 'region features'"):
        Attention.load(tmp_path / "f.npz")
    with pytest.raises(FileNotFoundError, match="no saved attention"):
        Attention.load(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"must end in .npz or .safetensors"):
        Attention.load(tmp_path / "a.bin")


def test_a_loaded_answer_cannot_be_looked_into(talk, gpt4roi, tmp_path):
    talk.save(tmp_path / "talk.json")
    (turn, _) = RegionSession.load(tmp_path / "talk.json", gpt4roi).history
    for look in (turn.answer.attention, turn.answer.ablate, turn.answer.occlusion, turn.answer.attention_size):
        with pytest.raises(RuntimeError, match="this answer was loaded from a file; ask again to look at"):
            look()


def test_an_unloaded_model_is_said_and_what_was_recorded_can_be_saved(tmp_path):
    gpt4roi = tiny_gpt4roi()
    session = gpt4roi.session(tiny_image())
    answer = session.ask("What is <region1>?", [BOX], **FEW)
    attention, features = answer.attention(), session.roi_features([BOX])
    gpt4roi.unload()
    for look in (answer.attention, answer.ablate, answer.occlusion, attention.rollout):
        with pytest.raises(RuntimeError, match="this model has been unloaded"):
            look()
    attention.save(tmp_path / "a.npz")
    features.save(tmp_path / "f.npz")
    assert torch.equal(Attention.load(tmp_path / "a.npz").to_image(0), attention.to_image(0))
    assert torch.equal(RoIFeatures.load(tmp_path / "f.npz").tokens, features.tokens)


def test_prompt_tokens_read_as_the_prompt(attention):
    words = "".join(attention.prompt_tokens[position] for position in attention.spans["earlier turns"])
    assert words.lstrip().startswith("What is region1") and len(attention.prompt_tokens) == attention.weights.shape[-1]
    assert attention.prompt_tokens[attention.spans["region1"][0]] == "<bbox>"


def test_a_large_image_is_kept_small():
    gpt4roi = tiny_gpt4roi()
    answer = gpt4roi.session(tiny_image(height=600, width=2000)).ask(
        "What is <region1>?", [(500, 100, 900, 400)], **FEW
    )
    attention = answer.attention()
    assert attention.image_size == (2000, 600) and attention.image.size == (1024, 307)
    assert attention.regions == {1: (500, 100, 900, 400)}


def test_after_training_old_attention_is_not_tested_with_new_weights():
    """The map would be of one model and its test of another."""
    gpt4roi = tiny_gpt4roi(seed=2)
    answer = gpt4roi.session(tiny_image()).ask("What is <region1>?", [BOX], **FEW)
    attention = answer.attention()
    known = attention.relevancy(0)
    answer.check_weights(attention)
    with gpt4roi.training_step(), torch.no_grad():
        gpt4roi.model.multi_modal_projector.bias += 1
    assert attention.relevancy(0) is known  # was computed before
    with pytest.raises(WeightsChangedError, match="trained after this attention was recorded"):
        attention.relevancy(1)
    with pytest.raises(WeightsChangedError, match="ask the question again"):
        answer.check_weights(attention)
    answer.check_weights(answer.attention())
