"""What makes the demo checkpoint; in the repository, not in the wheel."""
