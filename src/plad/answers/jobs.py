"""Batches at a provider, written down in the ledger before all else, so that none is lost or sent twice."""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from plad.answers.ledger import Ledger
from plad.answers.question import Question, canonical_json
from plad.answers.reply import Reply
from plad.records import Example


@dataclass(frozen=True, slots=True)
class Job:
    """One batch.

    Attributes:
        name: our own, which goes with the batch: by it one is found whose id was lost.
        file: the provider's id of the uploaded requests, once they are.
        batch: the provider's id of the batch, once it is known.
    """

    name: str
    file: str | None = None
    batch: str | None = None


class Jobs:
    """The batches of one run at one endpoint that are not collected yet.

    Args:
        endpoint: its address.
        system: whose answers they are.
    """

    def __init__(self, ledger: Ledger, endpoint: str, system: str) -> None:
        self._ledger, self._endpoint, self._system = ledger, endpoint, system

    def open(self) -> list[Job]:
        """Those that were begun, the oldest first."""
        query = "SELECT job, file, batch FROM jobs WHERE run IS ? AND endpoint = ? ORDER BY created, job"
        return [Job(*row) for row in self._ledger.read(query, (self._ledger.run, self._endpoint))]

    def begin(self, questions: Sequence[Question[object]]) -> Job:
        """Write down a new job and what it will ask."""
        job = Job(secrets.token_hex(8))
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        new = "INSERT INTO jobs (job, run, endpoint, created) VALUES (?, ?, ?, ?)"
        line = "INSERT INTO job_lines VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        self._ledger.write(
            [
                (new, (job.name, self._ledger.run, self._endpoint, now)),
                *(
                    (line, (job.name, i, q.key, q.ask, self._system, q.example.id, q.sample, canonical_json(q.spec)))
                    for i, q in enumerate(questions)
                ),
            ]
        )
        return job

    def uploaded(self, job: Job, file: str) -> Job:
        """Write down the id of the file."""
        self._ledger.write([("UPDATE jobs SET file = ? WHERE job = ?", (file, job.name))])
        return Job(job.name, file)

    def submitted(self, job: Job, batch: str) -> Job:
        """Write down the id of the batch."""
        self._ledger.write([("UPDATE jobs SET batch = ? WHERE job = ?", (batch, job.name))])
        return Job(job.name, job.file, batch)

    def close(self, job: Job) -> None:
        """Forget a job: all that it brought is recorded."""
        deletions = ("DELETE FROM job_lines WHERE job = ?", "DELETE FROM jobs WHERE job = ?")
        self._ledger.write([(statement, (job.name,)) for statement in deletions])

    def questions(self, job: Job) -> list[Question[None]]:
        """What a job asks, in the order of its file; of examples and prompts only the names."""
        query = "SELECT key, ask, example_id, sample, spec FROM job_lines WHERE job = ? ORDER BY line"
        questions: list[Question[None]] = []
        for key, ask, example_id, sample, text in self._ledger.read(query, (job.name,)):
            spec = json.loads(text)
            questions.append(Question(key, ask, Example(example_id, ""), sample, spec["seed"], None, spec))
        return questions

    def record(self, question: Question[object], reply: Reply) -> None:
        """Record an answer to a question of an earlier session; see `Ledger.put`."""
        self._ledger.put(question, self._system, reply)
