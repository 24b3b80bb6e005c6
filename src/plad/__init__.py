"""plad: preference-based distillation of language models (PLaD)."""

__version__ = "0.1.0"
