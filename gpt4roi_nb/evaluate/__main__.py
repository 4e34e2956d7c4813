"""`python -m gpt4roi_nb.evaluate`."""

import sys

from gpt4roi_nb.evaluate.command import main

if __name__ == "__main__":
    sys.exit(main())
