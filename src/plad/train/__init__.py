"""One trainer for fine-tuning and distillation."""
