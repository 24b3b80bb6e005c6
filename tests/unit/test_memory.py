"""The most memory of a training step: what is done between steps counts as little as what is freed before."""

import torch

from plad.train.memory import PeakMemory

MB = 2**20


def held(megabytes: int) -> int:
    """Fill that much memory and let go of it."""
    return torch.ones(megabytes * MB // 4).nbytes


def test_only_what_is_held_between_begin_and_end_counts() -> None:
    meter = PeakMemory([torch.device("cpu")])
    assert meter.largest == 0
    meter.begin()
    meter.end()
    idle = meter.largest
    held(300)  # a validation
    meter.begin()
    held(100)
    meter.end()
    assert 80 * MB < meter.largest - idle < 200 * MB
    before = meter.largest
    meter.begin()
    held(20)
    meter.end()
    assert meter.largest == before, "the largest of all stretches"
