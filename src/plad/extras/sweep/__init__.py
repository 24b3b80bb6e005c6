"""Searching for settings: trials are runs that share whatever they have in common."""
