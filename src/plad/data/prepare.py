"""The splits of a run: read, checked, and cut in two halves."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from plad.config.root import Config
from plad.data.read import ReadResult, read_examples
from plad.data.rows import once
from plad.data.sources import source_fingerprint
from plad.data.split import nested_share, prompt_key, refuse_leakage, split_train
from plad.errors import DataError, PladError, join
from plad.records import Example

Counts = Mapping[str, int | Mapping[str, int]]


@dataclass(frozen=True)
class Prepared:
    """The splits of a run.

    Attributes:
        sft: D0, for fine-tuning.
        distill: D, for distillation.
        counts: rows of each split, rows skipped, duplicate prompts.
    """

    sft: list[Example]
    distill: list[Example]
    validation: list[Example]
    test: list[Example]
    counts: Counts


def prepare(config: Config, *, base: Path | None = None, skip_invalid: bool = False) -> Prepared:
    """Read, check and split the data of a run; with `skip_invalid`, rows that can't be used are dropped and counted."""
    prepared, problems = check(config, base=base, skip_invalid=skip_invalid)
    if prepared is None:
        raise join(problems)
    return prepared


def data_fingerprint(config: Config, base: Path | None = None) -> dict[str, str]:
    """What each data file of a run holds."""
    fingerprints: dict[str, str] = {}
    problems: list[PladError] = []
    for name, source in _sources(config).items():
        try:
            fingerprints[name] = source_fingerprint(source, base)
        except DataError as e:
            problems.append(e)
    if problems:
        raise join(problems)
    return fingerprints


def _sources(config: Config) -> dict[str, str]:
    """The splits that a config names."""
    named = {"train": config.data.train, "validation": config.data.validation, "test": config.data.test}
    return {name: source for name, source in named.items() if source is not None}


def check(
    config: Config, *, base: Path | None = None, skip_invalid: bool = False
) -> tuple[Prepared | None, list[PladError]]:
    """Read, check and split the data of a run: the splits, or None and every problem."""
    problems: list[PladError] = []
    results = _read_all(config, base, skip_invalid, problems)
    overlap = dict.fromkeys(results, 0)
    if config.data.overlap == "drop":
        results, overlap = drop_overlap(results)
    try:
        refuse_leakage({name: result.placed() for name, result in results.items()})
    except DataError as e:
        problems.append(e)
    if "train" not in results:
        return None, problems
    train = results["train"]
    try:
        sft, distill = split_train(train.examples, config.data.sft_share, config.run.seed)
    except DataError as e:
        return None, [*problems, e]
    problems.extend(_too_few(config, train, sft, distill))
    if problems:
        return None, problems
    validation = results["validation"].examples if "validation" in results else []
    counts = {
        "sft": len(sft),
        "distill": len(distill),
        "validation": len(validation),
        "test": len(results["test"].examples),
        "skipped": {name: r.skipped for name, r in results.items()},
        "duplicate_prompts": {name: r.duplicates for name, r in results.items()},
        "overlap": overlap,
    }
    return Prepared(sft, distill, validation, results["test"].examples, counts), []


def drop_overlap(results: dict[str, ReadResult]) -> tuple[dict[str, ReadResult], dict[str, int]]:
    """Leave out of every split the prompts (normalised) that stand in a later one, and count them; test stays whole."""
    kept: dict[str, ReadResult] = {}
    counts: dict[str, int] = {}
    later: set[str] = set()
    for name, result in reversed(results.items()):
        keys = [prompt_key(e.prompt) for e in result.examples]
        rows = [row for row, key in zip(result.placed(), keys, strict=True) if key not in later]
        distinct = {key for key in keys if key not in later}
        places, examples = [place for place, _ in rows], [example for _, example in rows]
        kept[name] = ReadResult(examples, places, result.skipped, len(examples) - len(distinct))
        counts[name] = len(result.examples) - len(examples)
        later |= distinct
    return {name: kept[name] for name in results}, {name: counts[name] for name in results}


def _read_all(
    config: Config, base: Path | None, skip_invalid: bool, problems: list[PladError]
) -> dict[str, ReadResult]:
    results: dict[str, ReadResult] = {}
    failed: list[DataError] = []
    for name, source in _sources(config).items():
        try:
            results[name] = read_examples(
                source,
                config.data.columns,
                limit=config.data.limit,
                skip_invalid=skip_invalid,
                need_references=True,
                base=base,
            )
        except DataError as e:
            failed.append(e)
    problems.extend(once(failed))
    return results


def _too_few(config: Config, train: ReadResult, sft: list[Example], distill: list[Example]) -> Iterable[DataError]:
    limit = f", data.limit {config.data.limit}" if config.data.limit else ""
    share = f", generate.share {config.generate.share:g}" if config.generate.share < 1 else ""
    distill = nested_share(distill, config.generate.share, config.run.seed, "distill")
    skipped = f", {train.skipped} skipped" if train.skipped else ""
    sft_batch = max(config.sft.settings(role).batch_size for role in ("teacher", "student"))
    for name, rows, batch in (("sft", sft, sft_batch), ("distill", distill, config.distill.batch_size)):
        if len(rows) < batch:
            yield DataError(
                f"{len(rows)} rows for {name} (of {len(train.examples)} training rows{skipped}{limit}, "
                f"data.sft_share {config.data.sft_share:g}{share if name == 'distill' else ''}) "
                f"are fewer than one batch of {batch}",
                where=config.data.train,
                fix=f"give more rows, or {name}.batch_size={max(1, len(rows))}",
            )
