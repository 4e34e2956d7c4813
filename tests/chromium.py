"""Where the browser tests find a Chromium that starts: the system's, else one that Playwright fetched.

As a command it prints the path, or exits with 1; the Makefile asks so before it installs one.
"""

import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
PLAYWRIGHT_CACHE = Path.home() / ".cache" / "ms-playwright"


def find_chromium() -> str | None:
    """Path of the first Chromium that answers `--version`; None where there is none."""
    system = [path for name in NAMES if (path := shutil.which(name))]
    fetched = [str(path) for path in sorted(PLAYWRIGHT_CACHE.glob("chromium-*/chrome-linux*/chrome"), reverse=True)]
    # Ubuntu's chromium-browser may be a script that only tells to install a snap: a path alone proves nothing.
    return next((path for path in system + fetched if _answers(path)), None)


def _answers(path: str) -> bool:
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


if __name__ == "__main__":
    found = find_chromium()
    if found:
        print(found)
    sys.exit(0 if found else 1)
