"""A GPT4RoI can start from any decoder and tower: it trains, answers, and survives saving and loading."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import TOKENIZER, tiny_image
from tiny_parts import REGION, TOWER, save_clip, save_language_model, save_siglip
from transformers import AutoTokenizer, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel, SwinConfig

from gpt4roi_nb import GPT4RoI
from gpt4roi_nb.processor import CLIP_MEAN, CLIP_STD
from gpt4roi_nb.prompt import SYSTEM
from gpt4roi_nb.tokenizer import ADDED_TOKENS

BOX, OTHER_BOX = (3, 4, 30, 40), (20, 8, 60, 44)
QUESTION = "What is <region1>?"
TURNS = [("user", QUESTION), ("assistant", "A small red cup."), ("user", "And <region2>?"), ("assistant", "The table.")]
FEW = {"max_new_tokens": 10}
# name: decoder, what its configuration says otherwise, tower
PARTS = {
    "llama": ("llama", {}, save_siglip),
    "llama-tied": ("llama", {"tie_word_embeddings": True}, save_clip),
    "qwen2-spare-rows": ("qwen2", {"spare_rows": 20}, save_siglip),
    "qwen3": ("qwen3", {}, save_clip),
}


def assemble(language_model, vision_tower, **options):
    torch.manual_seed(0)
    return GPT4RoI.from_parts(language_model, vision_tower, region_config=REGION, device="cpu", **options)


@pytest.fixture(scope="module", params=PARTS)
def parts(request, tmp_path_factory):
    """(language model, vision tower) as folders."""
    kind, changes, save_tower = PARTS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    return save_language_model(folder / "language", kind, **changes), save_tower(folder / "tower")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    return save_language_model(tmp_path_factory.mktemp("parts") / "language", "llama")


@pytest.fixture(scope="module")
def vision_tower(tmp_path_factory):
    return save_siglip(tmp_path_factory.mktemp("parts") / "tower")


@pytest.fixture(scope="module")
def clip_tower(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("parts") / "clip")


@pytest.fixture(scope="module")
def assembled(parts):
    return assemble(*parts)


def conversation(gpt4roi):
    session = gpt4roi.session(tiny_image())
    first = session.ask(QUESTION, [BOX], **FEW)
    second = session.ask("Is it like <region2>?", [OTHER_BOX], **FEW)
    return first, second


def test_it_answers_and_describes(assembled):
    first, second = conversation(assembled)
    assert first.token_ids and second.token_ids
    assert second.reused_tokens >= first.prompt_tokens - len("<think>\n\n</think>\n\n")
    described = assembled.session(tiny_image()).describe([BOX, OTHER_BOX], QUESTION, **FEW)
    assert described[0].token_ids == first.token_ids and len(described) == 2
    assert first.attention().span_mass("image").shape[-1] == len(first.token_ids)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_training_step_lowers_the_loss(parts, stage):
    model, processor = (gpt4roi := assemble(*parts)).model, gpt4roi.processor
    learning = ["region_encoder", "multi_modal_projector", "language_model"][: stage + 1]
    model.requires_grad_(False)
    for name in learning:
        getattr(model, name).requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = processor([tiny_image(), tiny_image(1)], [TURNS, TURNS], [[BOX, OTHER_BOX], [OTHER_BOX, BOX]])
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-3)
    loss = model.train()(**batch).loss
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        assert model(**batch).loss < loss - 1e-3
    changed = {
        name.split(".")[0] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == set(learning)


@pytest.mark.slow
def test_it_comes_back_from_a_folder(assembled, tmp_path):
    assembled.save_pretrained(tmp_path)
    loaded = GPT4RoI.from_pretrained(tmp_path, device="cpu")
    ours, theirs = assembled.model.state_dict(), loaded.model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    for one, other in zip(conversation(assembled), conversation(loaded), strict=True):
        assert (one.text, one.token_ids, one.reused_tokens) == (other.text, other.token_ids, other.reused_tokens)
    assert (loaded.processor.chat_format, loaded.processor.system) == ("template", "")
    assert (
        loaded.processor.conversation(TURNS)["labels"].tolist()
        == assembled.processor.conversation(TURNS)["labels"].tolist()
    )
    assert loaded.model.generation_config.eos_token_id == assembled.model.generation_config.eos_token_id


def test_generate_gives_the_sessions_answer(assembled):
    first, _ = conversation(assembled)
    inputs = assembled.processor(tiny_image(), QUESTION, [BOX])
    inputs.pop("labels")
    never = sorted(
        set(range(assembled.model.config.text_config.vocab_size))
        - set(assembled.processor.tokenizer.get_vocab().values())
    )
    never += assembled.processor.tokenizer.convert_tokens_to_ids(list(ADDED_TOKENS[1:]))
    generated = assembled.model.generate(**inputs, max_new_tokens=10, do_sample=False, suppress_tokens=never)
    ids = generated[0, inputs["input_ids"].shape[1] :].tolist()
    assert ids[: len(first.token_ids)] == first.token_ids or first.token_ids in [
        ids[start : start + len(first.token_ids)] for start in range(len(ids))
    ]


def test_the_pretrained_weights_are_kept(parts):
    language, tower = parts
    model = assemble(language, tower).model
    original = AutoTokenizer.from_pretrained(language)
    from transformers import AutoModel, AutoModelForCausalLM

    before = AutoModelForCausalLM.from_pretrained(language, dtype=torch.float32)
    known = len(original)
    for name, tensor in before.state_dict().items():
        ours = model.language_model.get_parameter(name)
        vocabulary = "embed_tokens" in name or "lm_head" in name
        assert torch.equal(ours[:known], tensor[:known]) if vocabulary else torch.equal(ours, tensor), name
    whole = AutoModel.from_pretrained(tower, dtype=torch.float32)
    for name, tensor in getattr(whole, "vision_model", whole).state_dict().items():
        assert torch.equal(model.vision_tower.get_parameter(name), tensor), name


def test_added_tokens_have_ids_of_the_tokenizer_and_ordinary_rows(assembled, parts):
    original = AutoTokenizer.from_pretrained(parts[0])
    tokenizer, model = assembled.processor.tokenizer, assembled.model
    assert model.config.image_token_id == tokenizer.convert_tokens_to_ids("<im_patch>")
    assert model.config.region_token_id == tokenizer.convert_tokens_to_ids("<bbox>")
    assert tokenizer.get_vocab().items() >= original.get_vocab().items()
    if original.pad_token is not None:
        assert tokenizer.pad_token == original.pad_token and "[PAD]" not in tokenizer.get_vocab()
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    known = len(original)
    new = tokenizer.convert_tokens_to_ids(["<im_patch>", "<bbox>", "<im_start>", "<im_end>"])
    assert min(new) >= known
    for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
        assert embeddings.weight.shape[0] == model.config.text_config.vocab_size >= len(tokenizer)
        mean = embeddings.weight[:known].mean(dim=0)
        torch.testing.assert_close(embeddings.weight[new], mean.expand(len(new), -1))


def test_the_fresh_parts_begin_as_those_of_a_new_model(assembled):
    from gpt4roi_nb import GPT4RoIForConditionalGeneration

    new = GPT4RoIForConditionalGeneration(assembled.model.config)
    for name, ours in assembled.model.named_parameters():
        if name.startswith(("region_encoder.", "multi_modal_projector.")):
            theirs = new.get_parameter(name)
            assert ours.isfinite().all() and ours.dtype == torch.float32 and ours.shape == theirs.shape
            if theirs.std() == 0:
                assert torch.equal(ours, theirs), name
            elif ours.numel() > 100:
                assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.3), name


def test_tied_embeddings_stay_tied(assembled):
    inputs, outputs = assembled.model.get_input_embeddings().weight, assembled.model.get_output_embeddings().weight
    assert (inputs is outputs) == assembled.model.config.text_config.tie_word_embeddings


def test_an_answer_ends_where_the_language_model_ends_it(language_model, vision_tower):
    gpt4roi = assemble(language_model, vision_tower)
    ends = gpt4roi.processor.tokenizer.convert_tokens_to_ids(["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"])
    assert gpt4roi.model.generation_config.eos_token_id == ends
    free = gpt4roi.session(tiny_image()).ask(QUESTION, [BOX], **FEW)
    gpt4roi.model.generation_config.eos_token_id = [*ends, free.token_ids[3]]
    cut = gpt4roi.session(tiny_image()).ask(QUESTION, [BOX], **FEW)
    assert cut.token_ids == free.token_ids[: len(cut.token_ids)] and len(cut.token_ids) <= 4
    (described,) = gpt4roi.session(tiny_image()).describe([BOX], QUESTION, **FEW)
    assert described.token_ids == cut.token_ids


def test_images_are_normalised_as_the_tower_learnt_it(language_model, vision_tower, tmp_path):
    images = assemble(language_model, vision_tower).processor.image_processor
    assert (images.image_mean, images.image_std, images.image_size) == ([0.5] * 3, [0.5] * 3, 32)
    images = assemble(language_model, save_clip(tmp_path / "clip")).processor.image_processor
    assert (images.image_mean, images.image_std) == (list(CLIP_MEAN), list(CLIP_STD))
    given = assemble(language_model, vision_tower, image_mean=[0.1, 0.2, 0.3], image_std=[1, 1, 1])
    assert given.processor.image_processor.image_mean == [0.1, 0.2, 0.3]


def test_a_tower_alone_serves_as_well_as_a_whole_model(language_model, vision_tower, tmp_path):
    whole = assemble(language_model, vision_tower)
    whole.model.vision_tower.save_pretrained(tmp_path)
    alone = assemble(language_model, tmp_path, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    assert [answer.token_ids for answer in conversation(whole)] == [answer.token_ids for answer in conversation(alone)]


def test_without_a_template_the_format_is_gpt4rois(language_model, vision_tower, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    tokenizer.chat_template = None
    LlamaForCausalLM.from_pretrained(language_model).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    gpt4roi = assemble(tmp_path, vision_tower)
    assert (gpt4roi.processor.chat_format, gpt4roi.processor.system) == ("gpt4roi", SYSTEM)
    assert conversation(gpt4roi)[1].reused_tokens > 0
    with pytest.raises(ValueError, match="needs a tokenizer with a chat template, but this one has none"):
        assemble(tmp_path, vision_tower, chat_format="template")


def test_format_and_system_message_are_as_asked_for(language_model, vision_tower):
    own = assemble(language_model, vision_tower, chat_format="gpt4roi")
    assert "### Human:" in own.processor.tokenizer.decode(own.processor.prompt([("user", "Why?")]).input_ids)
    told = assemble(language_model, vision_tower, system="Be brief.")
    ids = told.processor.prompt([("user", "Why?")]).input_ids
    assert "system<|end_header_id|>\n\nBe brief.<|eot_id|>" in told.processor.tokenizer.decode(ids)


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", "auto"])
def test_all_weights_have_one_dtype(language_model, vision_tower, dtype):
    model = assemble(language_model, vision_tower, dtype=dtype).model
    assert {weight.dtype for weight in model.parameters()} == {torch.float32 if dtype == "auto" else torch.bfloat16}


@pytest.mark.parametrize("path", ["/absent/model", "./absent"])
def test_a_missing_part_is_named(language_model, vision_tower, path):
    with pytest.raises(FileNotFoundError, match=f"no model at '{path}'; expected a folder, or a hub id"):
        assemble(path, vision_tower)
    with pytest.raises(FileNotFoundError, match=f"no model at '{path}'; expected a folder, or a hub id"):
        assemble(language_model, path)


@pytest.mark.parametrize("broken", ["language", "tower"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_attention_heads": 0}, "does not describe a|must be a whole number from 1 to"),
        ({"num_hidden_layers": 100_000}, "num_hidden_layers must be a whole number from 1 to 1000, but is 100000"),
        ({"hidden_act": "wobble"}, "hidden_act must be an activation"),
        ({"num_attention_heads": int("9" * 200)}, "holds a whole number of 200 digits"),
    ],
)
def test_a_part_of_impossible_sizes_is_refused(language_model, vision_tower, tmp_path, broken, change, words):
    given = {"language": language_model, "tower": vision_tower}
    folder = shutil.copytree(given[broken], tmp_path / broken)
    config = json.loads((folder / "config.json").read_text())
    (config if broken == "language" else config["vision_config"]).update(change)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        assemble(*{**given, broken: folder}.values())


def with_entry(name, entry, value):
    def change(folder):
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), entry: value}))

    return change


def with_tensor(word, change):
    def rewrite(folder):
        tensors = load_file(folder / "model.safetensors")
        name = next(name for name in sorted(tensors) if word in name)
        tensors[name] = change(tensors[name])
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def with_own_code(folder):
    with_entry("config.json", "model_type", "own")(folder)
    with_entry("config.json", "auto_map", {"AutoConfig": "own.Config"})(folder)


def linked(name):
    def link(folder):
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return link


def with_pieces(decoder):
    """A LLaMA's tokenizer.model, and an added_tokens_decoder beside it."""

    def change(folder):
        shutil.copy(TOKENIZER, folder)
        (folder / "chat_template.jinja").unlink()
        with_entry("tokenizer_config.json", "added_tokens_decoder", decoder)(folder)

    return change


IMPOSSIBLE_DECODER = r"the added_tokens_decoder in .* must give a token with its content by each id"


@pytest.mark.parametrize(
    ("broken", "change", "words"),
    [
        ("language", with_tensor("q_proj", lambda old: old[:3]), r"1 tensors have another shape .*\(32, 32\), got \(3"),
        ("tower", with_tensor("class_embedding", lambda old: old.int()), r"is stored as torch\.int32"),
        ("tower", with_tensor("class_embedding", lambda old: old[:3]), "1 tensors have another shape"),
        ("language", with_entry("config.json", "num_hidden_layers", 900), r"it says 900 layers, but there are only"),
        ("tower", with_entry("config.json", "num_hidden_layers", 900), r"it says 900 layers, but there are only"),
        ("language", with_entry("config.json", "hidden_size", [32]), "does not describe a language model"),
        ("language", with_entry("config.json", "rope_parameters", {"rope_type": "x"}), "does not describe a "),
        ("language", with_entry("config.json", "model_type", "clip"), "gives invalid sizes|does not describe a"),
        ("language", with_entry("config.json", "quantization_config", "8bit"), "describes no quantisation"),
        ("language", with_entry("config.json", "configuration_files", ["config.4.json"]), "names other configurations"),
        ("tower", with_entry("config.json", "configuration_files", 5), "names other configurations"),
        ("language", with_entry("config.json", "intermediate_size", 10**6), "model of .* numbers, but there are only"),
        ("language", with_entry("config.json", "pad_token_id", 10**6), "does not describe a model .*AssertionError"),
        ("language", with_own_code, "does not describe a language model .*custom code"),
        ("tower", with_own_code, "does not describe a vision tower .*custom code"),
        ("language", with_entry("tokenizer_config.json", "fast_tokenizer_files", ["../x.json"]), "names other"),
        ("language", with_entry("tokenizer.json", "model", {}), r"the processor of .* cannot be read"),
        ("language", with_pieces(5), IMPOSSIBLE_DECODER),
        ("language", with_pieces({"a": {}}), IMPOSSIBLE_DECODER),
        ("language", with_pieces({"a": {"content": "b"}}), IMPOSSIBLE_DECODER),
        ("language", with_entry("generation_config.json", "eos_token_id", "abc"), "must be the id of a token"),
        ("language", linked("tokenizer.json"), r"tokenizer\.json in .* is a link out of the folder"),
        ("tower", linked("config.json"), r"config\.json in .* is a link out of the folder"),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_used_is_refused(
    language_model, clip_tower, tmp_path, monkeypatch, broken, change, words
):
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("it asked"))
    given = {"language": language_model, "tower": clip_tower}
    folder = shutil.copytree(given[broken], tmp_path / broken)
    change(folder)
    with pytest.raises(ValueError, match=f"(?s){words}"):
        assemble(*{**given, broken: folder}.values())


def test_a_preprocessor_config_that_cannot_be_used_is_named(language_model, vision_tower, tmp_path):
    folder = shutil.copytree(vision_tower, tmp_path / "tower")
    for value in (["a"] * 3, [0, 0, 0], 5):
        with_entry("preprocessor_config.json", "image_std", value)(folder)
        with pytest.raises(ValueError, match="does not say how images are normalised"):
            assemble(language_model, folder)


@pytest.mark.parametrize("broken", ["language", "tower"])
def test_an_adapter_beside_a_part_is_refused(language_model, vision_tower, tmp_path, broken):
    given = {"language": language_model, "tower": vision_tower}
    folder = shutil.copytree(given[broken], tmp_path / broken)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ValueError, match=r"holds an adapter \(adapter_config\.json\)"):
        assemble(*{**given, broken: folder}.values())


@pytest.mark.parametrize("broken", ["language", "tower"])
def test_a_part_that_holds_nan_is_refused(language_model, vision_tower, tmp_path, broken):
    given = {"language": language_model, "tower": vision_tower}
    folder = shutil.copytree(given[broken], tmp_path / broken)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "layers.0." in name and "text_model" not in name)
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="hold NaN or infinity in 1 tensors"):
        assemble(*{**given, broken: folder}.values())


def test_a_tower_without_a_grid_is_refused(language_model, tmp_path):
    SwinConfig(image_size=[32, 32]).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"cannot be the vision tower: its configuration \(swin\) must give image_size"
    ):
        assemble(language_model, tmp_path)


def test_a_tower_that_is_not_deep_enough_is_refused(language_model, tmp_path):
    SiglipVisionConfig(**{**TOWER, "num_hidden_layers": 2}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="need a deeper tower than 2 layers"):
        assemble(language_model, tmp_path)


def test_unknown_statistics_of_images_are_asked_for(language_model, tmp_path):
    SiglipVisionModel(SiglipVisionConfig(**TOWER)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"the preprocessor_config\.json of .* must say how images are normalised"):
        assemble(language_model, tmp_path)


def test_an_incomplete_checkpoint_is_refused(language_model, vision_tower, tmp_path):
    config = json.loads((vision_tower / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 13
    for file in vision_tower.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"do not fit their config\.json: \d+ tensors are missing: "):
        assemble(language_model, tmp_path)


def _shapes(gpt4roi):
    return [(name, tensor.shape) for name, tensor in gpt4roi.model.multi_modal_projector.state_dict().items()]


@pytest.mark.slow
def test_the_page_on_other_models_runs_as_it_is_written(root, tmp_path, monkeypatch):
    """Its hub ids are folders here, since a folder takes precedence over a hub id."""
    blocks = re.findall(r"```python\n(.*?)```", (root / "docs" / "other_models.md").read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    save_language_model(tmp_path / "Qwen" / "Qwen3-0.6B", "qwen3")
    save_language_model(tmp_path / "meta-llama" / "Llama-3.2-1B-Instruct", "llama")
    save_siglip(tmp_path / "google" / "siglip-base-patch16-224")
    save_clip(tmp_path / "openai" / "clip-vit-base-patch16")
    Image.fromarray(tiny_image()).save("kitchen.png")
    names: dict = {}
    for block in blocks:
        if "mm_projector" in block:  # with LLaVA's names
            projector = {f"model.mm_projector.{part}": torch.rand(shape) for part, shape in _shapes(names["gpt4roi"])}
            (file,) = re.findall(r'torch.load\("(.*?)"', block)
            torch.save(projector, file)
        exec(block, names)
        if "mm_projector" in block:
            found = names["gpt4roi"].model.multi_modal_projector.weight
            assert found.cpu().equal(projector["model.mm_projector.weight"])
    assert blocks and names["losses"][-1] < names["losses"][0]
