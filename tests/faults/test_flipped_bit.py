"""A bit that flips in the ledger's file: found before it teaches anything, and mended as printed."""

from pathlib import Path

import pytest

from plad.answers.ledger import Ledger
from plad.errors import RunDirError
from tests.support.command import call, run_here
from tests.support.task import write_answers, write_task


def flip(file: Path, text: str, bit: int) -> None:
    """Flip a bit in the middle of a text wherever it stands in the file."""
    content, needle = bytearray(file.read_bytes()), text.encode()
    at = content.find(needle)
    assert at >= 0
    while at >= 0:
        content[at + len(needle) // 2] ^= 1 << bit
        at = content.find(needle, at + 1)
    file.write_bytes(content)


@pytest.mark.parametrize("bit", [0, 7])  # another letter; no letter of any text
def test_a_flipped_bit_is_named_and_the_printed_way_out_asks_again(bit: int, tmp_path: Path) -> None:
    write_answers(tmp_path / "answers.jsonl", ("train", "validation", "test"))
    teacher = {"model": "somebody", "sft": False, "engine": {"type": "file", "path": "answers.jsonl"}}
    config = write_task(tmp_path, teacher=teacher, sft__epochs=1)
    run = run_here(config, to="generate")
    ledger = run / "generations.sqlite"
    with Ledger(ledger) as opened:
        before = opened.read("SELECT key, text, checksum FROM generations ORDER BY key", ())
        key, example_id, text = opened.read(
            "SELECT key, example_id, text FROM generations WHERE system = 'teacher' ORDER BY LENGTH(text) DESC LIMIT 1",
            (),
        )[0]
        opened.read("PRAGMA wal_checkpoint(TRUNCATE)", ())
    assert call("ledger", run, "--check") == (0, f"{len(before):,} answers are as they were recorded, 0 damaged\n", "")
    flip(ledger, text, bit)

    with pytest.raises(RunDirError) as caught:
        run_here(config, to="pair")
    assert f"teacher to prompt {example_id} is damaged (its checksum differs; key {key})" in str(caught.value)
    assert "plad ledger RUN --repair" in str(caught.value)
    code, _, said = call("ledger", run, "--check")
    assert code == 2
    assert f"1 damaged: teacher, prompt {example_id} (key {key[:16]})" in " ".join(said.split())
    assert "--repair" in said
    code, said, _ = call("ledger", run, "--repair")
    assert code == 0
    assert f"taken out: teacher, prompt {example_id}" in said

    run_here(config, to="pair")
    with Ledger(ledger) as opened:
        assert opened.read("SELECT key, text, checksum FROM generations ORDER BY key", ()) == before
        fresh = opened.read("SELECT key FROM generations ORDER BY rowid DESC LIMIT 1", ())
    assert fresh == [(key,)]  # the others were not asked again
    assert call("ledger", run, "--check")[0] == 0
