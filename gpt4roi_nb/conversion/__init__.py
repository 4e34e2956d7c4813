"""The authors' checkpoint, or their delta and its base, to this package's layout, tensor by tensor."""
