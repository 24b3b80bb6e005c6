"""A client of OpenAI-compatible servers: many requests in flight, our own retries, limits and stops.

`complete` sends requests and hands every settled one to a callback, in no particular order. It returns when all are
settled, and raises when none of the rest can be: a refused key, no credit, an unknown model, a dead server. Requests
in flight are waited for in any case, so that what was paid for arrives.
"""

import asyncio
import contextlib
import logging
import random
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from plad.answers.reply import Reply, is_other_model
from plad.config.engines import Endpoint
from plad.errors import ProviderError
from plad.records import Outcome
from plad.remote.budget import Budget
from plad.remote.limits import Clock, Gate, RealClock
from plad.remote.request import HttpRequest
from plad.remote.response import Attempt, Meaning
from plad.remote.transport import api_key, connect, post, require_client
from plad.text import redact

log = logging.getLogger("plad")

GRACE_S = 10.0  # a stopped client waits so long for requests in flight
HOPELESS = 20  # requests in a row without an answer, before the run stops
_BACKOFF_S, _MOST_BACKOFF_S = 1.0, 60.0

OnReply = Callable[[HttpRequest, Reply], None]
"""Receives a settled request and how it ended."""


def decide(attempt: Attempt, attempts: int, draw: float, endpoint: Endpoint) -> float | None:
    """Seconds until the next attempt of a request; None for no further one.

    Exponential backoff with full jitter; a wait the provider asks for is kept to, up to `max_wait_s`.

    Args:
        attempts: those made so far that count.
        draw: a random number from [0, 1).
    """
    if attempt.meaning is Meaning.RATE_LIMIT and attempt.wait is not None:
        return min(attempt.wait, endpoint.max_wait_s)  # not the request's fault, however often it comes
    if attempts >= endpoint.max_attempts:
        return None
    backoff = draw * min(_MOST_BACKOFF_S, _BACKOFF_S * 2 ** (attempts - 1))
    return max(backoff, min(attempt.wait or 0.0, endpoint.max_wait_s))


def complete(
    endpoint: Endpoint,
    requests: Iterable[HttpRequest],
    on_reply: OnReply,
    *,
    budget: Budget | None = None,
    clock: Clock | None = None,
    draw: Callable[[], float] = random.random,
) -> None:
    """Send requests until every one is settled; memory doesn't grow with their number.

    Args:
        requests: read as they are needed.
        on_reply: called once a request, in no particular order, from one thread. An error it raises stops everything.
        budget: what may be spent; its figures grow with every answer.
        clock, draw: time, and random numbers from [0, 1) for the backoff.

    Raises:
        ProviderError: the provider refuses the key, the model or the credit, lets nothing through, or doesn't answer.
        BudgetError: the next request could pass the budget.
        KeyboardInterrupt: Ctrl-C or SIGTERM; requests in flight were waited for, `GRACE_S` at most.
        ConfigError: the key's environment variable is not set.
        MissingExtraError: the HTTP client isn't installed.
    """
    require_client()
    session = _Session(endpoint, requests, on_reply, budget or Budget(), clock or RealClock(), draw)
    run_async(session.run)


def run_async(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end, also where a loop runs in this thread already."""

    def run() -> None:
        asyncio.run(main())

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        run()
    else:  # in a notebook, whose own loop runs in this thread
        with ThreadPoolExecutor(1) as pool:
            pool.submit(run).result()


class HeldBack:
    """Bad requests before the first answer, which shows that they were bad themselves, and not the settings."""

    def __init__(self) -> None:
        self.answered = False
        self.records: list[Callable[[], None]] = []
        self.message: str | None = None  # of the latest

    def record(self, reply: Reply, record: Callable[[], None]) -> bool:
        """Record a reply, or hold it back; returns whether it is recorded."""
        if reply.outcome is Outcome.BAD_REQUEST and not self.answered:
            self.records.append(record)
            self.message = reply.message
            return False
        if reply.outcome is not Outcome.FAILED:
            self.answered = True
            self.release()
        record()
        return True

    def release(self) -> None:
        """Record what was held back."""
        records, self.records = self.records, []
        for record in records:
            record()


class _Stopped(Exception):  # noqa: N818
    """Somebody stopped the session while this request waited."""


class _Session:
    """One call of `complete`."""

    def __init__(
        self,
        endpoint: Endpoint,
        requests: Iterable[HttpRequest],
        on_reply: OnReply,
        budget: Budget,
        clock: Clock,
        draw: Callable[[], float],
    ) -> None:
        self.endpoint, self.requests, self.on_reply = endpoint, iter(requests), on_reply
        self.budget, self.clock, self.draw = budget, clock, draw
        self.gate = Gate(endpoint.concurrency, clock, endpoint.rpm, endpoint.tpm)
        api_key(endpoint)  # a missing one is found before anything is sent
        self.error: BaseException | None = None
        self.bad = HeldBack()
        self.unanswered = 0  # in a row
        self.limited_s = 0.0  # since the last answer
        self.limited_at: float | None = None
        self.limited_most = 0.0
        self.models: set[str] = set()
        self.arrived: list[tuple[HttpRequest, Reply]] = []  # and not recorded yet
        self.ready: deque[HttpRequest] = deque()  # made ahead, for the same reason

    async def run(self) -> None:
        self.stop, self.settled = asyncio.Event(), asyncio.Event()
        self.workers: list[asyncio.Task[None]] = []
        with signals(self._interrupt):
            async with connect(self.endpoint) as self.http:
                self.workers = [asyncio.create_task(self._work()) for _ in range(self.endpoint.concurrency)]
                await asyncio.gather(*self.workers, return_exceptions=True)
                self._settle_all()
        if self.error is not None:
            raise self.error
        self.bad.release()

    def _interrupt(self) -> None:
        if self.error is None:
            log.warning("stopping: waiting for %d requests in flight; once more to stop at once", self.gate.in_flight)
        self._halt(KeyboardInterrupt(), at_once=self.error is not None)

    def _halt(self, error: BaseException, *, at_once: bool = False) -> None:
        """Send nothing more; what is in flight may end, for a while."""
        self.error = self.error or error
        loop = asyncio.get_running_loop()
        if not self.stop.is_set() or at_once:
            loop.call_later(0 if at_once else GRACE_S, lambda: [w.cancel() for w in self.workers])
        self.stop.set()

    async def _work(self) -> None:
        try:
            while not self.stop.is_set():
                request = self.ready.popleft() if self.ready else next(self.requests, None)
                if request is None:
                    return
                await self._afford(request)
                try:
                    reply = await self._ask(request)
                    over = self.budget.count(request.key, reply)
                finally:
                    self.budget.release(request.key)
                    self.settled.set()
                self._arrived(request, reply)
                if over is not None:
                    self._halt(over)
        except _Stopped:
            return
        except Exception as e:
            self._halt(e)

    async def _afford(self, request: HttpRequest) -> None:
        """Set the price of a request aside; wait for others to turn out cheaper where there is no room."""
        while not self.budget.set_aside(self.endpoint, request):
            if not self.budget.waiting:
                raise self.budget.passed(self.endpoint, request)
            self.settled.clear()
            await self._unless_stopped(self.settled.wait())

    def _arrived(self, request: HttpRequest, reply: Reply) -> None:
        """Record an answer once the requests after it are on their way: what a server waits for us is lost for good.

        At most one answer a worker waits so, for one turn of the loop.
        """
        self.arrived.append((request, reply))
        if len(self.arrived) == 1:
            asyncio.get_running_loop().call_later(0, self._settle_all)

    def _settle_all(self) -> None:
        arrived, self.arrived = self.arrived, []
        for request, reply in arrived:
            try:
                self._settle(request, reply)
            except Exception as e:  # the others were paid for
                self._halt(e)
        try:
            while len(self.ready) < len(arrived) and not self.stop.is_set():
                self.ready.append(next(self.requests))
        except StopIteration:
            return
        except Exception as e:
            self._halt(e)

    def _settle(self, request: HttpRequest, reply: Reply) -> None:
        recorded = self.bad.record(reply, lambda: self.on_reply(request, reply))
        if recorded and reply.outcome is not Outcome.FAILED:
            self.unanswered = 0
        if reply.outcome in (Outcome.BAD_REQUEST, Outcome.FAILED):
            self.unanswered += 1
            if self.unanswered >= HOPELESS and (reply.outcome is Outcome.FAILED or not self.bad.answered):
                raise self._refused(
                    f"the last {self.unanswered} requests brought no answer; the latest: {reply.message}",
                    "look at the message, correct the settings or wait for the server",
                )

    def _refused(self, what: str, fix: str) -> ProviderError:
        return ProviderError(
            what,
            where=self.endpoint.base_url,
            fix=f"{fix}\nthe same command continues: every answer so far is kept",
        )

    async def _ask(self, request: HttpRequest) -> Reply:
        """Send a request until it is settled."""
        attempts = counted = lost = 0
        while True:
            if self.stop.is_set():
                raise _Stopped
            if not self.gate.try_enter():
                await self._unless_stopped(self.gate.enter(request.expected_tokens))
            sent, sent_in = self.clock.now(), self.gate.round
            try:
                attempt = await post(self.http, self.endpoint, request)
            finally:
                self.gate.leave()
            attempts += 1
            if attempt.meaning is Meaning.FINAL:
                assert attempt.reply is not None
                return self._finished(request, attempt.reply, self.clock.now() - sent, attempts, lost)
            if attempt.meaning is Meaning.STOP:
                raise self._refused(attempt.message, way_out(attempt.message, self.endpoint))
            lost += attempt.lost
            counted += not (attempt.meaning is Meaning.RATE_LIMIT and attempt.wait is not None)
            delay = decide(attempt, counted, self.draw(), self.endpoint)
            if delay is None:
                return Reply(Outcome.FAILED, attempts=attempts, lost=lost, message=attempt.message)
            log.debug("attempt %d: %s; again in %.1f s", attempts, attempt.message, delay)
            if attempt.meaning is Meaning.RATE_LIMIT or attempt.wait is not None:
                self._limited(attempt, sent_in, delay)
            else:
                await self._unless_stopped(self.clock.sleep(delay))

    def _limited(self, attempt: Attempt, sent_in: int, delay: float) -> None:
        """Everybody pauses; a provider that lets nothing through for too long stops the run."""
        now = self.clock.now()
        if self.limited_at is not None:  # a machine that slept meanwhile waited no longer than a pause and a try take
            self.limited_s += min(now - self.limited_at, self.limited_most)
        self.limited_at, self.limited_most = now, delay + self.endpoint.timeout_s
        if self.limited_s > self.endpoint.max_wait_s:
            raise self._refused(
                f"nothing came through for {self.limited_s:,.0f} s; the latest: {attempt.message}",
                "wait until the limit is lifted\nor lower concurrency, rpm or tpm, or raise max_wait_s",
            )
        if self.gate.slow_down(delay, sent_in):
            log.info("rate limit: %s; pause of %.1f s, then %d at once", attempt.message, delay, self.gate.limit)

    def _finished(self, request: HttpRequest, reply: Reply, seconds: float, attempts: int, lost: int) -> Reply:
        self.limited_s, self.limited_at = 0.0, None
        self.gate.speed_up()
        prompt = reply.prompt_tokens or (request.prompt_bytes // 4 if reply.estimated else 0)
        cost = self.endpoint.cost(prompt, reply.completion_tokens)
        asked = str(request.body.get("model"))
        if reply.model is not None and reply.model not in self.models:
            self.models.add(reply.model)
            if is_other_model(asked, reply.model):
                log.warning("asked for model %s, served by %s", redact(asked), redact(reply.model))
        lost += reply.lost
        return replace(reply, prompt_tokens=prompt, cost=cost, seconds=seconds, attempts=attempts, lost=lost)

    async def _unless_stopped(self, waiting: Any) -> None:
        """Wait, but not once the session is stopped."""
        task, stop = asyncio.ensure_future(waiting), asyncio.ensure_future(self.stop.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            task.cancel()  # of no effect where it is done
        if self.stop.is_set():
            raise _Stopped
        await task


def way_out(message: str, endpoint: Endpoint) -> str:
    """What to do about a refusal of the whole run."""
    if message.startswith("HTTP 401") or message.startswith("HTTP 403"):
        if endpoint.api_key_env is None:
            return "set api_key_env to the name of the environment variable that holds the key"
        return f"check the key in the environment variable {endpoint.api_key_env}, and what it may do"
    if message.startswith("HTTP 404"):
        return "check `model` and base_url (it usually ends in /v1)"
    if "Unsupported" in message or "nknown parameter" in message:
        return _other_field(message, endpoint)
    return "settle it with the provider, or correct the settings"


def _other_field(message: str, endpoint: Endpoint) -> str:
    """The setting for a field that the model doesn't take."""
    named = re.search(r"'(\w+)'", message)
    field = named.group(1) if named else "NAME"
    if field == endpoint.max_tokens_field:
        other = "max_completion_tokens" if field == "max_tokens" else "max_tokens"
        return f"engine.max_tokens_field: {other}"
    if field == endpoint.seed_field:
        return "engine.seed_field: null"
    return f"engine.body: {{{field}: null}} leaves it out"


@contextlib.contextmanager
def signals(stop: Callable[[], None]) -> Generator[None]:
    """Let Ctrl-C and SIGTERM call `stop`, where this is the main thread and nobody ignores them."""
    loop = asyncio.get_running_loop()
    former: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):
                former[number] = handler
                loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number, handler in former.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
