"""The student's own texts, sampled while it is trained."""
