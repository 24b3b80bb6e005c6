"""Evaluation: win rates with their uncertainty, ROUGE, text statistics."""

from plad.evaluate.run import evaluate_systems
from plad.evaluate.winrate import WinRate, judge_pairs, reference_win_rate

__all__ = ["WinRate", "evaluate_systems", "judge_pairs", "reference_win_rate"]
