"""Objectives that need the teacher's logits."""
