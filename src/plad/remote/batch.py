"""Answers by the batch API of an OpenAI-compatible provider: many requests in a file, answered within a day.

A job is written down in the ledger before its file is uploaded, the file's id before the batch is submitted, the
batch's id before anything else. So a run that was killed looks at the same batches, and none is submitted twice.
Rows are joined on custom_id; what is missing, expired or failed for a passing reason goes into a further batch.
"""

import asyncio
import json
import logging
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from plad.answers.engine import Record
from plad.answers.jobs import Job, Jobs
from plad.answers.question import Question
from plad.answers.reply import Reply
from plad.config.engines import BatchSection, Endpoint
from plad.errors import BudgetError, PladError, ProviderError
from plad.records import Outcome, Prompt
from plad.remote.budget import Budget
from plad.remote.client import HOPELESS, HeldBack, run_async, signals, way_out
from plad.remote.limits import Clock
from plad.remote.provider import Provider
from plad.remote.request import HttpRequest
from plad.remote.response import Attempt, JsonObject, Meaning, as_object, failed, objects, read_response
from plad.remote.transport import BrokenError, api_key, connect, require_client

log = logging.getLogger("plad")

_OVER = ("completed", "failed", "expired", "cancelled")
_NO_ROOM = {"token_limit_exceeded", "rate_limit_exceeded", "server_error"}  # why a whole batch fails, and may not later
_LONGER = 1.5  # each wait than the one before


@dataclass
class _Active:
    """A job at the provider.

    Attributes:
        questions: by custom_id, in the order of the file.
        record: receives each settled question.
    """

    job: Job
    questions: Mapping[str, Question[Prompt | None]]
    record: Record
    settled: set[str] = field(default_factory=set[str])
    reasons: dict[str, str] = field(default_factory=dict[str, str])  # why there is no answer yet
    odd: Counter[str] = field(default_factory=Counter[str])


@dataclass(frozen=True)
class Batching:
    """How questions are asked in batches.

    Attributes:
        path: of the API that is asked, such as `/chat/completions`.
        request: makes a question a request.
        jobs: where the batches are written down.
    """

    endpoint: Endpoint
    limits: BatchSection
    path: str
    request: Callable[[Question[Prompt]], HttpRequest]
    jobs: Jobs
    budget: Budget
    clock: Clock
    draw: Callable[[], float] = random.random


def answer_in_batches(how: Batching, questions: Iterable[Question[Prompt]], record: Record) -> None:
    """Settle questions in batches; those under way since an earlier session come first.

    Args:
        questions: read as they are needed: what an earlier session's batch brings is recorded before the first is.

    Raises:
        ProviderError: the provider refuses the key, the model, the credit or a batch, or a batch was cancelled.
        BudgetError: the next request could pass the budget.
        KeyboardInterrupt: Ctrl-C or SIGTERM; batches go on at the provider, and the next session collects them.
    """
    require_client()
    api_key(how.endpoint)
    session = _BatchSession(how, iter(questions), record)

    async def run() -> None:
        task = asyncio.ensure_future(session.run())

        def stop() -> None:
            log.warning("stopping: batches go on at the provider, and the same command collects them")
            task.cancel()

        with signals(stop):
            try:
                await task
            except asyncio.CancelledError:
                raise KeyboardInterrupt from None

    run_async(run)


class _BatchSession:
    """One call of `answer_in_batches`."""

    def __init__(self, how: Batching, questions: Iterator[Question[Prompt]], record: Record) -> None:
        self.how, self.questions, self.record = how, questions, record
        self.endpoint, self.limits, self.jobs, self.budget = how.endpoint, how.limits, how.jobs, how.budget
        self.again: list[Question[Prompt]] = []  # to go into the next batch
        self.attempts: Counter[str] = Counter()
        self.room = how.limits.max_requests  # less after a provider had no room for a batch
        self.refusals = 0  # in a row
        self.bad = HeldBack()
        self.over: BudgetError | None = None  # a bill above what was set aside

    async def run(self) -> None:
        how = self.how
        async with connect(self.endpoint) as http:
            self.provider = Provider(http, self.endpoint, how.path, self.limits.window, how.clock, how.draw)
            active = [one for job in self.jobs.open() if (one := await self._earlier(job))]
            while active:
                active = await self._wait(active)
            while True:
                while len(active) < self.limits.at_once:
                    asked = self._next(waiting=bool(active))
                    if not asked:
                        break
                    active.append(await self._submit(asked))
                if not active:
                    break
                active = await self._wait(active)
        self.bad.release()

    # -- into a batch ---------------------------------------------------------------------------------

    def _next(self, *, waiting: bool) -> list[tuple[Question[Prompt], bytes]]:
        """Questions of the next batch with their lines: as many as its limits and the budget allow."""
        asked: list[tuple[Question[Prompt], bytes]] = []
        size = 0
        while len(asked) < self.room:
            question = self.again.pop() if self.again else next(self.questions, None)
            if question is None:
                break
            request = self.how.request(question)
            line = _line(request)
            if asked and size + len(line) > self.limits.max_bytes:
                self.again.append(question)
                break
            if not self.budget.set_aside(self.endpoint, request):
                self.again.append(question)
                if not asked and not waiting:
                    raise self.budget.passed(self.endpoint, request)
                break
            asked.append((question, line))
            size += len(line)
        return asked

    async def _submit(self, asked: list[tuple[Question[Prompt], bytes]]) -> _Active:
        questions = {q.key: q for q, _ in asked}
        job = self.jobs.begin(list(questions.values()))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "requests.jsonl"
            with file.open("wb") as f:
                f.writelines(line for _, line in asked)
            job = self.jobs.uploaded(job, await self.provider.upload(file, f"plad-{job.name}.jsonl"))
        assert job.file is not None
        job = self.jobs.submitted(job, await self.provider.submit(job.file, job.name))
        log.info("batch %s: %d requests", job.batch, len(questions))
        return _Active(job, questions, self.record)

    async def _earlier(self, job: Job) -> _Active | None:
        """A job of an earlier session as it goes on; None where nothing came of it."""
        if job.file is None:
            self.jobs.close(job)
            return None
        if job.batch is None:
            await self.how.clock.sleep(self.limits.poll_s)  # a submit that was cut off may still take effect
            batch = await self.provider.find(job.file, job.name)
            job = self.jobs.submitted(job, batch or await self.provider.submit(job.file, job.name))
        log.info("batch %s: goes on since an earlier session", job.batch)
        return _Active(job, {q.key: q for q in self.jobs.questions(job)}, self.jobs.record)

    # -- out of it ------------------------------------------------------------------------------------

    async def _wait(self, active: list[_Active]) -> list[_Active]:
        """Look until at least one batch is over; returns those that are not."""
        delay = self.limits.poll_s
        while True:
            await self.how.clock.sleep(delay)
            going: list[_Active] = []
            for one in active:
                batch = await self.provider.get(f"/batches/{one.job.batch}")
                if batch.get("status") in _OVER:
                    await self._collect(one, batch)
                else:
                    going.append(one)
            if len(going) < len(active):
                return going
            delay = min(self.limits.max_poll_s, delay * _LONGER)

    async def _collect(self, one: _Active, batch: JsonObject) -> None:
        """Record what a finished batch brought, and put what it didn't into the next."""
        stop: PladError | None = None
        for name in ("output_file_id", "error_file_id"):
            if batch.get(name):
                stop = await self._read(one, str(batch[name])) or stop
        no_room = False
        if batch["status"] == "failed":
            no_room, failure = self._failed(one, batch)
            stop = stop or failure
        if batch["status"] == "cancelled":
            stop = stop or self._refused("the batch was cancelled", "the same command asks for what is missing")
        hopeless = self._hopeless()
        if hopeless is None:
            self._again(one, str(batch["status"]), no_room=no_room)
        self.jobs.close(one.job)
        _say(one, batch)
        if (reason := hopeless or stop or self.over) is not None:
            raise reason
        if no_room:
            await self._make_room()

    async def _read(self, one: _Active, file: str) -> ProviderError | None:
        """Record the rows of a file; the reason to stop, where one names it."""
        attempts = 0
        while True:
            seen: set[str] = set()  # on this reading
            rows = _Rows()
            try:
                async for row in self.provider.rows(file):
                    self._take(one, row, seen, rows)
            except BrokenError as e:
                attempts += 1
                await self.provider.pause(e.attempt, attempts)
                continue
            one.odd += rows.odd
            return rows.stop and self._refused(rows.stop.message, way_out(rows.stop.message, self.endpoint))

    def _take(self, one: _Active, row: JsonObject | None, seen: set[str], rows: "_Rows") -> None:
        key = row.get("custom_id") if row is not None else None
        if row is None or not isinstance(key, str) or key not in one.questions:
            rows.odd["unreadable" if row is None else "unknown"] += 1
            return
        if key in seen:
            rows.odd["duplicate"] += 1
            return
        seen.add(key)
        if key in one.settled:
            return
        attempt = read_row(row)
        if attempt.meaning is Meaning.FINAL and attempt.reply is not None:
            self._settle(one, key, attempt.reply)
        else:
            one.reasons[key] = attempt.message
            rows.stop = attempt if attempt.meaning is Meaning.STOP else rows.stop

    def _settle(self, one: _Active, key: str, reply: Reply) -> None:
        question = one.questions[key]
        one.settled.add(key)
        prompt = reply.prompt_tokens
        if reply.estimated and not prompt and (asked := _sendable(question)):
            prompt = self.how.request(asked).prompt_bytes // 4
        cost = self.endpoint.cost(prompt, reply.completion_tokens)
        priced = replace(reply, prompt_tokens=prompt, cost=cost, attempts=self.attempts[key] + 1)
        self.over = self.over or self.budget.count(key, priced)
        self.budget.release(key)
        self.bad.record(priced, lambda: one.record(question, priced))

    def _failed(self, one: _Active, batch: JsonObject) -> tuple[bool, ProviderError | None]:
        """What a batch that failed as a whole says: lines that are bad, no room for it now, or a reason to stop."""
        errors = objects(as_object(batch.get("errors")).get("data"))
        keys = list(one.questions)
        lines = {n: e for e in errors if isinstance(n := e.get("line"), int) and 0 < n <= len(keys)}
        for line, e in lines.items():
            if keys[line - 1] not in one.settled:
                self._settle(one, keys[line - 1], Reply(Outcome.BAD_REQUEST, message=_reason(e)))
        others = [e for e in errors if e not in lines.values()]
        if others and all(str(e.get("code")) in _NO_ROOM for e in others):
            return True, None
        if lines and not others:
            return False, None
        reasons = "; ".join(map(_reason, others[:3])) or "no reason is given"
        return False, self._refused(f"the batch failed: {reasons}", "look at the message, and correct the settings")

    def _hopeless(self) -> ProviderError | None:
        """The reason to stop where nothing but bad requests came back: the settings are wrong, nothing is recorded."""
        if self.bad.answered or len(self.bad.records) < HOPELESS:
            return None
        return self._refused(
            f"all {len(self.bad.records)} requests of the batch are bad; the latest: {self.bad.message}",
            "look at the message, and correct the settings",
        )

    def _again(self, one: _Active, status: str, *, no_room: bool) -> None:
        """What a batch left out goes into the next; what was left out too often has failed."""
        for key, question in one.questions.items():
            if key in one.settled:
                continue
            self.budget.release(key)
            asked = _sendable(question)
            if asked is None:
                continue  # of an earlier session: the ledger lacks it, so it is asked for anew
            self.attempts[key] += not no_room
            if self.attempts[key] < self.endpoint.max_attempts:
                self.again.append(asked)
                continue
            reason = one.reasons.get(key) or f"no row in {self.attempts[key]} batches, the last one {status}"
            one.record(question, Reply(Outcome.FAILED, attempts=self.attempts[key], message=reason))

    async def _make_room(self) -> None:
        """After a batch that the provider had no room for: smaller ones, later."""
        self.refusals += 1
        if self.refusals > self.endpoint.max_attempts:
            raise self._refused("it has no room for a batch", "wait, or lower batch.max_requests and batch.at_once")
        self.room = max(1, self.room // 2)
        log.info("no room for the batch: the next ones have at most %d requests", self.room)
        await self.how.clock.sleep(self.limits.max_poll_s)

    def _refused(self, what: str, fix: str) -> ProviderError:
        return ProviderError(
            what,
            where=self.endpoint.base_url,
            fix=f"{fix}\nthe same command continues: every answer so far is kept",
        )


@dataclass
class _Rows:
    """What was odd in one reading of a file, and the row that stops the run."""

    odd: Counter[str] = field(default_factory=Counter[str])
    stop: Attempt | None = None


def read_row(row: JsonObject) -> Attempt:
    """What a row of an output or error file means."""
    response, error = row.get("response"), row.get("error")
    if isinstance(response, dict):
        status = response.get("status_code")
        body = response.get("body")
        status = status if isinstance(status, int) else 0
        try:
            text = body if isinstance(body, str) else json.dumps(body)
        except RecursionError:
            return failed("the answer is nested too deeply")
        return read_response(status, {}, text.encode("utf-8", "replace"))
    if isinstance(error, dict):
        return Attempt(Meaning.PASSING, message=_reason(error))
    return Attempt(Meaning.PASSING, message="a row without response or error")


def _sendable(question: Question[Prompt | None]) -> Question[Prompt] | None:
    """The question, unless it is of an earlier session, of which only the names are kept."""
    return None if question.prompt is None else cast("Question[Prompt]", question)


def _line(request: HttpRequest) -> bytes:
    asked = {"custom_id": request.key, "method": "POST", "url": f"/v1{request.path}", "body": request.body}
    return json.dumps(asked).encode() + b"\n"


def _reason(error: JsonObject) -> str:
    return ": ".join(str(error[name]) for name in ("code", "message") if error.get(name))[:500] or "no reason"


def _say(one: _Active, batch: JsonObject) -> None:
    log.info("batch %s: %s, %d of %d settled", one.job.batch, batch["status"], len(one.settled), len(one.questions))
    if one.odd:
        counts = ", ".join(f"{n} {kind}" for kind, n in sorted(one.odd.items()))
        log.warning("batch %s: rows left out: %s", one.job.batch, counts)
