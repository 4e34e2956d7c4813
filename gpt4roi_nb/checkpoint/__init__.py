"""Checkpoints: load and check them, convert the authors' files, assemble a model from pretrained parts."""

from gpt4roi_nb.checkpoint.check import check_checkpoint
from gpt4roi_nb.checkpoint.convert import convert_original
from gpt4roi_nb.checkpoint.load import DEMO_CHECKPOINT, load_checkpoint
from gpt4roi_nb.checkpoint.start import start_checkpoint

__all__ = ["DEMO_CHECKPOINT", "check_checkpoint", "convert_original", "load_checkpoint", "start_checkpoint"]
