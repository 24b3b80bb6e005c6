"""What is asked of a model and what is recorded of its answers."""
