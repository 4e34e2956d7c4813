"""A hub's cache on this disk, as huggingface_hub lays it out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

COMMIT = "0123456789" * 4
NAME = "some/model"


def publish(folder: Path, cache: Path, name: str = NAME, commit: str = COMMIT, revision: str = "main", only=None):
    """Lay a folder out in a hub's cache as huggingface_hub does: links to blobs. Links are copied as they are."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot, blobs, refs = repository / "snapshots" / commit, repository / "blobs", repository / "refs"
    for place in (snapshot, blobs, refs):
        place.mkdir(parents=True, exist_ok=True)
    (refs / revision).write_text(commit)
    for file in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        below = str(file.relative_to(folder))
        if only is not None and below not in only:
            continue
        (snapshot / below).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / below).unlink(missing_ok=True)
        if file.is_symlink():
            (snapshot / below).symlink_to(os.readlink(file))
        else:
            blob = blobs / f"{commit[:8]}{below.replace('/', '-')}"
            shutil.copy(file, blob)
            (snapshot / below).symlink_to(os.path.relpath(blob, (snapshot / below).parent))
    return snapshot
