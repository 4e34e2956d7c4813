"""The embedded demo checkpoint (`checkpoint/`), what makes it (`make.py`) and what examines it (`check.py`)."""
