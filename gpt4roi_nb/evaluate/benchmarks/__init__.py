"""The published benchmarks, one file each; pairs that share a protocol share a file."""
