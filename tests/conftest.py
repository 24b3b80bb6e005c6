"""Offline, single-threaded, seeded: the same for every test."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


_FOLDER = Path(__file__).parent
SLOW = (  # folders, files and tests that take longer than the others together; all else is fast
    "e2e",
    "faults",
    "invariants",
    "unit/test_bench_teacher.py",
    "unit/test_benchmarks.py",
    "unit/test_keep_best.py",
    "unit/test_plan.py",
    "unit/test_policy_load.py",
    "unit/test_report_compare.py",
    "unit/test_reward.py",
    "unit/test_sweep_parts.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test fast or slow, and let the longest files start first, so that no worker is left with one."""
    longest = [_FOLDER / "e2e", _FOLDER / "faults"]
    items.sort(key=lambda item: next((i for i, f in enumerate(longest) if item.path.is_relative_to(f)), len(longest)))
    for item in items:
        file = item.path.relative_to(_FOLDER)
        slow = any(file.is_relative_to(place) for place in SLOW)
        item.add_marker("slow" if slow else "fast")
