"""What each stage does: reads artifacts of the run directory, writes artifacts, returns counts.

Heavy imports stand inside the functions, so that a run whose stages are all done starts at once.
"""
