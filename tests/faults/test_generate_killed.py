"""Real signals and a full disk in the middle of sampling: nothing recorded is lost, nothing is sampled twice."""

import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from plad.answers.fill import answer
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Sampling
from plad.errors import Interrupted, RunDirError
from plad.progress import Progress
from plad.records import Example, Generation
from plad.sampling.transformers import Transformers
from tests.support.tiny_models import tiny_policy

POLICY = tiny_policy(initializer_range=0.3)
EXAMPLES = [Example(f"id {i}", f"question number {i} " * (i % 4 + 1)) for i in range(30)]
TOTAL = 60
Key = tuple[str, int]


def by_id(generations: Sequence[Generation]) -> dict[Key, Generation]:
    return {(g.example_id, g.sample): g for g in generations}


def generate(path: Path, on_change: Callable[[Progress], None] = lambda _: None) -> tuple[list[Generation], Progress]:
    bar = Progress("teacher", TOTAL, "answers", on_change=on_change)
    with Ledger(path) as ledger:
        answers = answer(
            Transformers(POLICY, "w", slots=4),
            EXAMPLES,
            AnswerSet("teacher", "w", Sampling(0.9, 8, samples=2), seed=0),
            ledger,
            bar,
        )
    return answers, bar


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[Key, Generation]:
    return by_id(generate(tmp_path_factory.mktemp("undisturbed") / "generations.sqlite")[0])


def child(path: Path, pipe: Connection, limit_bytes: int | None = None) -> None:
    """Sample in a process of its own; every answer that was counted is told through `pipe`."""
    # Whatever the parent ignores (a background job ignores SIGINT).
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    try:
        generate(path, lambda bar: pipe.send(bar.done))
        pipe.send("finished")
    except (Interrupted, RunDirError) as e:
        pipe.send(e)
        os._exit(e.exit_code)
    finally:
        pipe.close()


def start(path: Path, limit_bytes: int | None = None) -> tuple[Any, Connection]:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=child, args=(path, sender, limit_bytes))
    process.start()
    sender.close()
    return process, receiver


def rest(pipe: Connection) -> list[Any]:
    """Everything that was still told."""
    told: list[Any] = []
    while True:
        try:
            told.append(pipe.recv())
        except EOFError:
            return told


def count(path: Path) -> int:
    with Ledger(path, readonly=True) as ledger:
        return sum(ledger.counts().get("teacher", {}).values())


def finish_and_compare(path: Path, undisturbed: dict[Key, Generation]) -> None:
    before = count(path)
    answers, bar = generate(path)
    assert bar.before == before, "what was recorded was sampled again, or lost"
    assert bar.done == TOTAL
    assert by_id(answers) == undisturbed
    assert count(path) == TOTAL


def test_killed_at_random_moments_again_and_again_the_final_set_is_that_of_an_undisturbed_run(
    tmp_path: Path, undisturbed: dict[Key, Generation]
) -> None:
    path = tmp_path / "generations.sqlite"
    draw = random.Random(7)
    counted, kills = 0, 0
    while counted < TOTAL - 8:
        process, pipe = start(path)
        goal = counted + draw.randint(1, 6)
        told = 0
        while told < goal:
            told = pipe.recv()
        time.sleep(draw.random() * 0.004)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        told = max([told, *(t for t in rest(pipe) if isinstance(t, int))])
        counted = count(path)
        kills += 1
        assert counted >= told, "an answer was counted before it was committed"
    assert kills >= 5
    finish_and_compare(path, undisturbed)


def test_killed_while_a_row_is_written_the_row_is_whole_or_absent(
    tmp_path: Path, undisturbed: dict[Key, Generation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies by its own SIGKILL between the statements of one row's transaction."""
    path = tmp_path / "generations.sqlite"
    opened = Ledger._open

    def armed(self: Ledger, readonly: bool) -> None:
        opened(self, readonly)
        seen = 0

        def trace(statement: str) -> None:
            nonlocal seen
            seen += statement.startswith("INSERT OR REPLACE INTO asked")
            if seen == 5:
                os.kill(os.getpid(), signal.SIGKILL)

        self._db.set_trace_callback(trace)

    for _ in range(3):
        before = count(path) if path.exists() else 0
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "_open", armed)
            process, pipe = start(path)
        process.join()
        rest(pipe)
        assert process.exitcode == -signal.SIGKILL
        # On a rerun, pointing asks to what is there takes part in the count of statements.
        assert before <= count(path) <= before + 4
    finish_and_compare(path, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_everything_finished_is_recorded(
    tmp_path: Path, undisturbed: dict[Key, Generation], number: signal.Signals
) -> None:
    path = tmp_path / "generations.sqlite"
    process, pipe = start(path)
    while pipe.recv() < 11:
        pass
    os.kill(process.pid, number)
    told = rest(pipe)
    process.join()
    assert process.exitcode == 130
    assert isinstance(told[-1], Interrupted)
    recorded = count(path)
    assert 11 <= recorded < TOTAL
    assert f"{recorded} of {TOTAL} answers are recorded" in str(told[-1])
    assert "the same command continues" in str(told[-1])
    finish_and_compare(path, undisturbed)


def test_an_interrupt_at_any_point_leaves_ledger_model_and_signals_usable(
    tmp_path: Path, undisturbed: dict[Key, Generation]
) -> None:
    """In one process: the interrupt comes while an answer is being counted, then the same objects go on."""
    handler = signal.getsignal(signal.SIGTERM)
    attention = POLICY.model.config._attn_implementation
    for stop_at in (1, 17, 42):

        def stop(bar: Progress, stop_at: int = stop_at) -> None:
            if bar.done == stop_at:
                raise KeyboardInterrupt

        with pytest.raises(Interrupted):
            generate(tmp_path / "generations.sqlite", stop)
        assert signal.getsignal(signal.SIGTERM) is handler
        assert POLICY.model.config._attn_implementation == attention
    finish_and_compare(tmp_path / "generations.sqlite", undisturbed)


def test_a_full_disk_is_one_error_with_the_way_out_and_keeps_every_recorded_answer(
    tmp_path: Path, undisturbed: dict[Key, Generation]
) -> None:
    path = tmp_path / "generations.sqlite"
    process, pipe = start(path, limit_bytes=120_000)
    told = rest(pipe)
    process.join()
    assert process.exitcode == 2
    error, counted = told[-1], [t for t in told if isinstance(t, int)]
    assert isinstance(error, RunDirError)
    assert "MiB are free" in str(error)
    assert "make room" in str(error)
    assert str(path) in str(error)
    assert 0 < counted[-1] < TOTAL
    assert count(path) == counted[-1]
    finish_and_compare(path, undisturbed)


def test_another_process_reads_while_one_samples(tmp_path: Path) -> None:
    path = tmp_path / "generations.sqlite"
    process, pipe = start(path)
    seen: list[int] = []
    for message in iter(pipe.recv, "finished"):
        seen.append(count(path))
        assert seen[-1] >= message
    process.join()
    assert process.exitcode == 0
    assert seen == sorted(seen)
    assert seen[0] < TOTAL == seen[-1]


def test_two_processes_at_once_record_each_answer_once(tmp_path: Path, undisturbed: dict[Key, Generation]) -> None:
    path = tmp_path / "generations.sqlite"
    both = [start(path) for _ in range(2)]
    for process, pipe in both:
        assert rest(pipe)[-1] == "finished"
        process.join()
        assert process.exitcode == 0
    finish_and_compare(path, undisturbed)
