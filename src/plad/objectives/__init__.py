"""What training minimises: pure functions of measured log-probabilities."""
