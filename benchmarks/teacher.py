"""A teacher behind an endpoint: how near to the ideal rate, how much memory, what the ledger costs, how fast a resume.

python -m benchmarks.teacher                      # 5,000 prompts, 100,000 recorded rows: under a minute
python -m benchmarks.teacher --prompts 100000 --rows 1000000
"""

import argparse
import asyncio
import json
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

from plad.answers.engine import Record
from plad.answers.fill import fill
from plad.answers.ledger import Ledger
from plad.answers.question import AnswerSet, Question, Sampling
from plad.answers.reply import Reply
from plad.config.models import PromptSection
from plad.progress import Progress
from plad.records import Example, Outcome
from plad.remote.openai import OpenAI, OpenAIEngine

LATENCY_S = 0.05
IN_FLIGHT = 64
ANSWER = "A short summary of what the abstract says, in one sentence of some twenty words or a few more."
BODY = json.dumps(
    {
        "model": "big",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 180, "completion_tokens": 22},
    }
).encode()
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
ANSWERS = AnswerSet("teacher", "w", Sampling(0.7, 64), 0)


class _Answer(asyncio.Protocol):
    """Answers every request after `LATENCY_S`."""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.seen = transport, b""

    def data_received(self, data: bytes) -> None:
        self.seen += data
        while (end := self.seen.find(b"\r\n\r\n")) >= 0:
            head = self.seen[:end].lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(self.seen) < end + 4 + length:
                return
            self.seen = self.seen[end + 4 + length :]
            asyncio.get_running_loop().call_later(LATENCY_S, self.transport.write, RESPONSE)


def serve(listener: socket.socket) -> None:
    """Serve until the process is ended."""

    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(_Answer, sock=listener)
        await server.serve_forever()

    asyncio.run(forever())


def examples(n: int) -> Iterator[Example]:
    """Prompts of an abstract's length, made as they are needed."""
    return (Example(f"row {i}", f"Summarise abstract {i}. " + "some words of it " * 40) for i in range(n))


class Instant:
    """Answers at once: what is left is the ledger."""

    def spec(self) -> dict[str, Any]:
        return {"engine": "instant"}

    def encode(self, example: Example) -> Any:
        return example.prompt

    def answer(self, questions: Iterable[Question], sampling: Sampling, record: Record) -> None:
        for question in questions:
            record(question, Reply(Outcome.OK, ANSWER, prompt_tokens=180, completion_tokens=22))


def throughput(url: str, prompts: int, folder: Path) -> dict[str, float]:
    """Rate against the ideal, and how memory grows after the first tenth."""
    engine = OpenAI(OpenAIEngine(base_url=url, concurrency=IN_FLIGHT), "big", PromptSection())
    process, early = psutil.Process(), 0

    def watch(bar: Progress) -> None:
        nonlocal early
        if bar.done == prompts // 10:
            early = process.memory_info().rss

    with Ledger(folder / "throughput.sqlite") as ledger:
        start = time.perf_counter()
        fill(engine, examples(prompts), ANSWERS, ledger, Progress("", prompts, "", on_change=watch))
        seconds = time.perf_counter() - start
    ideal = IN_FLIGHT / LATENCY_S
    grown = (process.memory_info().rss - early) / 2**20
    return {
        "prompts": prompts,
        "a second": prompts / seconds,
        "of ideal": prompts / seconds / ideal,
        "MiB grown": grown,
    }


def resume(rows: int, folder: Path) -> dict[str, float]:
    """What the ledger costs a row, and how long a resume looks before it asks its first new question."""
    first: list[float] = []

    class Timed(Instant):
        def answer(self, questions: Iterable[Question], sampling: Sampling, record: Record) -> None:
            for question in questions:
                first.append(time.perf_counter())
                record(question, Reply(Outcome.OK, ANSWER))

    with Ledger(folder / "resume.sqlite") as ledger:
        start = time.perf_counter()
        fill(Instant(), examples(rows), ANSWERS, ledger)
        each = (time.perf_counter() - start) / rows
    known = [*examples(rows), Example("new", "one more")]
    with Ledger(folder / "resume.sqlite") as ledger:
        start = time.perf_counter()
        fill(Timed(), known, ANSWERS, ledger)
    return {"rows": rows, "ms a row": 1000 * each, "resume s": first[0] - start}


def main() -> None:
    """Run both and print what they measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=5_000)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    server = multiprocessing.get_context("fork").Process(target=serve, args=(listener,), daemon=True)
    server.start()
    try:
        with tempfile.TemporaryDirectory() as name:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            found = throughput(url, options.prompts, Path(name)) | resume(options.rows, Path(name))
    finally:
        server.kill()
        server.join()
    for name, value in found.items():
        print(f"{name:<10} {value:,.3f}")


if __name__ == "__main__":
    main()
