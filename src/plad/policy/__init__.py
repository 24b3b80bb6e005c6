"""Policies: a language model with its tokenizer, prompt format, device and dtype.

A model, tokenizer or adapter that can't be used as asked is a PolicyError, which says why and the way out.
"""
