"""What the user calls the things that a stage depends on: keys of a config for paths of recorded inputs."""

from collections.abc import Callable

from plad.config.base import ROLES
from plad.config.models import TeacherSection, TrainSettings
from plad.config.root import Config
from plad.pipeline.stage import NAMES

_ELSEWHERE = {"judge": "evaluate.judges", "temperature": "evaluate.temperature", "stemmer": "evaluate.stemmer"}
_PLAIN = {
    "data": {"seed": "run.seed", "skip_invalid": "--skip-invalid", "files": "content of data"},
    "pair": {"file": "content of pairs.file", "scorer": "pairs.scorer"},
    "baselines": {"settings": "distill", "methods": "evaluate.baselines"},
    "evaluate": {"judges": "evaluate.judges"},
}


def limit_key(config: Config) -> str:
    """The key that says how long an evaluated or validated answer may be."""
    return "generate.max_new_tokens" if config.evaluate.max_new_tokens is None else "evaluate.max_new_tokens"


def user_keys(config: Config, stage: str) -> Callable[[str], str]:
    """A function that gives the user's name of a path in the inputs of a stage, such as `teacher.sft.epochs`."""

    def named(path: str) -> str:
        first, _, rest = path.partition(".")
        if path in NAMES:
            return f"stage {path}"
        if first in ROLES and stage in ("sft", "generate"):
            return _of_policy(config, first, rest)
        if first == "lora":
            return _joined(_lora(config.distill, "student", "distill"), rest)
        if first == "validation":
            return _of_validation(config, "distill.validation", rest)
        if path == "max_new_tokens":
            return limit_key(config)
        return _joined(_PLAIN.get(stage, {}).get(first, first), rest)

    return named


def _of_policy(config: Config, role: str, path: str) -> str:
    first, _, rest = path.partition(".")
    if first == "validation":
        return _of_validation(config, "sft.validation", rest)
    if first == "sft":
        name, _, below = rest.partition(".")
        if name == "lora":
            return _joined(_lora(config.sft, role, "sft"), below)
        own = getattr(getattr(config.sft, role), name, None) is not None
        return _joined(f"sft.{role}" if own else "sft", rest)
    if first == "weights":
        return f"content of {role}.model"
    if first == "settings":
        return _joined(role, rest)
    if role == "teacher" and first not in TeacherSection.model_fields:
        return _joined("teacher.engine", path)
    return _joined(role, path)


def _of_validation(config: Config, section: str, path: str) -> str:
    first, _, rest = path.partition(".")
    if first == "max_new_tokens":
        return limit_key(config)
    return _joined(_ELSEWHERE[first], rest) if first in _ELSEWHERE else _joined(section, path)


def _lora(settings: TrainSettings, role: str, section: str) -> str:
    return f"{role}.lora" if settings.lora == "inherit" else f"{section}.lora"


def _joined(key: str, rest: str) -> str:
    return f"{key}.{rest}" if rest else key
