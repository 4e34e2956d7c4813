"""One report on this package on a GPU, or, with smaller shapes, on a CPU: `python -m gpt4roi_nb.check_gpu`."""
