"""What a run's own figures suggest to try next: each rule a function of the facts, with its threshold beside it."""

from collections.abc import Callable

from plad.evaluate.deciding import decision
from plad.records import STUDENT, STUDENT_SFT, TEACHER
from plad.report.parts.estimates import BETTER, WORSE, tone_of
from plad.report.parts.formatting import flatten, harmless, number
from plad.report.parts.run_facts import LogRow, RunFacts

LEAD = 0.6  # of the teacher's win rate: below it many pairs are wrong
CUT_OFF = 0.1  # share of the student's answers
IN_ORDER = 0.5  # share of the watched pairs after training
ACTIVE = 0.1  # share of pairs with a loss over training

Rule = Callable[[RunFacts], str | None]


def weak_teacher(facts: RunFacts) -> str | None:
    """Pairs teach little where the teacher is hardly better than the student."""
    rates = facts.metrics.teacher_student_win_rate if facts.metrics else {}
    judge, rate = next(((j, r) for j, r in rates.items() if r.value is not None), ("", None))
    if rate is None or rate.value is None or rate.value >= LEAD:
        return None
    return (
        f"Judge {harmless(judge)} finds the teacher's answer the better one in only {number(rate.value, scale=100)} % "
        "of the distillation prompts, ties half: take a stronger teacher, or let a scorer choose which answer is "
        "preferred (pairs.scorer with pairs.real_share)."
    )


def cut_off(facts: RunFacts) -> str | None:
    """An answer without its end is judged as it is, and teaches no end."""
    student = facts.metrics.systems.get(STUDENT) if facts.metrics else None
    share = student.truncated if student else None
    if share is None or share <= CUT_OFF:
        return None
    tokens = dict(flatten(facts.config)).get("generate.max_new_tokens")
    now = f", now {tokens}" if tokens else ""
    return f"{number(share, scale=100)} % of the student's answers are cut off: raise generate.max_new_tokens{now}."


def few_in_order(facts: RunFacts) -> str | None:
    """The aim of a preference loss, on validation prompts that it did not see."""
    rows = [row for row in _of_distillation(facts) if row.validation and "accuracy" in row.values]
    kept = facts.distill.best_step
    share = next((row.values["accuracy"] for row in reversed(rows) if kept in (None, row.step)), None)
    if share is None or share >= IN_ORDER:
        return None
    return (
        f"Only {number(share, scale=100)} % of the watched validation pairs are in order: give more prompts, more "
        "generate.samples, or more distill.epochs."
    )


def inactive(facts: RunFacts) -> str | None:
    """Pairs that keep their margin teach nothing."""
    shares = [row.values["active"] for row in _of_distillation(facts) if "active" in row.values]
    if not shares or sum(shares) / len(shares) >= ACTIVE:
        return None
    mean = number(sum(shares) / len(shares), scale=100)
    return f"Only {mean} % of the pairs had a loss while training: raise distill.objective.beta, the margin they keep."


def alarmed(facts: RunFacts) -> str | None:
    """Signs of collapse carry their own advice."""
    return " ".join(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in facts.distill.alarms) or None


def another_round(facts: RunFacts) -> str | None:
    """A student that got better and is still behind its teacher may learn from it again."""
    if facts.metrics is None or facts.distill.rounds or facts.distill.alarms:
        return None
    decides = decision(facts.metrics)
    if tone_of(decides.change(STUDENT_SFT)) != BETTER or tone_of(decides.change(TEACHER)) != WORSE:
        return None
    return "The student got better and is still behind its teacher: distill.rounds: 2 lets it learn once more."


RULES: tuple[Rule, ...] = (alarmed, weak_teacher, cut_off, few_in_order, inactive, another_round)


def next_steps(facts: RunFacts) -> list[str]:
    """What applies to this run, the gravest first."""
    return [step for rule in RULES if (step := rule(facts))]


def _of_distillation(facts: RunFacts) -> list[LogRow]:
    return [row for row in facts.log if row.stage == facts.distill.stage]
