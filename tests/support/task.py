"""A small real task with tiny models: what the end-to-end tests run through the command line."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.support.tiny_models import CHATML, tiny_folder, train_tokenizer

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "src/plad/extras/demo/data"
STAGES = ["data", "sft", "generate", "pair", "distill", "baselines", "evaluate", "report"]


def rows(split: str, n: int) -> list[dict[str, Any]]:
    """The first rows of the demo data, shortened to suit a tiny model."""
    shortened: list[dict[str, Any]] = []
    for line in (DEMO / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:n]:
        row = json.loads(line)
        words = row["prompt"].split()
        row["prompt"] = " ".join([*words[:6], *words[7:13]])
        row["references"] = [" ".join(r.split()[:2]) for r in row["references"]]
        shortened.append(row)
    return shortened


def write_task(folder: Path, *, family: str = "llama", chat: bool = False, **changes: Any) -> Path:
    """Data, a tiny model and a config under `folder`; `changes` are dotted settings with `__` for the dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, n in (("train", 24), ("validation", 4), ("test", 6)):
        text = "".join(json.dumps(row) + "\n" for row in rows(split, n))
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    tokenizer = train_tokenizer(chat_template=CHATML if chat else None, eos_token="<|im_end|>" if chat else "</s>")
    tiny_folder(folder / "model", family, tokenizer=tokenizer, layers=3)
    config: dict[str, Any] = {
        "run": {"dir": str(folder / "run"), "seed": 1},
        "data": {name: f"{name}.jsonl" for name in ("train", "validation", "test")},
        "teacher": {"model": "model", "lora": None},
        "student": {"model": "model", "init": {"type": "prune", "layers": 2, "prompts": 4}, "lora": None},
        "sft": {
            "batch_size": 4,
            "learning_rate": 1e-2,
            "epochs": 5,
            "checkpoint_steps": 2,
            "teacher": {"learning_rate": 5e-2},
        },
        "generate": {"max_new_tokens": 24, "slots": 3},
        "pairs": {"drop": {"truncated": "teacher"}},
        "distill": {
            "batch_size": 2,
            "learning_rate": 1e-3,
            "checkpoint_steps": 1,
            "objective": {"type": "rank"},
            "validation": {"evaluations": 2, "rows": 3},
        },
        "evaluate": {"bootstrap": 200},
    }
    for key, value in changes.items():
        *parents, leaf = key.split("__")
        node = config
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = value
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def write_answers(path: Path, splits: tuple[str, ...]) -> None:
    """A file of answers to the rows of some splits."""
    lines = [
        json.dumps({"prompt": row["prompt"], "text": row["references"][0] + " indeed"})
        for split in splits
        for row in rows(split, 24)
    ]
    path.write_text("\n".join(lines) + "\n")
