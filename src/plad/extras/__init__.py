"""Around a run: sweep, plan, reward models, export, the demo."""
