"""The demo's vocabulary grows without losing what its model can say."""

import torch

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.data.scenes.questions import vocabulary_texts
from gpt4roi_nb.data.scenes.scene import make_scene
from gpt4roi_nb.demo.recipe.growth import deepened, grow, grown_tokenizer, new_merges, words_of
from gpt4roi_nb.demo.recipe.vocabulary import generation_config
from gpt4roi_nb.processor import GPT4RoIProcessor
from gpt4roi_nb.tokenizer import ADDED_TOKENS

NEW = ["a photograph of a landscape", "the photographs", "landscape, or photograph?"]


def test_merges_are_those_of_byte_pair_encoding():
    words = {("▁lo", "w"): 5, ("▁lo", "w", "er"): 3, ("▁n", "ew", "er"): 4}

    assert new_merges(words, 3) == [("▁lo", "w"), ("ew", "er"), ("▁n", "ewer")]
    assert new_merges(words, 1, known=["▁low"]) == [("ew", "er")]


def test_a_new_word_is_one_piece_and_old_texts_are_cut_as_before(tmp_path):
    old = GPT4RoI.from_pretrained().processor.tokenizer
    new, spelled = grown_tokenizer(old, NEW, 40, tmp_path)

    assert new.tokenize("photograph landscape") == ["▁photograph", "▁landscape"]
    assert spelled["▁photograph"] == tuple(old.tokenize("photograph"))
    assert not words_of(NEW[:1], new)
    texts = list(vocabulary_texts())[::20]
    assert [new.tokenize(text) for text in texts] == [old.tokenize(text) for text in texts]
    pieces = new.get_vocab()
    assert all(pieces[piece] == number for piece, number in old.get_vocab().items() if piece not in ADDED_TOKENS)
    assert [pieces[token] for token in ADDED_TOKENS] == list(range(len(new) - len(ADDED_TOKENS), len(new)))


def test_a_grown_model_answers_as_before_and_can_be_stored(tmp_path):
    gpt4roi = GPT4RoI.from_pretrained(device="cpu")
    scene = make_scene(3)
    boxes = [thing.box for thing in scene.objects[:2]]
    asked = ["What is <region1>?", "Is <region1> the same colour as <region2>?"]
    before = [gpt4roi.session(scene.image).ask(text, boxes[: k + 1]).text for k, text in enumerate(asked)]
    processor = gpt4roi.processor
    tokenizer, spelled = grown_tokenizer(processor.tokenizer, NEW, 40, tmp_path)

    grow(gpt4roi.model, processor.tokenizer, tokenizer, spelled)
    grown = GPT4RoIProcessor(
        processor.image_processor, tokenizer, num_image_tokens=processor.num_image_tokens, closing=processor.closing
    )
    gpt4roi.model.generation_config = generation_config(grown)
    gpt4roi.model.save_pretrained(tmp_path / "grown")
    grown.save_pretrained(tmp_path / "grown")
    kept = GPT4RoI.from_pretrained(tmp_path / "grown", device="cpu")

    assert kept.model.config.text_config.vocab_size == len(tokenizer)
    assert [kept.session(scene.image).ask(text, boxes[: k + 1]).text for k, text in enumerate(asked)] == before
    weight = kept.model.get_input_embeddings().weight
    parts = tokenizer.convert_tokens_to_ids(list(spelled["▁landscape"]))
    new_row = weight[tokenizer.convert_tokens_to_ids("▁landscape")].float()
    torch.testing.assert_close(new_row, weight[parts].float().mean(0), atol=1e-2, rtol=1e-2)


@torch.no_grad()
def test_a_deeper_model_computes_the_same_until_it_is_trained():
    gpt4roi = GPT4RoI.from_pretrained(device="cpu")
    old = gpt4roi.model.float()
    deeper = deepened(old, vision=2, text=3)

    for before, after, more in (
        (old.config.vision_config, deeper.config.vision_config, 2),
        (old.config.text_config, deeper.config.text_config, 3),
    ):
        assert after.num_hidden_layers == before.num_hidden_layers + more
    assert deeper.config.feature_layers == old.config.feature_layers
    prompt = gpt4roi.processor.prompt([("user", "What is <region1>?")])
    pixels = gpt4roi.processor.image_processor([make_scene(3).image])["pixel_values"]
    boxes = [torch.tensor([[0.2, 0.3, 0.5, 0.7]])]
    logits = [
        model(input_ids=torch.tensor([prompt.input_ids]), pixel_values=pixels, boxes=boxes).logits
        for model in (old, deeper)
    ]
    torch.testing.assert_close(logits[1], logits[0], atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        deeper.vision_tower.encoder.layers[-1].mlp.fc2.weight.normal_()
    changed = deeper(input_ids=torch.tensor([prompt.input_ids]), pixel_values=pixels, boxes=boxes).logits
    assert (changed - logits[0]).abs().max() > 1e-2
