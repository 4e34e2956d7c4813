"""Annotation formats, one file each, and the generated world that writes them."""
