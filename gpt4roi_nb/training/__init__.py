"""What `gpt4roi_nb.train` is made of."""
