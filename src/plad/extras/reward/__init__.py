"""Reward models from labelled preferences."""
