"""Evaluation: win rates with their uncertainty, ROUGE, text statistics, likelihood calibration."""
