"""The small data set and the small model of the demo."""
