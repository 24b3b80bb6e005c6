"""Sampling from models in this process."""
