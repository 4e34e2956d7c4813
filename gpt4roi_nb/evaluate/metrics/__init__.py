"""Score answers: captions, panoptic segmentation, the mapping to class names, and statistics."""
