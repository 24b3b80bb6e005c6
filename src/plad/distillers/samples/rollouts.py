"""The student's own samples as training text: which texts a step trains on, drawn anew from the policy as it is.

What is sampled depends on the weights, the run's seed, the step and the prompt; never on the order of requests. A run
that is resumed therefore samples what an undisturbed one would; samples that outlive a step go into the checkpoint.
"""

import logging
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from plad.answers.question import request_seed
from plad.distillers.logits.compare import LiveTeacher, Teacher
from plad.distillers.logits.losses import Document, Rollout
from plad.distillers.logits.policy_gradient import Rewarding, floats
from plad.distillers.samples.mixed import Mixed, sample_mixed
from plad.policy.load import Policy
from plad.sampling.draw import Request
from plad.sampling.sample import evaluating, sample
from plad.scoring.layout import Group, pack
from plad.scoring.score import Route, checked_route, score

log = logging.getLogger("plad")


class TextSource(Protocol):
    """Says what every step trains on."""

    def texts(self, step: int, batch: Sequence[Group]) -> list[Group]:
        """The groups of a step, from those the data gives it."""
        ...

    def metrics(self) -> dict[str, float]:
        """What the last step's texts were like, for its metrics row."""
        ...

    def counts(self) -> dict[str, int]:
        """What was sampled so far; empty where nothing ever is."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: JSON."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's `state()`."""
        ...


@dataclass
class Sampler:
    """Samples texts of a live policy, adapter included, and counts them.

    Attributes:
        policy: sampled as it is, dropout off.
        name: of the method; two methods of a run draw apart.
        temperature: of the softmax.
        max_new_tokens: most tokens of a text, end of sequence included; fewer where the context ends.
        slots: texts in progress at once.
        seed: the run's.
        teacher: mixed in, by `mix`.
        sampled: tokens so far.
        drawn: texts so far.
        ended: texts so far that ended by themselves.
    """

    policy: Policy
    name: str
    temperature: float
    max_new_tokens: int
    slots: int
    seed: int
    teacher: LiveTeacher | None = None
    mix: float = 0.0
    sampled: int = 0
    drawn: int = 0
    ended: int = 0

    def draw(self, step: int, prompts: Sequence[Group]) -> list[tuple[int, ...]]:
        """One text for each prompt; a prompt that stands there twice gets two."""
        answers: dict[str, tuple[int, ...]] = {}
        times: Counter[str] = Counter()
        requests: list[Request] = []
        for i, group in enumerate(prompts):
            taken = 0 if self.policy.apart else len(group.prompt)
            room = min(self.max_new_tokens, self.policy.context - taken)
            seed = request_seed(self.seed, f"{self.name}:{step}:{group.id}", times[group.id])
            requests.append(Request(str(i), group.prompt, room, self.temperature, seed))
            times[group.id] += 1

        def keep(request: Request, tokens: tuple[int, ...], seconds: float) -> None:
            answers[request.key] = tokens

        student, teacher, slots, ends = self.policy.model, self.teacher, self.slots, self.policy.eos_ids
        if teacher is None or not self.mix:
            sample(student, requests, slots=slots, eos_ids=ends, on_finish=keep)
        else:
            mixed = Mixed(student, teacher.model, self.mix, self.temperature)
            sample_mixed(mixed, requests, slots=slots, eos_ids=ends, on_finish=keep)
        texts = [answers[request.key] for request in requests]
        self.sampled += sum(map(len, texts))
        self.drawn += len(texts)
        self.ended += sum(text[-1] in ends for text in texts)
        return texts

    def counts(self) -> dict[str, int]:
        """Texts sampled so far, how many of them ended, and their tokens."""
        return {"texts": self.drawn, "ended": self.ended, "tokens": self.sampled}

    def restore(self, state: Mapping[str, int]) -> None:
        """Set the counts."""
        self.drawn, self.ended, self.sampled = state["texts"], state["ended"], state["tokens"]


@dataclass
class MixedTexts:
    """The teacher's texts, the student's, or both.

    A group's chosen completions are the teacher's texts, the others the student's of before training.

    Attributes:
        share: probability that a step takes the student's texts; drawn from seed and step.
        both: whether the teacher's texts stay beside them.
        sampler: draws the student's texts anew; None takes those of the group.
    """

    share: float
    both: bool
    seed: int
    sampler: Sampler | None = None
    _last: dict[str, float] = field(default_factory=dict[str, float])

    def texts(self, step: int, batch: Sequence[Group]) -> list[Group]:
        """The groups of a step."""
        students = random.Random(f"texts:{self.seed}:{step}").random() < self.share
        self._last = {"student_text": float(students)}
        if not students:
            return [replace(g, completions=g.completions[: g.chosen], pairs=(), values={}) for g in batch]
        if self.sampler is None:
            sampled = [g.completions[g.chosen :] for g in batch]
        else:
            before = self.sampler.sampled
            sampled = [(text,) for text in self.sampler.draw(step, batch)]
            self._last["sampled_tokens"] = float(self.sampler.sampled - before)
        kept = [g.completions[: g.chosen] if self.both else () for g in batch]
        return [
            replace(g, completions=(*a, *b), chosen=len(a), pairs=(), values={})
            for g, a, b in zip(batch, kept, sampled, strict=True)
        ]

    def metrics(self) -> dict[str, float]:
        """Whether the step took the student's texts, and the tokens sampled for it."""
        return dict(self._last)

    def counts(self) -> dict[str, int]:
        """What was sampled so far."""
        return {} if self.sampler is None else self.sampler.counts()

    def state(self) -> dict[str, Any]:
        """Only counts: the texts are drawn again."""
        return self.counts()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the counts."""
        if self.sampler is not None:
            self.sampler.restore(state)


@dataclass(frozen=True, slots=True)
class _Sampled:
    """A sampled text with what was measured of its L tokens: [L] each."""

    id: str
    prompt: tuple[int, ...]
    text: tuple[int, ...]
    logps: tuple[float, ...]
    rewards: tuple[float, ...]
    weights: tuple[float, ...]


@dataclass
class PolicyRollouts:
    """Rollouts of MiniLLM: sampled for several steps at a time, passed over several times.

    A *set* holds the rollouts of `batches` steps. It is sampled when its first step comes, with the policy of that
    moment, and passed over `passes` times, each time in another order. Prompts come in an order of their own.

    Attributes:
        sampler: draws the texts, from the mixture.
        teacher: rewards them.
        prompts: all there are.
        rewarding: how it does.
        passes: over every set.
        batch_size: prompts a step.
        batches: steps that one pass over a set takes.
        document_weight: of the documents' cross-entropy.
        documents: groups of plain text, of which as many as a step has prompts are trained on beside them.

    Source: MiniLLM (arXiv 2306.08543), algorithm 1; sets and passes as in its published settings.
    """

    sampler: Sampler
    teacher: LiveTeacher
    route: Route
    prompts: Sequence[Group]
    rewarding: Rewarding
    passes: int
    batch_size: int
    batches: int
    seed: int
    document_weight: float = 1.0
    documents: Sequence[Document] = ()
    max_tokens: int | None = None
    _set: int | None = None
    _rollouts: list[_Sampled] = field(default_factory=list[_Sampled])
    _last: dict[str, float] = field(default_factory=dict[str, float])

    def texts(self, step: int, batch: Sequence[Group]) -> list[Group]:
        """The rollouts of a step, and its documents."""
        number, within = divmod(step, self.batches * self.passes)
        before = self.sampler.sampled
        if number != self._set:
            self._collect(number, step)
        passed, at = divmod(within, self.batches)
        order = list(range(len(self._rollouts)))
        random.Random(f"pass:{self.seed}:{number}:{passed}").shuffle(order)
        rollouts = [self._rollouts[i] for i in order[at * self.batch_size : (at + 1) * self.batch_size]]
        count = sum(len(r.rewards) for r in rollouts)
        self._last = {"reward": sum(map(sum, (r.rewards for r in rollouts))) / count}
        self._last["sampled_tokens"] = float(self.sampler.sampled - before)
        return [*self._with_advantages(rollouts), *self._documents(step, tokens=count)]

    def _with_advantages(self, rollouts: Sequence[_Sampled]) -> Iterator[Rollout]:
        parts = self.rewarding.advantages([r.rewards for r in rollouts])
        for r, advantages in zip(rollouts, parts, strict=True):
            yield Rollout(
                r.id,
                r.prompt,
                (r.text,),
                chosen=0,
                old_logps=r.logps,
                advantages=tuple(floats(advantages)),
                weights=r.weights,
            )

    def _documents(self, step: int, tokens: int) -> Iterator[Document]:
        """The step's documents: their mean cross-entropy counts as much as the rollouts' mean loss."""
        if not self.documents:
            return
        first = step * self.batch_size
        chosen = [self.documents[i % len(self.documents)] for i in range(first, first + self.batch_size)]
        total = sum(len(d.completions[0]) for d in chosen)
        for number, d in enumerate(chosen):
            scale = self.document_weight * tokens / total
            yield replace(d, id=f"{d.id}#{number}", scale=scale)

    def _collect(self, number: int, step: int) -> None:
        """Sample a set and measure it."""
        size = self.batches * self.batch_size
        prompts = [self._prompt(i) for i in range(number * size, (number + 1) * size)]
        texts = self.sampler.draw(step, prompts)
        groups = [Group(g.id, g.prompt, (text,), 0) for g, text in zip(prompts, texts, strict=True)]
        self._set, self._rollouts = number, []
        for group, student, teacher in self._measured(groups):
            numbers = (student, *self.rewarding.of_text(teacher, student))
            logps, rewards, weights = (tuple(floats(values)) for values in numbers)
            self._rollouts.append(_Sampled(group.id, group.prompt, group.completions[0], logps, rewards, weights))

    def _prompt(self, i: int) -> Group:
        """The i-th prompt of an endless sequence of passes, each in another order."""
        passed, at = divmod(i, len(self.prompts))
        order = list(range(len(self.prompts)))
        random.Random(f"prompts:{self.seed}:{passed}").shuffle(order)
        return self.prompts[order[at]]

    @torch.no_grad()
    def _measured(self, groups: Sequence[Group]) -> Iterator[tuple[Group, torch.Tensor, torch.Tensor]]:
        """Each group with the log-probabilities [L] of its text's tokens by student and teacher."""
        model = self.sampler.policy.model
        with evaluating(model):
            for row in pack(groups, self.max_tokens):
                student = score(model, row, route=self.route).logps
                teacher = score(self.teacher.model, row, route=self.teacher.route).logps.to(student)
                lengths = [len(group.completions[0]) for group in row]
                yield from zip(row, torch.split(student, lengths), torch.split(teacher, lengths), strict=True)

    def metrics(self) -> dict[str, float]:
        """Mean reward of the step's tokens, and the tokens sampled for it."""
        return dict(self._last)

    def counts(self) -> dict[str, int]:
        """What was sampled so far, and of how many different prompts."""
        drawn = 0 if self._set is None else (self._set + 1) * self.batches * self.batch_size
        return {**self.sampler.counts(), "prompts": min(len(self.prompts), drawn)}

    def state(self) -> dict[str, Any]:
        """Counts and the current set."""
        names = _Sampled.__slots__
        rollouts = [{name: getattr(r, name) for name in names} for r in self._rollouts]
        return {**self.counts(), "set": self._set, "rollouts": rollouts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the set of a checkpoint."""
        self.sampler.restore(state)
        self._set, self._rollouts = state["set"], []
        for r in state["rollouts"]:
            numbers = {name: tuple(r[name]) for name in _Sampled.__slots__ if name != "id"}
            self._rollouts.append(_Sampled(r["id"], **numbers))


def batches_of_a_set(rollouts: int, batch_size: int, epochs: int, steps: int) -> int:
    """Steps that one pass over a set takes: enough for `rollouts` prompts, but at least one set within `steps`."""
    return max(1, min(-(-rollouts // batch_size), steps // epochs))


@dataclass(frozen=True, slots=True)
class StudentSampling:
    """A student that is about to be trained, and what its own texts are sampled with meanwhile.

    Attributes:
        name: of the method.
        policy: as it is trained: with its adapter.
        teacher: predicts the same tokens.
        prompts: all there are.
        probe: the longest of them.
        steps: that will be taken.
        batch: prompts a step.
        max_new_tokens, slots: of a sampled text; texts in progress at once.
        seed: the run's.
        documents: plain text that is trained on beside.
        max_tokens: most tokens in one forward pass; None for one group a pass.
    """

    name: str
    policy: Policy
    teacher: Teacher
    prompts: Sequence[Group]
    probe: Group
    steps: int
    batch: int
    max_new_tokens: int
    slots: int
    seed: int
    documents: Sequence[Document] = ()
    max_tokens: int | None = None

    def sampler(self, temperature: float, teacher: LiveTeacher | None = None, mix: float = 0.0) -> Sampler:
        """Samples the student, with a share of the teacher mixed in."""
        return Sampler(self.policy, self.name, temperature, self.max_new_tokens, self.slots, self.seed, teacher, mix)


def rollouts_of(
    student: StudentSampling, rewarding: Rewarding, wanted: int, passes: int, document_weight: float
) -> PolicyRollouts:
    """Rollouts of a student, `wanted` prompts at a time where its steps suffice for that many."""
    batches = batches_of_a_set(wanted, student.batch, passes, student.steps)
    if batches * student.batch < wanted:
        several = batches * student.batch
        log.info("%s: %d rollouts at a time, as %d steps don't suffice for more", student.name, several, student.steps)
    assert isinstance(student.teacher, LiveTeacher)
    return PolicyRollouts(
        student.sampler(1.0, student.teacher, rewarding.mix),
        student.teacher,
        checked_route(student.policy.model, student.probe, log.warning),
        student.prompts,
        rewarding,
        passes,
        student.batch,
        batches,
        student.seed,
        document_weight,
        student.documents,
        student.max_tokens,
    )
