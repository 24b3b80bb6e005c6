"""The whole vocabulary of a run: one YAML file, every field with unit, default and the paper's value.

Unknown keys are refused, numbers must be finite, and nothing here imports code named in a file. What is wrong is a
ConfigError, or a PladError that holds several.
"""
