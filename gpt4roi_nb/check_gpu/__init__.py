"""One report on what this package does on a GPU, or, smaller, on a CPU: `python -m gpt4roi_nb.check_gpu`."""
