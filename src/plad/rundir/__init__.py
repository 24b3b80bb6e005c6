"""A run directory: atomic writes, lock, manifest."""
