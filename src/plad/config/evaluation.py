"""What is measured on the test rows."""

from pydantic import Field, model_validator

from plad.config.base import PositiveInt, Section
from plad.config.baselines import Baselines
from plad.config.judges import Judge, ReferenceJudge


class CalibrationSection(Section):
    """Whether the student finds the better of several texts the likelier one, before and after distillation."""

    rows: PositiveInt = Field(default=64, description="Test prompts, from the first on.")
    samples: PositiveInt = Field(default=2, description="Answers a prompt of the fine-tuned student.")
    teacher_samples: int | None = Field(
        default=None,
        ge=0,
        description="Answers a prompt of the teacher. Default: `samples` of one in this process, none of one behind an "
        "endpoint or in a file, which may cost money or have no more.",
    )
    temperature: float = Field(default=0.7, gt=0, description="Temperature of these answers.")


class EvaluateSection(Section):
    judges: tuple[Judge, ...] = (ReferenceJudge(),)
    rouge: bool = Field(default=True, description="ROUGE-1, ROUGE-2 and ROUGE-L F1 against the best reference.")
    stemmer: bool = Field(default=False, description="Porter-stem English words before ROUGE.")
    temperature: float = Field(default=0.0, ge=0, description="Temperature of the evaluated answers; 0 is greedy.")
    max_new_tokens: PositiveInt | None = Field(default=None, description="Default: `generate.max_new_tokens`.")
    limit: PositiveInt | None = Field(default=None, description="Evaluate only the first N test rows.")
    bootstrap: PositiveInt = Field(default=10_000, description="Resamples of the paired bootstrap over prompts.")
    calibration: CalibrationSection | None = Field(
        default=CalibrationSection(),
        description="Calibration of likelihoods; it asks for further answers. null switches it off.",
    )
    baselines: Baselines = Field(
        default=(),
        description="Methods to train and evaluate beside the student, from the same fine-tuned student with as many "
        "updates: seqkd, kd, f_distill-js, minillm, gkd, distillm, or objectives as in `distill.objective`; sft is the "
        "fine-tuned student itself.",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> "EvaluateSection":
        names = [b.name for b in self.baselines]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise ValueError(f"two baselines are called {twice}: give one a `name` of its own")
        return self
