"""Run a loaded model: its lock, an encoded image, the decode loop, the key/value cache."""
