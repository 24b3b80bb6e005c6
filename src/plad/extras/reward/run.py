"""`plad reward CONFIG`: from labelled preferences to a reward model that is measured on preferences it never saw."""

import contextlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from plad.config.extras import RewardTraining
from plad.data.preferences import Preference, read_preferences
from plad.data.sources import source_fingerprint
from plad.data.split import nested_share, prompt_key
from plad.errors import DataError, RunDirError
from plad.evaluate.likelihood_calibration import RankedTexts, reliability
from plad.evaluate.stats import Bootstrap, estimate
from plad.extras.reward.facts import FILE, HeldOut, Input, PreferenceFacts, RewardFacts
from plad.extras.reward.train import Backbone, train_reward
from plad.judges.base import JudgeResources, ScoringJudge
from plad.judges.facts import JudgeFacts
from plad.judges.reward import RewardJudge
from plad.policy.fingerprint import as_known_before, model_fingerprint
from plad.policy.resolve import locate_model
from plad.records import Example
from plad.rundir.atomic import atomic_dir, is_complete, verify_dir
from plad.rundir.fingerprint import fingerprint
from plad.rundir.lock import acquire

log = logging.getLogger("plad")

RESAMPLES = 2000


def train(section: RewardTraining, base: Path, *, skip_invalid: bool = False) -> RewardFacts:
    """Train a reward model, measure it, and write it whole; a finished one with the same settings is left as it is.

    Args:
        base: where relative model and data paths start.
        skip_invalid: drop and count rows that can't be used.

    Raises:
        RunDirError: `out` holds something else.
        DataError: no preference can be used, or none is left to measure with.
        TrainingError: the loss is not finite, or a checkpoint is damaged or of other settings.
    """
    model = locate_model(section.model, base, section.revision)
    sources = [s for s in (section.data.train, section.data.validation) if s is not None]
    made_from = {
        **section.shaping(),
        "data": section.data.model_dump(mode="json", exclude={"train", "validation"}),
        "files": [source_fingerprint(s, base) for s in sources],
        "weights": model_fingerprint(model, section.revision),
    }
    key = fingerprint(made_from)
    done = _finished(section.out, key, fingerprint(as_known_before(made_from)))
    if done is not None:
        log.info("done before")
        return done
    rows, held_out, counts = _preferences(section, base, skip_invalid)
    log.info("%d preferences to train on, %d held out", len(rows), len(held_out))
    checkpoints = section.out.with_name(f"{section.out.name}.checkpoints")
    checkpoints.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(acquire(checkpoints)):
        for left in section.out.parent.glob(f".{section.out.name}.*.tmp"):  # by a killed write
            shutil.rmtree(left)
        backbone = Backbone(section, model)
        training = train_reward(backbone, rows, section, checkpoints, key)
        with atomic_dir(section.out) as staging:
            backbone.save(staging)
            judge = RewardJudge(model=str(staging), dtype=section.dtype).open(JudgeResources())  # as it will be used
            facts = RewardFacts(
                key=key,
                model=section.model,
                settings=section.shaping(),
                data=counts,
                training=training,
                held_out=measure(judge, held_out, seed=section.seed),
                judge=Input.model_validate({k: v for k, v in judge.describe().items() if k in Input.model_fields}),
            )
            facts.write(staging, section.out.name)
        shutil.rmtree(checkpoints)
    return facts


def _finished(out: Path, *keys: str) -> RewardFacts | None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not is_complete(out) or not (out / FILE).is_file():
        raise RunDirError("exists and holds no reward model of plad", where=f"out={out}", fix="name a new folder")
    verify_dir(out)
    facts = RewardFacts.read(out)
    if facts.key not in keys:
        raise RunDirError(
            "holds a reward model of other settings or data",
            where=f"out={out}",
            fix="out=NEW keeps it and trains another\nor delete the folder",
        )
    return facts


def _preferences(
    section: RewardTraining, base: Path, skip_invalid: bool
) -> tuple[list[Preference], list[Preference], PreferenceFacts]:
    """Preferences to train on and to measure with, no prompt in both; ties teach nothing here."""
    data = section.data
    read = read_preferences(data.train, data.columns, limit=data.limit, skip_invalid=skip_invalid, base=base)
    rows = [r for r in read.rows if not r.tie]
    if data.validation is None:
        prompts = [Example(r.id, r.prompt) for r in rows]
        kept = {prompt_key(e.prompt) for e in nested_share(prompts, data.held_out, section.seed, "reward")}
        held_out = [r for r in rows if prompt_key(r.prompt) in kept]
    else:
        other = read_preferences(data.validation, data.columns, limit=data.limit, skip_invalid=skip_invalid, base=base)
        held_out = [r for r in other.rows if not r.tie]
        kept = {prompt_key(r.prompt) for r in held_out}
    train_rows = [r for r in rows if prompt_key(r.prompt) not in kept]
    if not train_rows or not held_out:
        raise DataError(
            f"{len(train_rows)} preferences are left to train on and {len(held_out)} to measure with",
            where="data",
            fix="give more rows with different prompts, or another data.held_out",
        )
    counts = PreferenceFacts(
        rows=len(read.rows),
        identical=read.identical,
        skipped=read.skipped,
        ties=len(read.rows) - len(rows),
        prompts_held_out_too=0 if data.validation is None else len(rows) - len(train_rows),
        held_out=len(held_out),
    )
    return train_rows, held_out, counts


def measure(judge: ScoringJudge, rows: Sequence[Preference], *, seed: int) -> HeldOut:
    """How well a scoring judge that judges every text orders preferences."""
    examples = [Example(r.id, r.prompt) for r in rows]
    none: list[tuple[str, ...]] = [()] * len(rows)
    sides = [r.chosen for r in rows], [r.rejected for r in rows]
    chosen, rejected = (np.array(judge.score(examples, side, none), dtype=np.float64) for side in sides)
    gaps = chosen - rejected
    points: dict[str, list[float]] = {}
    for row, gap in zip(rows, gaps, strict=True):
        points.setdefault(prompt_key(row.prompt), []).append(float((gap > 0) + 0.5 * (gap == 0)))
    values = np.array([sum(v) / len(v) for v in points.values()])
    pairs = [RankedTexts(np.array(pair), np.array([1.0, 0.0])) for pair in zip(chosen, rejected, strict=True)]
    bootstrap = Bootstrap(RESAMPLES, seed)
    curve, ece = reliability(pairs, bootstrap)
    return HeldOut(
        accuracy=estimate(values, bootstrap),
        pairs=len(rows),
        ties=int((gaps == 0).sum()),
        truncated=JudgeFacts.model_validate(judge.describe()).truncated,
        margin=float(gaps.mean()),
        reliability=curve,
        ece=ece,
    )
