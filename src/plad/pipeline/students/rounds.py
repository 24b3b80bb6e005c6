"""Rounds of distillation: the student is sampled again, and meets the same answers of the teacher in new pairs.

Preference distillation assumes that the teacher answers better than the student, and the first limit that the paper
states is that a student which improves stops meeting it. So the assumption is measured after every round.
"""

import gc
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plad.answers.fill import are_recorded, recorded
from plad.answers.question import Sampling
from plad.config.models import DistillSection
from plad.errors import NoPairsError
from plad.pipeline.context import Context, fine_tuned, weights
from plad.pipeline.engines import answer_set, engine_for, fill, judge_resources, missing_answers, open_ledger
from plad.pipeline.made import made_before, sign
from plad.pipeline.stages.generate import recorded_on_distill
from plad.pipeline.stages.pair import all_pairs
from plad.pipeline.students.auto import distilled, figures, labels
from plad.pipeline.students.validation import figures_of
from plad.records import ANSWERED, Example, Pair
from plad.rundir.directory import atomic_dir, fingerprint, write_json

log = logging.getLogger("plad")

Rounds = Sequence[Mapping[str, Any]]
"""{"validation", "teacher_student"} of the student before the first round, and of every round's student."""


def best_round(rounds: Rounds) -> int:
    """The round whose student is kept: the best on validation, the first of equals; a round must have been made."""
    return max(range(1, len(rounds)), key=lambda n: _gain(rounds[n]))


def stop_reason(rounds: Rounds) -> str | None:
    """Why no further round follows; None if one may."""
    last = rounds[-1]
    if len(rounds) > 1 and _gain(last) <= max(_gain(r) for r in rounds[:-1]):
        return "the validation win rate no longer rises"
    rate = last["teacher_student"]
    if rate["n"] and rate["low"] <= 0.5:
        return "the teacher is no longer favoured"
    return None


def _gain(of_round: Mapping[str, Any]) -> tuple[float, float]:
    return figures({"best": of_round})


def in_rounds(ctx: Context, settings: DistillSection, pairs: Sequence[Pair], file: Path) -> tuple[Any, dict[str, Any]]:
    """Distil in up to `settings.rounds` rounds; the best round's student and its counts.

    What a round has come to stands in RUN/rounds/N/round.json, its pairs beside it (the first round's are `file`). No
    more than two students are on disk: the best and the latest. A run that was interrupted goes on where it was.
    """
    from plad.policy.load import load_policy

    loop = _Loop.start(ctx, settings)
    rounds = [loop.of_the_start()]
    trained: list[dict[str, Any]] = []
    reason = None
    own = loop.settings
    for n in range(1, settings.rounds + 1):
        if n > 1:
            try:
                pairs, file = loop.new_pairs(n)
            except NoPairsError:
                reason = "no pair is left"
                break
        trained.append(loop.trained(n, own, pairs, file))
        rounds.append(loop.judged(n))
        _say(n, rounds)
        if n > 1:
            loop.drop(n if best_round(rounds) < n else n - 1)
        reason = stop_reason(rounds)
        if reason is not None:
            break
        own = _next(own, trained[-1])
    log.info("stopped after %d of %d rounds: %s", len(trained), settings.rounds, reason or "all are made")
    kept = best_round(rounds)
    policy = load_policy(ctx.policy_section("student"), folder=loop.folder(kept))
    counts = trained[0] | trained[kept - 1]  # the choice among candidates is the first round's
    return policy, {**counts, "rounds": rounds, "kept_round": kept, "stopped": reason}


def _say(n: int, rounds: Rounds) -> None:
    rate, rise = rounds[n]["teacher_student"], [_gain(r)[0] for r in rounds[n - 1 :]]
    log.info("round %d: validation win rate %.1f %% after %.1f %%", n, 100 * rise[1], 100 * rise[0])
    if rate["n"]:
        log.info("round %d: the teacher wins %s of %d prompts against its student", n, _interval(rate), rate["n"])


def _interval(rate: Mapping[str, Any]) -> str:
    return f"{100 * rate['value']:.0f} % [{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]"


def _next(settings: DistillSection, counts: Mapping[str, Any]) -> DistillSection:
    """The settings of the round after the first: with the chosen objective, and without what comes before its loss."""
    candidates = settings.objective.alternatives
    objective = candidates[labels(candidates).index(counts["chosen"]) if len(candidates) > 1 else 0]
    return settings.model_copy(update={"objective": objective.warmed_up()})


@dataclass(frozen=True, slots=True)
class _Loop:
    """What all rounds share.

    Attributes:
        ctx: depends on all but the number of rounds, so that more of them continue those that were made.
        rows: the prompts on which teacher and student meet.
        split: where these are from.
    """

    ctx: Context
    settings: DistillSection
    rows: list[Example]
    split: str
    made_from: str

    @classmethod
    def start(cls, ctx: Context, settings: DistillSection) -> "_Loop":
        depends = {**ctx.depends, "distill": {**ctx.depends["distill"], "rounds": 1}}
        ctx = replace(ctx, depends=depends)
        rows, split = ctx.examples("validation"), "validation"
        if not ctx.config.teacher.local:
            with open_ledger(ctx) as ledger:
                lacking = missing_answers(engine_for(ctx, "teacher", ledger), rows[: settings.validation.rows])
            if lacking is not None:
                log.warning("the teacher meets its students on distillation prompts: %s", lacking)
                rows, split = ctx.examples("distill"), "distill"
        single = settings.model_copy(update={"rounds": 1})
        return cls(ctx, single, rows[: settings.validation.rows], split, fingerprint(depends))

    def folder(self, n: int) -> Path:
        """Where a round's student is kept until the stage is done."""
        return self.ctx.run / "checkpoints/rounds" / f"student_round_{n}"

    def drop(self, n: int) -> None:
        """Let go of a round's student."""
        self.ctx.run.drop(f"checkpoints/rounds/student_round_{n}")

    # -- what each round has come to so far, kept on disk ---------------------------------------------

    def _known(self, n: int) -> dict[str, Any]:
        file = self.ctx.run / f"rounds/{n}/round.json"
        known = json.loads(file.read_text()) if file.is_file() else {}
        return known if known.get("inputs") == self.made_from else {"inputs": self.made_from}

    def _once(self, n: int, name: str, make: Callable[[], Any]) -> Any:
        """A part of a round, made unless an interrupted run of this stage has made it."""
        known = self._known(n)
        if name not in known:
            known[name] = make()
            write_json(self.ctx.run / f"rounds/{n}/round.json", known)
            gc.collect()
        return known[name]

    # -- the parts ------------------------------------------------------------------------------------

    def trained(self, n: int, settings: DistillSection, pairs: Sequence[Pair], file: Path) -> dict[str, Any]:
        """Train the round's student into its folder; its counts."""
        return self._once(n, "training", lambda: self._train(n, settings, pairs, file))

    def _train(self, n: int, settings: DistillSection, pairs: Sequence[Pair], file: Path) -> dict[str, Any]:
        from plad.policy.load import save_policy

        counts = made_before(self.folder(n), self.made_from)
        if counts is not None:
            return counts
        name = "distill" if n == 1 else f"distill/round_{n}"
        policy, counts = distilled(self.ctx, name, settings, lambda: self._student(n - 1), pairs, file)
        counts = {"stage": name, "pairs": len(pairs), **counts}
        with atomic_dir(self.folder(n)) as staging:
            save_policy(policy, staging)
            sign(staging, self.made_from, counts)
        for place in (self.ctx.run / "checkpoints").glob(f"{name.replace('/', '-')}*"):
            self.ctx.run.drop(f"checkpoints/{place.name}")
        return counts

    def _student(self, n: int) -> Any:
        """The student after a round; after none, the fine-tuned one."""
        from plad.policy.load import load_policy

        if n == 0:
            return fine_tuned(self.ctx, "student")
        return load_policy(self.ctx.policy_section("student"), folder=self.folder(n))

    def of_the_start(self) -> dict[str, Any]:
        """Figures of the fine-tuned student."""

        def validation() -> dict[str, Any]:
            rows = self.ctx.examples("validation")[: self.settings.validation.rows]
            return figures_of(self.ctx, self._student(0), rows)()

        return {"validation": self._once(0, "validation", validation), **self._meeting(0)}

    def judged(self, n: int) -> dict[str, Any]:
        """Figures of a round's student."""
        training = self._known(n)["training"]
        return {**training["best"], "pairs": training["pairs"], **self._meeting(n)}

    def _meeting(self, n: int) -> dict[str, Any]:
        rate = self._once(n, "teacher_student", lambda: self._teacher_against(n))
        return {"teacher_student": rate, "met_on": self.split}

    def _answers(self, system: str, rows: list[Example], samples: int, engine: Callable[[Any], Any]) -> dict[str, Any]:
        """Answers as pairs are made of, through the ledger; a model is loaded only where some are missing."""
        generate = self.ctx.config.generate
        sampling = Sampling(generate.temperature, generate.max_new_tokens, samples)
        with open_ledger(self.ctx) as ledger:
            answers = answer_set(self.ctx, system, sampling)
            if not are_recorded(rows, answers, ledger):
                fill(self.ctx, engine(ledger), rows, len(rows), answers, ledger)
            return recorded(rows, answers, ledger)

    def _of_student(self, n: int, rows: list[Example], samples: int) -> dict[str, Any]:
        from plad.sampling.local import Transformers

        system = f"student_round_{n}" if n else "student_sft"
        slots = self.ctx.config.generate.slots

        def engine(ledger: Any) -> Any:
            return Transformers(self._student(n), weights(self.ctx, system), slots)

        return self._answers(system, rows, samples, engine)

    def _teacher_against(self, n: int) -> dict[str, Any]:
        """The teacher's win rate against a round's student, by the first judge."""
        from plad.evaluate.winrate import QUICK, judge_pairs

        cfg = self.ctx.config
        samples = cfg.generate.samples if self.split == "distill" else 1  # those of the pairs are there already
        teacher = self._answers("teacher", self.rows, samples, lambda ledger: engine_for(self.ctx, "teacher", ledger))
        student = self._of_student(n, self.rows, 1)
        met = [
            (row, teacher[row.id][0].text, student[row.id][0].text)
            for row in self.rows
            if {teacher[row.id][0].outcome, student[row.id][0].outcome} <= ANSWERED
        ]
        rows, theirs, ours = [m[0] for m in met], [m[1] for m in met], [m[2] for m in met]
        judge = self.ctx.judge_sections()[0].open(judge_resources(self.ctx))
        rates, _ = judge_pairs(rows, theirs, ours, [judge], bootstrap=replace(QUICK, seed=cfg.run.seed))
        return rates[judge.name].to_json()

    def new_pairs(self, n: int) -> tuple[list[Pair], Path]:
        """Pairs of the teacher's answers, which are known, and new ones of the student after the round before.

        Raises:
            NoPairsError: no pair is left.
        """
        from plad.data.formats import read_pairs_parquet, write_pairs_parquet

        file = self.ctx.run / f"rounds/{n}/pairs.parquet"

        def make() -> dict[str, Any]:
            cfg, name = self.ctx.config, f"student_round_{n - 1}"
            student = self._of_student(n - 1, self.ctx.examples("distill"), cfg.student_samples)
            pairs, counts = all_pairs(self.ctx, recorded_on_distill(self.ctx, "teacher", cfg.generate.samples), student)
            write_pairs_parquet(file, [_renamed(pair, name) for pair in pairs])
            return counts

        self._once(n, "pairs", make)
        return read_pairs_parquet(file), file


def _renamed(pair: Pair, student: str) -> Pair:
    """The pair with its student's answers under the name of the round that gave them."""

    def name(source: str) -> str:
        return student if source == "student_sft" else source

    return replace(pair, chosen_source=name(pair.chosen_source), rejected_source=name(pair.rejected_source))
