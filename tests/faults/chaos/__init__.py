"""A tiny whole run, disturbed in every way that a machine, a network or a person can; see `make chaos`."""
