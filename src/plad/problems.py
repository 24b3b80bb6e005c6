"""Several problems reported as one error."""

from collections.abc import Sequence

from plad.errors import PladError


class ProblemsError(PladError):
    """All problems of a check that goes on after the first; each keeps its own place and way out."""

    def __init__(self, problems: Sequence[PladError]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([f"{len(problems)} problems", *map(str, problems)]))


def join(problems: Sequence[PladError]) -> PladError:
    """One error that says what all of them say; a single problem is itself."""
    flat = [p for problem in problems for p in (problem.problems if isinstance(problem, ProblemsError) else [problem])]
    return flat[0] if len(flat) == 1 else ProblemsError(flat)
