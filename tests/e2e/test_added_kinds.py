"""An objective that somebody else's package adds: one file and one line of metadata, and plad trains with it."""

import json
from pathlib import Path

import pytest

from tests.support.command import plad
from tests.support.task import write_task

IPO = '''
"""Identity preference optimisation (Azar et al., arXiv 2310.12036, Eq. 17)."""

from typing import Literal

from pydantic import Field

from plad.objectives.preference import DpoObjective


class IpoObjective(DpoObjective):
    """The margin over the starting student is drawn to 1 / (2 tau)."""

    type: Literal["ipo"] = "ipo"
    tau: float = Field(default=0.1, gt=0, description="Strength of the regularisation.")

    def formula(self):
        return f"identity preference optimisation (IPO): tau {self.tau:g}"

    def of_pairs(self, pairs):
        _, metrics = super().of_pairs(pairs)
        reference = pairs.reference_logps()
        margin = pairs.chosen - pairs.rejected - (reference[pairs.better] - reference[pairs.worse])
        return (margin - 1 / (2 * self.tau)) ** 2, metrics
'''


def install(folder: Path, modules: dict[str, str], entries: dict[str, dict[str, str]]) -> None:
    """What pip would leave of a package in a folder of `sys.path`: its modules and its metadata."""
    metadata = folder / "somebodys-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n")
    groups = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in names.items()) for group, names in entries.items()]
    (metadata / "entry_points.txt").write_text("\n".join(groups))
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment with that package."""
    install(tmp_path / "site", {"somebodys": IPO}, {"plad.objectives": {"ipo": "somebodys:IpoObjective"}})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=":")


@pytest.mark.usefixtures("package")
def test_a_run_trains_and_reports_what_a_package_adds(tmp_path: Path) -> None:
    """Before the first step the margin is 0: the loss of a pair is (0 - 1 / (2 x 0.5))^2 = 1."""
    config = write_task(tmp_path / "task", distill__objective={"type": "ipo", "tau": 0.5})
    plad("run", config)
    rows = [json.loads(row) for row in (tmp_path / "task/run/metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["stage"] == "distill" and "loss" in row]
    assert losses[0] == pytest.approx(1.0, abs=1e-4)
    card = (tmp_path / "task/run/student/README.md").read_text(encoding="utf-8")
    assert "identity preference optimisation (IPO): tau 0.5" in card


@pytest.mark.usefixtures("package")
def test_its_settings_are_checked_and_its_name_is_offered(tmp_path: Path) -> None:
    config = write_task(tmp_path / "task", distill__objective={"type": "ipo", "tau": -1})
    assert "distill.objective.tau" in plad("validate", config, code=2)
    assert " ipo " in plad("validate", config, "distill.objective={type: nothing}", code=2)
