"""The version of plad, for rooms that the package's public names are made of."""

__version__ = "0.1.0"
