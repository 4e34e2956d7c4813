"""The published benchmarks, one file each (two where a pair shares its protocol)."""
