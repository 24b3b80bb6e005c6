"""Speed and memory side by side with TRL and transformers: ``python -m benchmarks``."""
