"""Images that are not of this world: of many families, repeatable, and unlike one another."""

import numpy as np
import pytest

from gpt4roi_nb.data.scenes.out_of_domain import FAMILIES, out_of_domain_image, out_of_domain_images


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_draws_images_of_any_size(name: str) -> None:
    for size in (32, 65):
        images = [FAMILIES[name](np.random.default_rng(seed), size) for seed in range(3)]
        assert all(image.shape == (size, size, 3) and np.isfinite(image).all() for image in images)
        assert np.abs(images[0] - images[1]).mean() > 0.01


def test_a_series_is_repeatable_and_varied() -> None:
    first, again = (np.stack(list(out_of_domain_images(3, 24, size=48))) for _ in range(2))
    assert first.dtype == np.uint8 and np.array_equal(first, again)
    flat = first.reshape(24, -1).astype(float)
    apart = np.abs(flat[:, None] - flat[None]).mean(-1)[~np.eye(24, dtype=bool)]
    assert np.quantile(apart, 0.05) > 15
    assert np.std(flat.mean(1)) > 15 and flat.std(1).min() >= 0


def test_too_small_a_size_is_an_error_in_words() -> None:
    with pytest.raises(ValueError, match="at least 32 pixels; got 8"):
        out_of_domain_image(np.random.default_rng(0), 8)
