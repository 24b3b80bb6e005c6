"""The report of a run: one self-contained page, its Markdown twin, and the student's model card."""
