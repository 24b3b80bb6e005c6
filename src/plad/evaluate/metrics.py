"""What eval/metrics.json holds, typed, with its only reader and its only writer.

Every figure that can't be said is None, never NaN. A figure that was not measured is left out of the file: its field
is not set, and has its default here.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from plad.errors import RunDirError
from plad.judges.facts import JudgeFacts
from plad.records import STUDENT, STUDENT_SFT
from plad.rundir.atomic import write_json
from plad.rundir.reading import reading

FILE, SCHEMA = "eval/metrics.json", 1
TextMetric = Literal["rouge1", "rouge2", "rougeL", "words"]


class Figures(BaseModel):
    """Base of all parts: frozen; only fields that were set are written."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, protected_namespaces=())

    def to_json(self) -> dict[str, Any]:
        """The fields that were set, as in the file."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class _Tested(Figures):
    p: float | None = None


class Estimate(Figures):
    """A mean over prompts with its 95 % interval.

    Attributes:
        value: the mean; None without values.
        low, high: the interval; None where none can be given.
        n: prompts.
        seeds, sd_seeds: of a mean over runs: their number, and the spread of their means.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    seeds: int | None = None
    sd_seeds: float | None = None


class Power(Figures):
    """How many prompts a test would need.

    Attributes:
        effect: mean of the differences; of a win rate, its value less 0.5.
        sd: of one prompt.
        prompts_needed: to see this effect in 80 % of test sets at the 5 % level.
        detectable: the effect that the present prompts see so.
    """

    effect: float | None = None
    sd: float | None = None
    prompts_needed: int | None = None
    detectable: float | None = None


class LengthControlled(Estimate):
    """A win rate, or a difference of two, at equal length; `slope` is above 0 where longer answers win."""

    slope: float | None = None


class LengthBin(Figures):
    """The estimate of the prompts whose answer has more than `words_above` words, up to and with `words_to`.

    Attributes:
        words_above: None in the first bin.
        words_to: None in the last bin.
        p: only of a difference.
    """

    words_above: int | None = None
    words_to: int | None = None
    p: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0


class Difference(Estimate, _Tested):
    """A paired difference of two systems.

    Attributes:
        p: two-sided p-value of "the mean is 0", by a sign-flip permutation test.
        sign_test_p: exact p-value of "a prompt that moves is as likely to move up as down".
        length_controlled, by_length: of win rates only.
        p_holm: `p` corrected for the number of methods compared.
    """

    sign_test_p: float | None = None
    power: Power = Power()
    length_controlled: LengthControlled | None = None
    by_length: tuple[LengthBin, ...] = ()
    p_holm: float | None = None


class WinRate(Estimate):
    """Mean points a prompt (win 1, tie 0.5, loss 0), with its 95 % interval.

    Attributes:
        wins, ties, losses: judged answers; they add up to n with one answer a prompt.
        unjudged: answers the judge couldn't judge.
        sign_test_p: exact p-value of "wins and losses are as likely", over prompts.
        power: its effect is the value less 0.5.
    """

    wins: int = 0
    ties: int = 0
    losses: int = 0
    unjudged: int = 0
    sign_test_p: float | None = None
    power: Power = Power()
    length_controlled: LengthControlled | None = None
    by_length: tuple[LengthBin, ...] = ()


class HeadToHead(WinRate, _Tested):
    """How often one system's answer beats another's; `p` is that of the sign test.

    Attributes:
        p_holm: `p` corrected for the number of methods compared.
    """

    p_holm: float | None = None


class Histogram(Figures):
    """Counts of words; a bin holds what is above its lower edge, up to and with its upper one. The ends are open."""

    edges: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()


class Length(Figures):
    """How many words answers have; quantiles are named min, p5, p25, p50, p75, p95, max."""

    quantiles: dict[str, float | None] = {}
    histogram: Histogram = Histogram()


class SystemFigures(Figures):
    """What was measured of one system's answers.

    Attributes:
        win_rate: against the human target, by judge; empty of the target.
        rouge1, rouge2, rougeL: F1 against the best reference; None where ROUGE is switched off.
        distinct: different n-grams of all answers over all n-grams, by n.
        repetition, copied, novel: shares of n-grams, see `method`.
        truncated, too_long, ended, empty: shares of answers; None of the target.
        same_as_sft: share of answers that are the fine-tuned student's.
    """

    win_rate: dict[str, WinRate] = {}
    rouge1: Estimate | None = None
    rouge2: Estimate | None = None
    rougeL: Estimate | None = None  # noqa: N815  # the metric's name
    words: Estimate | None = None
    distinct: dict[str, float | None] = {}
    repetition: Estimate | None = None
    copied: Estimate | None = None
    novel: Estimate | None = None
    length: Length | None = None
    truncated: float | None = None
    too_long: float | None = None
    ended: float | None = None
    empty: float | None = None
    same_as_sft: float | None = None

    def metric(self, name: TextMetric) -> Estimate | None:
        """ROUGE or words by name."""
        return getattr(self, name)


class SystemDifference(Figures):
    """One system less another, paired over prompts: win rates by judge, ROUGE, words.

    Attributes:
        against: how often the one beats the other, by judge; of judges that can't compare most rows with the target.
    """

    win_rate: dict[str, Difference] = {}
    against: dict[str, HeadToHead] = {}
    rouge1: Difference | None = None
    rouge2: Difference | None = None
    rougeL: Difference | None = None  # noqa: N815
    words: Difference | None = None

    def metric(self, name: TextMetric) -> Difference | None:
        """ROUGE or words by name."""
        return getattr(self, name)


class Agreement(Figures):
    """Of two raters: share of equal verdicts, and Cohen's kappa with its interval over `n` comparisons."""

    same: float | None = None
    kappa: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0


class Cost(Figures):
    """What a student cost; None where an earlier version counted otherwise.

    Attributes:
        seconds: of training, warm-up and sampling in it, and of the teacher's pass where its logits are stored.
        peak_memory: bytes.
        tokens_cached, tokens_fresh: of the answers it learnt from: there before, sampled while training.
        targets: whether it read the human targets of the distillation half.
    """

    updates: int | None = None
    prompts: int | None = None
    seconds: float | None = None
    peak_memory: int | None = None
    tokens_cached: int | None = None
    tokens_fresh: int | None = None
    targets: bool | None = None


class MethodComparison(Figures):
    """The baselines beside the student, and what each system cost."""

    methods: tuple[str, ...] = ()
    costs: dict[str, Cost] = {}


class ReliabilityBin(Figures):
    """How often the likelier text was the better one (`value`), where the model's confidence was `start` to `end`.

    Attributes:
        confidence: mean.
        pairs: of texts.
    """

    start: float = Field(validation_alias="from", serialization_alias="from")
    end: float = Field(validation_alias="to", serialization_alias="to")
    confidence: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = 0


class LikelihoodCalibration(Figures):
    """How well a model's likelihoods order the texts of a prompt by quality.

    Attributes:
        ece: expected calibration error over the bins of `reliability`.
        pairs: of texts of different quality.
        no_order: prompts left out, whose texts all have one quality.
    """

    kendall: Estimate = Estimate()
    spearman: Estimate = Estimate()
    pairwise_accuracy: Estimate = Estimate()
    ece: Estimate = Estimate()
    reliability: tuple[ReliabilityBin, ...] = ()
    pairs: int = 0
    no_order: int = 0


class CalibrationDifference(Figures):
    """What changed between two models on the same texts; of `ece` with an interval and no p-value."""

    kendall: Difference = Difference()
    spearman: Difference = Difference()
    pairwise_accuracy: Difference = Difference()
    ece: Difference = Difference()


class CalibrationChange(Figures):
    """Before distillation, after it, and the difference.

    Attributes:
        own: the same on the fine-tuned student's own texts alone, where others wrote some too.
    """

    before: LikelihoodCalibration = Field(
        default=LikelihoodCalibration(), validation_alias=STUDENT_SFT, serialization_alias=STUDENT_SFT
    )
    after: LikelihoodCalibration = Field(
        default=LikelihoodCalibration(), validation_alias=STUDENT, serialization_alias=STUDENT
    )
    difference: CalibrationDifference = CalibrationDifference()
    own: "CalibrationChange | None" = None


class CalibrationFigures(Figures):
    """The likelihood calibration of the student before and after distillation.

    Attributes:
        prompts, texts: that were scored.
        left_out: texts and prompts that were not, by reason.
        samples: answers asked a prompt, by system.
        writers: systems whose texts there are.
        judges: by the judge that says what is better.
    """

    prompts: int = 0
    texts: int = 0
    left_out: dict[str, int] = {}
    samples: dict[str, int] = {}
    temperature: float = 0.0
    writers: tuple[str, ...] = ()
    judges: dict[str, CalibrationChange] = {}
    method: dict[str, str] = {}


class ModelFacts(Figures):
    """What a model is; None where it is not here to be looked at.

    Attributes:
        parameters: an adapter's among them.
        disk: bytes of the stored weights.
        dtype: that most of them are stored in.
        licence: of the model that it was made from, as the card of that names it.
    """

    name: str
    parameters: int | None = None
    layers: int | None = None
    disk: int | None = None
    dtype: str | None = None
    licence: str | None = None


class Metrics(Figures):
    """The contents of eval/metrics.json.

    Attributes:
        n: test prompts.
        runs: of a mean over seeds: their names.
        systems: by name, the human target among them.
        differences: by "A - B".
        teacher_student_win_rate: the teacher against the fine-tuned student on the distillation prompts, by judge.
        agreement: by "J and K".
        method: what was done and by which rules, in words; the judges' facts are in `judges`.
        warnings: what a reader has to know first.
        comparison: None without baselines.
        calibration: None where it is switched off.
        models: teacher and student; empty in runs of earlier versions.
    """

    version: int = Field(default=SCHEMA, validation_alias="schema", serialization_alias="schema")
    n: int = 0
    runs: tuple[str, ...] = ()
    systems: dict[str, SystemFigures]
    differences: dict[str, SystemDifference] = {}
    teacher_student_win_rate: dict[str, WinRate] = {}
    agreement: dict[str, Agreement] = {}
    method: dict[str, JsonValue] = {}
    warnings: tuple[str, ...] = ()
    comparison: MethodComparison | None = None
    calibration: CalibrationFigures | None = None
    models: dict[str, ModelFacts] = {}

    @property
    def judges(self) -> dict[str, JudgeFacts]:
        """What the judges say of themselves, by name."""
        described = self.method.get("judges")
        facts = described.items() if isinstance(described, dict) else ()
        return {name: JudgeFacts.of(value) for name, value in facts}

    def difference(self, ours: str, theirs: str) -> SystemDifference | None:
        """One system less another; None where the two were not compared."""
        return self.differences.get(f"{ours} - {theirs}")

    @classmethod
    def read(cls, run: Path) -> Self:
        """The figures of a run.

        Raises:
            RunDirError: it was not evaluated yet, or the file is damaged.
        """
        file = run / FILE
        if not file.exists():
            raise RunDirError("not evaluated yet", where=str(run), fix="plad evaluate CONFIG")
        with reading(file):
            return cls.model_validate_json(file.read_bytes())

    def write(self, run: Path) -> None:
        """Write them whole or not at all."""
        write_json(run / FILE, self.to_json())
