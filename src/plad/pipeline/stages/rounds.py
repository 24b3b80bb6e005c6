"""Rounds of distillation: the student is sampled again, and meets the same answers of the teacher in new pairs.

Preference distillation assumes that the teacher answers better than the student, and the first limit that the paper
states is that a student which improves stops meeting it. So the assumption is measured after every round.
"""

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar, cast

from pydantic import TypeAdapter

from plad.answers.engine import Engine
from plad.answers.fill import are_recorded, recorded
from plad.answers.ledger import Ledger
from plad.answers.question import Sampling
from plad.config.models import DistillSection
from plad.data.formats import read_pairs_parquet, write_pairs_parquet
from plad.errors import NoPairsError
from plad.evaluate.stats import QUICK
from plad.evaluate.winrate import judge_pairs
from plad.pipeline.engines import (
    answer_set,
    engine_for,
    fill,
    judge_resources,
    missing_answers,
    open_ledger,
    recorded_on_distill,
)
from plad.pipeline.finished import finished_before, save_finished
from plad.pipeline.resources import Resources, fine_tuned, weights
from plad.pipeline.stages.pair import all_pairs
from plad.pipeline.students.auto import distilled, labels
from plad.pipeline.students.student import StudentCounts, StudentJob
from plad.pipeline.students.validation import figures_of, measure_of
from plad.policy.load import Policy, load_policy, save_policy
from plad.records import ANSWERED, Example, Generation, Pair
from plad.rundir.atomic import is_complete, verify_dir, write_json
from plad.rundir.directory import RunDir
from plad.rundir.fingerprint import fingerprint
from plad.rundir.reading import reading
from plad.sampling.transformers import Transformers
from plad.train.validation import Figures, rank, told

log = logging.getLogger("plad")

T = TypeVar("T")
_ROUND = TypeAdapter(dict[str, Any])


class Rate(TypedDict):
    """The teacher's win rate against a student."""

    value: float
    low: float
    high: float
    n: int


class Round(TypedDict):
    """What the student before the first round, or that of a round, came to.

    Attributes:
        met_on: the split of the prompts on which it met the teacher.
        pairs: that it learnt from.
    """

    validation: Figures
    teacher_student: Rate
    met_on: NotRequired[str]
    pairs: NotRequired[int]
    step: NotRequired[int]


class RoundsCounts(StudentCounts, total=False):
    """The kept round's counts, and what every round came to."""

    rounds: list[Round]
    kept_round: int
    stopped: str | None


def best_round(rounds: Sequence[Round]) -> int:
    """The round whose student is kept: the best on validation, the first of equals; a round must have been made."""
    return max(range(1, len(rounds)), key=lambda n: rank(rounds[n]["validation"]))


def stop_reason(rounds: Sequence[Round]) -> str | None:
    """Why no further round follows; None if one may."""
    ranks = [rank(r["validation"]) for r in rounds]
    if len(rounds) > 1 and ranks[-1] <= max(ranks[:-1]):
        measured = "win rate" if "win_rate" in rounds[-1]["validation"] else "ROUGE-L"
        return f"the validation {measured} no longer rises"
    rate = rounds[-1]["teacher_student"]
    if rate["n"] and rate["low"] <= 0.5:
        return "the teacher is no longer favoured"
    return None


def in_rounds(job: StudentJob) -> tuple[Policy, RoundsCounts]:
    """Distil in up to `settings.rounds` rounds; the best round's student and its counts.

    What a round has come to stands in RUN/rounds/N/round.json, its pairs beside it (the first round's are the run's).
    No more than two students are on disk: the best and the latest. A run that was interrupted goes on where it was.
    """
    most = job.settings.rounds
    loop = _Loop.start(job)
    loop.forget_lost(most)
    rounds, trained = [loop.of_the_start()], list[StudentCounts]()
    reason = None
    job = loop.job
    for n in range(1, most + 1):
        if n > 1:
            try:
                job = loop.with_new_pairs(n, job)
            except NoPairsError:
                reason = "no pair is left"
                break
        trained.append(loop.trained(n, job))
        rounds.append(loop.judged(n))
        _log_round(n, rounds)
        if n > 1:
            loop.drop(n if best_round(rounds) < n else n - 1)
        reason = stop_reason(rounds)
        if reason is not None:
            break
        job = replace(job, settings=later_settings(job.settings, trained[-1]))
    log.info("stopped after %d of %d rounds: %s", len(trained), most, reason or "all are made")
    kept, chosen_by = best_round(rounds), measure_of(job.resources, job.settings.validation).words
    log.info("kept round %d, by %s; %s", kept, chosen_by, told(rounds[kept]["validation"]))
    policy = load_policy(job.resources.student, folder=loop.folder(kept))
    counts = cast(RoundsCounts, trained[0] | trained[kept - 1])  # the choice among candidates is the first round's
    counts.update(rounds=rounds, kept_round=kept, stopped=reason, chosen_by=chosen_by)
    return policy, counts


def _log_round(n: int, rounds: Sequence[Round]) -> None:
    rate, before, after = rounds[n]["teacher_student"], *(told(r["validation"]) for r in rounds[n - 1 : n + 1])
    log.info("round %d: %s, after %s", n, after, before.removeprefix("validation "))
    if rate["n"]:
        interval = f"{100 * rate['value']:.0f} % [{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]"
        log.info("round %d: the teacher wins %s of %d prompts against its student", n, interval, rate["n"])


def later_settings(settings: DistillSection, counts: StudentCounts) -> DistillSection:
    """The settings of the round after the first: with the chosen objective, and without what comes before its loss."""
    candidates = settings.objective.alternatives
    objective = candidates[labels(candidates).index(counts.get("chosen", "")) if len(candidates) > 1 else 0]
    return settings.model_copy(update={"objective": objective.warmed_up()})


@dataclass(frozen=True, slots=True)
class _Loop:
    """What all rounds share.

    Attributes:
        job: its inputs are all but the number of rounds, so that more of them continue those that were made.
        rows: the prompts on which teacher and student meet.
        split: where these are from.
    """

    job: StudentJob
    rows: list[Example]
    split: str
    made_from: str

    @classmethod
    def start(cls, job: StudentJob) -> "_Loop":
        resources, settings = job.resources, job.settings.model_copy(update={"rounds": 1})
        inputs = {**job.inputs, "distill": {**cast(Mapping[str, object], job.inputs["distill"]), "rounds": 1}}
        n, split = settings.validation.rows, "validation"
        rows = resources.examples(split)[:n]
        if not resources.config.teacher.local:
            with open_ledger(resources) as ledger:
                lacking = missing_answers(engine_for(resources, "teacher", ledger), rows)
            if lacking is not None:
                log.warning("the teacher meets its students on distillation prompts: %s", lacking)
                split = "distill"
                rows = resources.examples(split)[:n]
        return cls(replace(job, inputs=inputs, settings=settings), rows, split, fingerprint(inputs))

    @property
    def resources(self) -> Resources:
        """The run's."""
        return self.job.resources

    def folder(self, n: int) -> Path:
        """Where a round's student is kept until the stage is done."""
        return self.resources.run / "checkpoints/rounds" / f"student_round_{n}"

    def drop(self, n: int) -> None:
        """Let go of a round's student."""
        self.resources.run.drop(f"checkpoints/rounds/student_round_{n}")

    # -- what each round has come to so far, kept on disk ---------------------------------------------

    def _known(self, n: int) -> dict[str, Any]:
        known = _read_round(self.resources.run, n)
        return known if known.get("inputs") == self.made_from else {"inputs": self.made_from}

    def _once(self, n: int, name: str, make: Callable[[], T]) -> T:
        """A part of a round, made unless an interrupted run of this stage has made it."""
        known = self._known(n)
        if name not in known:
            known[name] = make()
            write_json(self.resources.run / _file(n), known)
            gc.collect()
        return known[name]

    def forget_lost(self, most: int) -> None:
        """Make the rounds from the beginning where a student that is still needed is gone, as once the stage was done.

        The best one is needed, and one that has not met the teacher.
        """
        known = {n: of_round for n in range(1, most + 1) if "training" in (of_round := self._known(n))}
        if not known:
            return
        best = max(known, key=lambda n: rank(known[n]["training"]["best"]["validation"]))
        needed = {best, *(n for n, of_round in known.items() if "teacher_student" not in of_round)}
        if lost := sorted(n for n in needed if not is_complete(self.folder(n))):
            log.warning("the student of round %d is gone: the rounds are made again", lost[0])
            for place in ("rounds", "checkpoints/rounds"):
                self.resources.run.drop(place)

    # -- the parts ------------------------------------------------------------------------------------

    def trained(self, n: int, job: StudentJob) -> StudentCounts:
        """Train the round's student into its folder; its counts."""
        return self._once(n, "training", lambda: self._train(n, job))

    def _train(self, n: int, job: StudentJob) -> StudentCounts:
        known = finished_before(self.folder(n), self.made_from)
        if known is not None:
            return cast(StudentCounts, known)
        job = replace(job, name="distill" if n == 1 else f"distill/round_{n}")
        policy, counts = distilled(job, lambda: self._student(n - 1))
        counts = StudentCounts(stage=job.name, pairs=len(job.pairs)) | counts
        save_finished(self.folder(n), lambda staging: save_policy(policy, staging), self.made_from, counts)
        for path in job.checkpoints().parent.glob(f"{job.checkpoints().name}*"):
            self.resources.run.drop(f"checkpoints/{path.name}")
        return counts

    def _student(self, n: int) -> Policy:
        """The student after a round; after none, the fine-tuned one."""
        if n == 0:
            return fine_tuned(self.resources, "student")
        return load_policy(self.resources.student, folder=self._whole(n))

    def _whole(self, n: int) -> Path:
        """The folder of a round's student, which is what was written."""
        verify_dir(self.folder(n))
        return self.folder(n)

    def of_the_start(self) -> Round:
        """Figures of the fine-tuned student."""

        def validation() -> Figures:
            rows = self.resources.examples("validation")[: self.job.settings.validation.rows]
            return figures_of(self.resources, self._student(0), rows)()

        figures = self._once(0, "validation", validation)
        return Round(validation=figures, teacher_student=self._meeting(0), met_on=self.split)

    def judged(self, n: int) -> Round:
        """Figures of a round's student."""
        training = cast(StudentCounts, self._known(n)["training"])
        best = training.get("best")
        assert best is not None
        pairs = training.get("pairs", 0)
        return Round(**best, pairs=pairs, teacher_student=self._meeting(n), met_on=self.split)

    def _meeting(self, n: int) -> Rate:
        return self._once(n, "teacher_student", lambda: self._teacher_against(n))

    def _answers(
        self, system: str, rows: list[Example], samples: int, engine: Callable[[Ledger], Engine[Any]]
    ) -> Mapping[str, Sequence[Generation]]:
        """Answers as pairs are made of, through the ledger; a model is loaded only where some are missing."""
        generate = self.resources.config.generate
        sampling = Sampling(generate.temperature, generate.max_new_tokens, samples)
        with open_ledger(self.resources) as ledger:
            answers = answer_set(self.resources, system, sampling)
            if not are_recorded(rows, answers, ledger):
                fill(self.resources, engine(ledger), rows, len(rows), answers, ledger)
            return recorded(rows, answers, ledger)

    def _of_student(self, n: int, rows: list[Example], samples: int) -> Mapping[str, Sequence[Generation]]:
        system = f"student_round_{n}" if n else "student_sft"
        if n:
            self._whole(n)  # its answers go by its files
        slots = self.resources.config.generate.slots

        def engine(_: Ledger) -> Engine[Any]:
            return Transformers(self._student(n), weights(self.resources, system), slots)

        return self._answers(system, rows, samples, engine)

    def _teacher_against(self, n: int) -> Rate:
        """The teacher's win rate against a round's student, by the first judge."""
        config = self.resources.config
        samples = config.generate.samples if self.split == "distill" else 1  # those of the pairs are there already
        teacher = self._answers("teacher", self.rows, samples, lambda led: engine_for(self.resources, "teacher", led))
        student = self._of_student(n, self.rows, 1)
        both = [(row, teacher[row.id][0], student[row.id][0]) for row in self.rows]
        met = [(row, a.text, b.text) for row, a, b in both if {a.outcome, b.outcome} <= ANSWERED]
        rows, theirs, ours = [m[0] for m in met], [m[1] for m in met], [m[2] for m in met]
        judge = self.resources.judge_sections()[0].open(judge_resources(self.resources))
        rates, _ = judge_pairs(rows, theirs, ours, [judge], bootstrap=replace(QUICK, seed=config.run.seed))
        return cast(Rate, rates[judge.name].to_json())

    def with_new_pairs(self, n: int, job: StudentJob) -> StudentJob:
        """The job on pairs of the teacher's known answers and new ones of the student after the round before.

        Raises:
            NoPairsError: no pair is left.
        """
        file = self.resources.run / f"rounds/{n}/pairs.parquet"

        def make() -> Mapping[str, object]:
            config = self.resources.config
            student = self._of_student(n - 1, self.resources.examples("distill"), config.student_samples)
            teacher = recorded_on_distill(self.resources, "teacher", config.generate.samples)
            pairs, counts = all_pairs(self.resources, teacher, student)
            write_pairs_parquet(file, [_renamed(pair, f"student_round_{n - 1}") for pair in pairs])
            return counts

        self._once(n, "pairs", make)
        return replace(job, pairs=read_pairs_parquet(file), file=file)


def _file(n: int) -> str:
    return f"rounds/{n}/round.json"


def _read_round(run: RunDir, n: int) -> dict[str, Any]:
    """What a round has come to so far, by part; empty where nothing is known."""
    file = run / _file(n)
    if not file.exists():
        return {}
    with reading(file):
        return _ROUND.validate_json(file.read_bytes())


def training_of_round(run: RunDir, n: int) -> StudentCounts:
    """What the training of a round counted; empty where that is not known."""
    return cast(StudentCounts, _read_round(run, n).get("training", {}))


def _renamed(pair: Pair, student: str) -> Pair:
    """The pair with its student's answers under the name of the round that gave them."""

    def name(source: str) -> str:
        return student if source == "student_sft" else source

    return replace(pair, chosen_source=name(pair.chosen_source), rejected_source=name(pair.rejected_source))
