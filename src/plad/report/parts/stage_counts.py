"""What a report reads of the counts that stages leave in the manifest."""

from pydantic import BaseModel, ConfigDict, Field

from plad.evaluate.metrics import Estimate


class DataCounts(BaseModel):
    """Rows by their use; of those skipped and left out, by file."""

    sft: int = 0
    distill: int = 0
    skipped: dict[str, int] = {}
    overlap: dict[str, int] = {}

    @property
    def read(self) -> int:
        """Rows in the training file."""
        return self.sft + self.distill + self.skipped.get("train", 0) + self.overlap.get("train", 0)


class Scorer(BaseModel):
    """Who scored pairs."""

    name: str


class WrongShare(Estimate):
    """Share of pseudo-pairs whose student's answer is the better one."""

    wrong: int = 0
    pairs: int = 0


class WrongPairs(WrongShare):
    """The same by the words of that answer, too."""

    by_words: dict[str, WrongShare] = Field(default={})


class PairCounts(BaseModel):
    """Pairs from sampling to training; `dropped_REASON` stand beside the named ones."""

    model_config = ConfigDict(extra="allow")

    candidates: int = 0
    pairs: int = 0
    swapped: int = 0
    scorer: Scorer | None = None
    scored: dict[str, int] | None = None
    wrong: WrongPairs | None = None

    @property
    def dropped(self) -> dict[str, int]:
        """Pairs that were left out, by reason."""
        extra = (self.model_extra or {}).items()
        return {k.removeprefix("dropped_"): int(v) for k, v in extra if k.startswith("dropped_")}


class Validated(BaseModel):
    """A student's figures on validation; None where nothing measured them."""

    win_rate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    rougeL: float | None = None  # noqa: N815  # the metric's name
    words: float | None = None
    ended: float | None = None

    @property
    def rate(self) -> Estimate:
        """The win rate with its interval."""
        return Estimate(value=self.win_rate, low=self.low, high=self.high, n=self.n)


class Candidate(BaseModel):
    """One of the objectives that `auto` trained."""

    name: str
    seconds: float
    validation: Validated | None = None


class RoundCounts(BaseModel):
    """A round's student, and how it stands against the teacher on the prompts `met_on`."""

    validation: Validated
    teacher_student: Estimate
    met_on: str = ""
    pairs: int | None = None


class Kept(BaseModel):
    """The step whose weights were kept."""

    step: int


class DistillCounts(BaseModel):
    """What distillation chose, and what it saw on the way.

    Attributes:
        chosen_by: what the weights, the candidate and the round were chosen by; empty where an earlier version did.
        alarms, withdrawn: signs of collapse in the weights that were kept; and those that others showed on the way.
        chosen: name of the candidate that was kept.
        stopped: why no further round was made; None where as many were made as were asked for.
        stage: the training run whose student was kept.
    """

    alarms: tuple[str, ...] = ()
    chosen_by: str = ""
    withdrawn: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    chosen: str | None = None
    rounds: tuple[RoundCounts, ...] = ()
    kept_round: int = 0
    stopped: str | None = None
    stage: str = "distill"
    too_long: int = 0
    best: Kept | None = None

    @property
    def best_step(self) -> int | None:
        """After which the weights stood that were kept; None where nothing validated."""
        return self.best.step if self.best else None
