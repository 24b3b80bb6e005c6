"""What several modules of whole runs share."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def quick_collections() -> Iterator[None]:
    """What was imported before is left out of the stages' garbage collections, which take most of the time."""
    gc.freeze()
    yield
    gc.unfreeze()
