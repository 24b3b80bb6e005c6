"""What can be found wrong with a policy before its weights are loaded."""
