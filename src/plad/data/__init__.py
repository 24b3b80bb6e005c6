"""Data: read and check rows, split without leakage, and the files of a run."""
