"""Log-probabilities of completions, with every prompt computed once."""
