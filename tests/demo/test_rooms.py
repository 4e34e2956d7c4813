"""What the wheel ships of the demo does without what made it."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_examination_does_without_the_recipe():
    """`demo/recipe` is not in the wheel."""
    script = (
        "import sys; sys.modules['gpt4roi_nb.demo.recipe'] = None; "  # its import raises ModuleNotFoundError
        "import gpt4roi_nb.demo.check, gpt4roi_nb.demo.look"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
