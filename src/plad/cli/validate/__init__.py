"""What `plad validate` checks before a model is loaded."""
