"""What sections are built of: the facts of a run, and figures, names and plots as a reader sees them."""
