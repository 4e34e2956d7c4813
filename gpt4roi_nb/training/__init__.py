"""What `gpt4roi_nb.train` is made of."""

from gpt4roi_nb.quantization import without_advice

with without_advice():  # the trainer imports bitsandbytes, where it is installed
    import transformers.trainer  # noqa: F401
