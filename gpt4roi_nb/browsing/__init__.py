"""What `gpt4roi_nb.failures` is made of: kinds of error, labels, views, embeddings, heat maps."""
