"""`plad reward CONFIG`: from labelled preferences to a reward model that is measured on preferences it never saw."""

import contextlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plad.config.extras import RewardTraining
from plad.data.preferences import Preference, read_preferences
from plad.data.sources import locate, source_fingerprint
from plad.data.split import nested_share, prompt_key
from plad.errors import DataError, RunDirError
from plad.records import Example
from plad.rundir.atomic import atomic_dir, is_complete, verify_dir, write_json, write_text
from plad.rundir.fingerprint import fingerprint
from plad.rundir.lock import acquire

if TYPE_CHECKING:
    from plad.extras.reward.train import Backbone

log = logging.getLogger("plad")

RESAMPLES = 2000
FACTS = "reward.json"
_APART = ("model", "revision", "data")  # recorded by what they hold


def train(section: RewardTraining, base: Path, *, skip_invalid: bool = False) -> dict[str, Any]:
    """Train a reward model, measure it, and write it whole; a finished one with the same settings is left as it is.

    Args:
        base: where relative model and data paths start.
        skip_invalid: drop and count rows that can't be used.

    Returns:
        The contents of `reward.json`.

    Raises:
        RunDirError: `out` holds something else.
        DataError: no preference can be used, or none is left to measure with.
        TrainingError: the loss is not finite, or a checkpoint is damaged or of other settings.
    """
    from plad.policy.fingerprint import model_fingerprint

    model = locate(section.model, base)
    sources = [s for s in (section.data.train, section.data.validation) if s is not None]
    made_from = {
        **section.shaping(apart=_APART),
        "data": section.data.shaping(apart=("train", "validation")),
        "files": [source_fingerprint(s, base) for s in sources],
        "weights": model_fingerprint(model, section.revision),
    }
    key = fingerprint(made_from)
    done = _finished(section.out, key)
    if done is not None:
        log.info("done before")
        return done
    train_rows, held_out, counts = _preferences(section, base, skip_invalid)
    log.info("%d preferences to train on, %d held out", len(train_rows), len(held_out))
    return _train_and_write(section, model, train_rows, held_out, counts, key)


def _finished(out: Path, key: str) -> dict[str, Any] | None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    facts = out / FACTS
    if not is_complete(out) or not facts.is_file():
        raise RunDirError("exists and holds no reward model of plad", where=f"out={out}", fix="name a new folder")
    verify_dir(out)
    found = json.loads(facts.read_text(encoding="utf-8"))
    if found["key"] != key:
        raise RunDirError(
            "holds a reward model of other settings or data",
            where=f"out={out}",
            fix="out=NEW keeps it and trains another\nor delete the folder",
        )
    return found


def _preferences(
    section: RewardTraining, base: Path, skip_invalid: bool
) -> tuple[list[Preference], list[Preference], dict[str, Any]]:
    """Preferences to train on and to measure with, no prompt in both; ties teach nothing here."""
    data = section.data
    options: dict[str, Any] = {"limit": data.limit, "skip_invalid": skip_invalid, "base": base}
    found = read_preferences(data.train, data.columns, **options)
    counts = {"rows": len(found.rows), "identical": found.identical, "skipped": found.skipped}
    rows = [r for r in found.rows if not r.tie]
    counts["ties"] = len(found.rows) - len(rows)
    if data.validation is None:
        prompts = [Example(r.id, r.prompt) for r in rows]
        kept = {prompt_key(e.prompt) for e in nested_share(prompts, data.held_out, section.seed, "reward")}
        held_out = [r for r in rows if prompt_key(r.prompt) in kept]
    else:
        held_out = [r for r in read_preferences(data.validation, data.columns, **options).rows if not r.tie]
        kept = {prompt_key(r.prompt) for r in held_out}
    train_rows = [r for r in rows if prompt_key(r.prompt) not in kept]
    counts["prompts_held_out_too"] = len(rows) - len(train_rows) if data.validation is not None else 0
    if not train_rows or not held_out:
        raise DataError(
            f"{len(train_rows)} preferences are left to train on and {len(held_out)} to measure with",
            where="data",
            fix="give more rows with different prompts, or another data.held_out",
        )
    return train_rows, held_out, counts


def _train_and_write(
    section: RewardTraining,
    model: str,
    train_rows: Sequence[Preference],
    held_out: Sequence[Preference],
    counts: Mapping[str, Any],
    key: str,
) -> dict[str, Any]:
    from plad.extras.reward.train import Backbone, train_reward

    checkpoints = section.out.with_name(f"{section.out.name}.checkpoints")
    checkpoints.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(acquire(checkpoints)):
        for left in section.out.parent.glob(f".{section.out.name}.*.tmp"):  # by a killed write
            shutil.rmtree(left)
        backbone = Backbone(section, model)
        trained = train_reward(backbone, train_rows, section, checkpoints, key)
        facts = _write(section, backbone, trained, held_out, counts, key)
        shutil.rmtree(checkpoints)
    return facts


def _write(
    section: RewardTraining,
    backbone: "Backbone",
    trained: Mapping[str, Any],
    held_out: Sequence[Preference],
    counts: Mapping[str, Any],
    key: str,
) -> dict[str, Any]:
    from plad.extras.reward.card import card
    from plad.extras.reward.train import save_model
    from plad.judges.base import JudgeResources
    from plad.judges.reward import RewardJudge

    with atomic_dir(section.out) as staging:
        save_model(backbone, staging)
        judge = RewardJudge(model=str(staging), dtype=section.dtype).open(JudgeResources())  # as it will be used
        facts = {
            "key": key,
            "model": section.model,
            "settings": section.shaping(apart=_APART),
            "data": {**counts, "held_out": len(held_out)},
            "training": trained,
            "held_out": measure(judge, held_out, seed=section.seed),
            "judge": {k: v for k, v in judge.describe().items() if k in ("input", "max_length")},
        }
        write_json(staging / FACTS, facts)
        write_text(staging / "README.md", card(facts, section.out.name))
    return facts


def measure(judge: Any, rows: Sequence[Preference], *, seed: int) -> dict[str, Any]:
    """How well a scoring judge orders preferences.

    Returns:
        `accuracy` (estimate over prompts; equal scores count half), `ties`, `truncated`, `margin` (mean difference in
        score) and the calibration of P(chosen is better) = sigmoid(difference): `reliability` and `ece`.
    """
    import numpy as np

    from plad.evaluate.likelihood_calibration import RankedTexts, reliability
    from plad.evaluate.stats import Bootstrap, estimate

    examples = [Example(r.id, r.prompt) for r in rows]
    none: list[tuple[str, ...]] = [()] * len(rows)
    scores = [judge.score(examples, [getattr(r, side) for r in rows], none) for side in ("chosen", "rejected")]
    gaps = np.array(scores[0]) - np.array(scores[1])
    points: dict[str, list[float]] = {}
    for row, gap in zip(rows, gaps, strict=True):
        points.setdefault(prompt_key(row.prompt), []).append(float((gap > 0) + 0.5 * (gap == 0)))
    values = np.array([sum(v) / len(v) for v in points.values()])
    pairs = [RankedTexts(np.array(pair), np.array([1.0, 0.0])) for pair in zip(*scores, strict=True)]
    bootstrap = Bootstrap(RESAMPLES, seed)
    curve, ece = reliability(pairs, bootstrap)
    return {
        "accuracy": estimate(values, bootstrap).to_json(),
        "pairs": len(rows),
        "ties": int((gaps == 0).sum()),
        "truncated": judge.describe()["truncated"],
        "margin": float(gaps.mean()),
        "reliability": [row.to_json() for row in curve],
        "ece": ece.to_json(),
    }
