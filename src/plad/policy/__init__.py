"""Policies: a language model with its tokenizer, prompt format, device and dtype."""
