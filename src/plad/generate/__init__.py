"""Sampling answers: the slot sampler, the ledger of everything sampled, and the engine that joins them."""
