"""A response is as large as its content turns out to be, not as its headers say: memory is bounded either way."""

import gzip
import multiprocessing
import multiprocessing.connection
import resource
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from plad.answers.question import Sampling
from plad.answers.reply import Reply
from plad.config.engines import Endpoint
from plad.records import Outcome
from plad.remote.client import complete
from plad.remote.request import completion_request
from tests.support.servers.scripted import FakeClock, Response, answer, serve

MIB = 2**20
BOMB = 96 * MIB  # bytes, once unpacked
AT_ONCE = 8


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "two members": ("gzip", lambda data: gzip.compress(data[:999]) + gzip.compress(data[999:])),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
}


def packed(response: Response, way: str) -> Response:
    encoding, pack = PACKERS[way]
    return Response(pack(response.body), headers={**response.headers, "Content-Encoding": encoding})


def ask_many(url: str, n: int, replies: list[Reply]) -> None:
    endpoint = Endpoint(base_url=url, concurrency=AT_ONCE, max_attempts=1, timeout_s=60.0)
    asked = [{"role": "user", "content": "?"}]
    requests = (completion_request(endpoint, "big", str(i), asked, Sampling(0.0, 8)) for i in range(n))
    complete(endpoint, requests, lambda _, reply: replies.append(reply), clock=FakeClock())


def peak_kib() -> int:
    """Of this very process; what getrusage says begins with the parent's peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def child(url: str, bomb: str, pipe: multiprocessing.connection.Connection) -> None:
    """Peak memory that bombs add to that of honest answers, and how they ended."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, limit))  # of a client without a bound, not of the machine
    replies: list[Reply] = []
    ask_many(url, AT_ONCE, replies)
    before = peak_kib()
    ask_many(url.replace("/v1", f"/{bomb}"), AT_ONCE, replies)
    pipe.send((peak_kib() - before, [(r.outcome, r.message) for r in replies]))


@pytest.mark.parametrize("way", ["gzip", "deflate"])
def test_eight_bombs_at_once_take_bounded_memory(way: str) -> None:
    bomb = packed(Response(b"0" * BOMB), way)
    assert len(bomb.body) < MIB
    with serve(lambda call: bomb if "bomb" in call.path else answer("x")) as server:
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=child, args=(server.url, "bomb", there))
        process.start()
        there.close()
        grown, ended = here.recv()
        process.join()
    assert [outcome for outcome, _ in ended] == [Outcome.OK] * AT_ONCE + [Outcome.FAILED] * AT_ONCE
    assert {message for _, message in ended[AT_ONCE:]} == {"the answer is larger than 16 MiB"}
    assert grown < 150 * 1024, f"{grown / 1024:,.0f} MiB"


@pytest.mark.parametrize("way", PACKERS)
def test_a_packed_answer_is_read_and_a_bomb_is_one_failed_row(way: str) -> None:
    long = "word " * 100_000
    with serve(lambda call: packed(answer(long) if call.number else Response(b"0" * 2**25), way)) as server:
        replies: list[Reply] = []
        ask_many(server.url, 1, replies)
        ask_many(server.url, 1, replies)
    assert [r.outcome for r in replies] == [Outcome.FAILED, Outcome.OK]
    assert replies[0].lost == 1, "it may have been billed"
    assert replies[1].text == long.strip()
    assert len(server.calls) == 2, "what is whole but no answer isn't asked for again"


@pytest.mark.parametrize("body", [b"no gzip at all", gzip.compress(b"x" * 1000, mtime=0)[:30]], ids=["no", "half"])
@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate"])
def test_what_cant_be_unpacked_is_a_failed_row(body: bytes, encoding: str) -> None:
    with serve(lambda _: Response(body, headers={"Content-Encoding": encoding})) as server:
        replies: list[Reply] = []
        ask_many(server.url, 1, replies)
    assert replies[0].outcome is Outcome.FAILED
    assert replies[0].message
