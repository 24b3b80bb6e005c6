"""An objective of another package: one class behind an entry point, and no file of plad knows of it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.command import environment, plad_command, write_package
from tests.support.task import write_task

IPO = '''
"""Identity preference optimisation."""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from plad.config.objectives import Needs
from plad.objectives.pairs import PairObjective, Pairs


def ipo(chosen, rejected, chosen_reference, rejected_reference, *, tau):
    """(log P(y+) / P_0(y+) - log P(y-) / P_0(y-) - 1 / (2 tau))^2.

    Source: Azar et al. (arXiv 2310.12036), Eq. 17.
    """
    return ((chosen - chosen_reference) - (rejected - rejected_reference) - 1 / (2 * tau)) ** 2


class IpoObjective(PairObjective):
    """Identity preference optimisation (IPO)."""

    type: Literal["ipo"] = "ipo"
    tau: float = Field(default=0.1, gt=0, description="Strength of the tie to the starting student.")

    @property
    def needs(self) -> Needs:
        return replace(super().needs, reference_logps=True)

    def formula(self):
        return f"identity preference optimisation (IPO): tau {self.tau:g}"

    def of_pairs(self, pairs: Pairs):
        reference = pairs.reference_logps()
        better, worse = reference[pairs.better], reference[pairs.worse]
        return ipo(pairs.chosen, pairs.rejected, better, worse, tau=self.tau), {}
'''


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment in which a package with IPO is installed."""
    site = write_package(tmp_path / "site", "plad_ipo", IPO, ("plad.objectives", "ipo", "IpoObjective"))
    return {**environment(), "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}


def plad(env: dict[str, str], *arguments: str | Path, code: int = 0) -> str:
    done = subprocess.run(plad_command(*arguments), env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_an_objective_of_another_package_trains_a_student_and_stands_in_its_card(
    tmp_path: Path, installed: dict[str, str]
) -> None:
    """One step of all pairs; before it nothing has moved, so that the loss is (0 - 1 / (2 * 0.5))^2 = 1."""
    config = write_task(
        tmp_path / "task",
        sft__epochs=2,
        distill__batch_size=12,
        distill__objective={"type": "ipo", "tau": 0.5},
        distill__validation={"evaluations": 0},
    )
    plad(installed, "run", config, "--to", "distill")
    run = tmp_path / "task/run"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (step,) = [row for row in rows if row["stage"] == "distill" and "loss" in row]
    assert step["loss"] == pytest.approx(1.0, abs=1e-3)
    assert (
        "identity preference optimisation (IPO): tau 0.5, log-likelihood of a text"
        in (run / "student/README.md").read_text()
    )
    assert (run / "student/model.safetensors").is_file()


def test_its_settings_and_its_name_are_checked_like_any_others(tmp_path: Path, installed: dict[str, str]) -> None:
    config = write_task(tmp_path / "task")
    assert "did you mean distill.objective.tau?" in plad(
        installed, "validate", config, "distill.objective={type: ipo, tao: 1}", code=2
    )
    unknown = plad(installed, "validate", config, "distill.objective={type: ipa}", code=2)
    assert " ipo " in " ".join(unknown.split())
    plad(installed, "validate", config, "evaluate.baselines=[ipo-sum]")
    assert "type must be" in plad(environment(), "validate", config, "distill.objective={type: ipo}", code=2)
