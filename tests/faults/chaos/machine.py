"""Sequences drawn by hypothesis, run and counted; a failed one is kept as steps, and the next one goes on."""

import contextlib
import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture.engine import ConjectureRunner
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from hypothesis.strategies import SearchStrategy

from plad.pipeline.stage import NAMES
from tests.faults.chaos.steps import CHANGES, HOWS, LOOKS, STORMS, do
from tests.faults.chaos.world import STARTS, Lab, Step, Tally, World

ZYGOTE = st.integers(0, 1)
THOUSANDTHS = st.integers(0, 999)
STAGE = st.integers(0, len(NAMES) - 1)


def drawn(name: str, **numbers: SearchStrategy[Any]) -> SearchStrategy[Step]:
    """A step of a kind with its numbers."""
    return st.fixed_dictionaries(numbers).map(lambda chosen: (name, chosen))


STEP = st.one_of(
    drawn("go_on", to=STAGE, zygote=ZYGOTE),
    drawn("strike", kind=st.just("SIGKILL"), at=THOUSANDTHS, zygote=ZYGOTE),
    drawn("strike", kind=st.just("SIGKILL"), at=THOUSANDTHS, zygote=ZYGOTE),
    drawn("strike", kind=st.sampled_from(["SIGTERM", "SIGINT"]), at=THOUSANDTHS, zygote=ZYGOTE),
    drawn("strike", kind=st.just("full"), at=THOUSANDTHS, zygote=ZYGOTE),
    drawn("kill_after", ms=st.integers(1, 3000), zygote=ZYGOTE),
    drawn("small_files", kib=st.integers(16, 160), zygote=ZYGOTE),
    drawn("damage", which=st.integers(0, 99), how=st.sampled_from(HOWS), place=THOUSANDTHS),
    drawn("damage", which=st.integers(0, 99), how=st.sampled_from(HOWS), place=THOUSANDTHS),
    drawn("change_and_back", which=st.integers(0, len(CHANGES) - 1), to=STAGE, zygote=ZYGOTE),
    drawn("storm", kind=st.sampled_from(STORMS), after=st.integers(0, 12), zygote=ZYGOTE),
    drawn("move", copy=st.booleans()),
    drawn("look", which=st.integers(0, len(LOOKS) - 1), reader=st.booleans(), zygote=ZYGOTE),
    drawn("readonly", zygote=ZYGOTE),
    drawn("second", ms=st.integers(0, 1500), which=st.integers(0, len(LOOKS))),
)


@dataclass
class Failure:
    """A sequence that broke an invariant."""

    what: str
    steps: list[Step]

    def told(self) -> str:
        """With the command that runs it again."""
        return f"{self.what}\nagain with: python -m tests.faults.chaos --replay '{json.dumps(self.steps)}'"


@dataclass
class Outcome:
    """What sequences came to."""

    tally: Tally = field(default_factory=Tally)
    failures: list[Failure] = field(default_factory=list)
    sequences: int = 0
    commands: int = 0
    cpu_s: float = 0.0

    def attempt(self, world: World, act: Callable[[World], None]) -> None:
        """Keep what breaks, and let the rest of that sequence be."""
        if world.broken:
            return
        try:
            act(world)
        except Exception as e:
            world.broken = True
            what = str(e) if isinstance(e, AssertionError) else traceback.format_exc()
            what += f"\ndamaged: {', '.join(world.damaged)}" if world.damaged else ""
            self.failures.append(Failure(what, world.steps))
            print(f"\nBROKEN {self.failures[-1].told()}", flush=True)


def search(lab: Lab, sequences: int, seed: int | None = None, steps: int = 4) -> Outcome:
    """Draw sequences and run them.

    Args:
        seed: of the draws; None for the same sequences every time.
        steps: most steps of a sequence.
    """
    outcome = Outcome()
    options = settings(
        max_examples=sequences,
        stateful_step_count=steps,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        derandomize=seed is None,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    chaos = machine(lab, outcome)
    if seed is not None:
        chaos = hypothesis.seed(seed)(chaos)
    # hypothesis would run five copies of each sequence in which one step stands twice: few new ones
    with patch.object(ConjectureRunner, "generate_mutations_from", lambda *_: None):
        run_state_machine_as_test(chaos, settings=options)
    return outcome


def replay(lab: Lab, steps: Sequence[Step]) -> Outcome:
    """Run the steps of one sequence again."""
    outcome = Outcome(sequences=1)
    (_, begin), *rest = steps
    world = World(lab, outcome.tally, begin["at"])
    for name, numbers in rest:
        outcome.attempt(world, lambda w, name=name, numbers=numbers: do(w, name, **numbers))
    outcome.attempt(world, World.finish)
    world.close()
    return outcome


def machine(lab: Lab, outcome: Outcome) -> type[RuleBasedStateMachine]:
    """The state machine of this lab."""

    class Chaos(RuleBasedStateMachine):
        world: World | None = None

        @initialize(at=st.sampled_from(STARTS))
        def start(self, at: str) -> None:
            outcome.sequences += 1
            self.world = World(lab, outcome.tally, at)

        @rule(step=STEP)
        def step(self, step: Step) -> None:
            assert self.world is not None
            outcome.attempt(self.world, lambda world: do(world, step[0], **step[1]))

        def teardown(self) -> None:
            if self.world is not None:
                outcome.attempt(self.world, World.finish)
                self.world.close()

    return Chaos


def in_lab(act: Callable[..., Outcome], *given: Any) -> Outcome:
    """Search or replay with a lab of its own."""
    with contextlib.closing(Lab()) as lab:
        outcome = act(lab, *given)
        outcome.commands, outcome.cpu_s = lab.commands, lab.cpu_s
        return outcome
