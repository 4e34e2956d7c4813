import pytest
import torch

from gpt4roi_nb.demo.recipe.bank import load_or_draw
from gpt4roi_nb.demo.recipe.recipe import Recipe, model_config
from gpt4roi_nb.demo.recipe.vocabulary import generation_config, make_processor
from gpt4roi_nb.model import GPT4RoIForConditionalGeneration


@pytest.fixture(scope="session")
def recipe():
    return Recipe().tiny()


@pytest.fixture(scope="session")
def processor(recipe, tmp_path_factory):
    return make_processor(recipe, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def bank(recipe, tmp_path_factory):
    return load_or_draw(
        tmp_path_factory.mktemp("bank"), 3, 4, size=recipe.image_size, grid=recipe.grid, n_objects=(3, 6)
    )


@pytest.fixture
def model(recipe, processor):
    torch.manual_seed(0)
    model = GPT4RoIForConditionalGeneration(model_config(recipe, processor.tokenizer))
    model.generation_config = generation_config(processor)
    return model.eval()
