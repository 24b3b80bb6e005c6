"""A run's systems at work: prompts that somebody types, answered; the student behind an existing server."""
