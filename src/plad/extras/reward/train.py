"""TRL's RewardTrainer on our own inputs, with checkpoints that are whole and losses that are finite."""

import contextlib
import logging
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging

from plad.config.extras import RewardTraining
from plad.data.preferences import Preference
from plad.errors import DataError, DivergedError, MissingExtraError, PolicyError, TrainingError
from plad.extras.reward.facts import Training
from plad.judges.encode import CONFIG_KEY, RewardInput, choose_input
from plad.judges.models import longest_input
from plad.policy.backend import choose_device, choose_dtype, no_progress_bars
from plad.policy.folder import load_tokenizer
from plad.policy.prompt import choose_pad
from plad.policy.resolve import is_adapter, resolve_model
from plad.progress import track
from plad.train.checkpoints import WholeCheckpoints, latest_checkpoint, trained_with

try:
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer
except ImportError:
    raise MissingExtraError("training a reward model needs the package trl", fix="pip install 'plad[reward]'") from None

log = logging.getLogger("plad")


class Backbone:
    """A model with one new output, its tokenizer, and how its inputs are made.

    Raises:
        PolicyError: there is no such model, or no class of it with one output.
        ConfigError: `input: chat` without a chat template.
    """

    def __init__(self, section: RewardTraining, model: str) -> None:
        folder = resolve_model(model, section.revision)
        if is_adapter(folder):
            raise PolicyError("is an adapter", where=str(folder), fix="merge it first, and name the merged folder")
        device, _ = choose_device()
        self.compute, _ = choose_dtype(section.dtype, device)
        self.tokenizer: Any = load_tokenizer(folder)
        self.model: Any
        loader: Any = AutoModelForSequenceClassification  # typed in parts
        set_seed(section.seed)  # the new head is drawn here
        try:
            with no_progress_bars(), _no_load_report():
                self.model = loader.from_pretrained(
                    folder, num_labels=1, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
                )
        except (OSError, ValueError) as e:
            raise PolicyError(f"can't be made a reward model: {e}", where=str(folder), fix="name another model") from e
        eos = self.tokenizer.eos_token_id
        pad, note = choose_pad(self.tokenizer, [] if eos is None else [eos])
        self.tokenizer.pad_token_id = pad  # a decoder reads its score at the last token that is no padding
        self.model.config.get_text_config().pad_token_id = pad
        kind = choose_input(section.input, self.model.config, self.tokenizer, str(folder))
        setattr(self.model.config, CONFIG_KEY, kind)
        limit = longest_input(section.max_length, self.model.config, self.tokenizer)
        self.encode = RewardInput(self.tokenizer, kind, limit)
        log.info("%s; input %s; at most %s tokens", note, kind, limit or "any number of")

    def rows(self, preferences: Sequence[Preference]) -> tuple[list[dict[str, Any]], int]:
        """Inputs of both answers of each pair, and how many pairs were too long."""
        rows: list[dict[str, Any]] = []
        for p in preferences:
            chosen, rejected = (self.encode(p.prompt, text) for text in (p.chosen, p.rejected))
            if not chosen[1] and not rejected[1]:
                longest = max(len(chosen[0]["input_ids"]), len(rejected[0]["input_ids"]))
                rows.append({"chosen": chosen[0], "rejected": rejected[0], "length": longest})
        return rows, len(preferences) - len(rows)

    def save(self, folder: Path) -> None:
        """Write model and tokenizer."""
        with no_progress_bars():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _no_load_report() -> Generator[None]:
    """The head is new and the language model's own is left behind: transformers reports both as trouble."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


class _Trainer(WholeCheckpoints, RewardTrainer):  # type: ignore[misc]
    """RewardTrainer with our checkpoints."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset  # made by `Backbone.rows`, token types included

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        compute: Callable[..., Any] = super().compute_loss
        result = compute(model, inputs, return_outputs, num_items_in_batch)
        loss = float((result[0] if return_outputs else result).detach())
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss}",
                where=f"step {self.state.global_step + 1}",
                fix="lower learning_rate or max_grad_norm\nthe same command resumes from the last checkpoint",
            )
        return result

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """The finished model gets a card of ours."""


class _Bar(TrainerCallback):
    """Progress with rate and time left; keeps a row of figures every few steps."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._open = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = self._open.enter_context(track("reward", state.max_steps, "steps"))
        self.bar.skip(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.advance(1)
        if state.global_step >= state.max_steps:
            control.should_save = False  # the caller saves the finished model

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        kept = {k: logs[k] for k in ("loss", "accuracy", "margin", "grad_norm", "learning_rate") if k in (logs or {})}
        if "loss" in kept:
            self.rows.append({"step": state.global_step, **kept})

    def close(self) -> None:
        """Take the bar down, also after an error."""
        self._open.close()


def collate(tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
    """Pads a batch of pairs: the chosen texts, then the rejected ones."""

    def pad(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        texts = [row[side] for side in ("chosen", "rejected") for row in rows]
        return dict(tokenizer.pad(texts, padding_side="right", return_tensors="pt"))

    return pad


def train_reward(
    backbone: Backbone, preferences: Sequence[Preference], section: RewardTraining, folder: Path, key: str
) -> Training:
    """Train a backbone in place; its adapter is merged in the end.

    Args:
        folder: of checkpoints; training resumes from the newest one there.
        key: of all that the model depends on; a checkpoint made with another one is refused.

    Raises:
        DataError: no pair fits.
        TrainingError: the loss is not finite, or a checkpoint is damaged or of other settings.
    """
    rows, too_long = backbone.rows(preferences)
    if not rows:
        raise DataError(
            f"all {too_long} pairs are longer than {backbone.encode.max_length} tokens",
            where="max_length",
            fix="raise max_length\nor use a model with a longer context",
        )
    checkpoint = _resume(folder, key)
    dataset: Any = Dataset  # typed in parts
    bar = _Bar()
    trainer = _Trainer(
        backbone.model,
        _arguments(section, folder, len(rows), backbone.compute),
        data_collator=collate(backbone.tokenizer),
        train_dataset=dataset.from_list(rows),
        processing_class=backbone.tokenizer,
        callbacks=[bar],
        peft_config=_lora(section),
    )
    trainer.settings = {"key": key}
    trainer.remove_callback(PrinterCallback)
    try:
        with no_progress_bars():
            result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        bar.close()
    model: Any = getattr(trainer, "model")  # noqa: B009  # typed in parts
    backbone.model = (model.merge_and_unload() if section.lora else model).eval()
    steps, seconds = trainer.state.global_step, round(result.metrics["train_runtime"], 1)
    return Training(pairs=len(rows), too_long=too_long, steps=steps, seconds=seconds, curve=bar.rows)


def _resume(folder: Path, key: str) -> Path | None:
    checkpoint = latest_checkpoint(folder)
    if checkpoint is not None and trained_with(checkpoint) != {"key": key}:
        raise TrainingError(
            "the checkpoint was trained with other settings or data",
            where=str(checkpoint),
            fix=f"put them back\nor delete {folder} to train from the beginning",
        )
    if checkpoint is not None:
        log.info("resuming from %s", checkpoint.name)
    return checkpoint


def _lora(section: RewardTraining) -> LoraConfig | None:
    if section.lora is None:
        return None
    return LoraConfig(
        task_type="SEQ_CLS",  # the new head is trained whole
        r=section.lora.r,
        lora_alpha=section.lora.alpha,  # type: ignore[arg-type]
        lora_dropout=section.lora.dropout,
        target_modules="all-linear" if section.lora.target_modules is None else list(section.lora.target_modules),
    )


def _arguments(section: RewardTraining, folder: Path, rows: int, compute: torch.dtype) -> RewardConfig:
    steps = math.ceil(math.ceil(rows / section.batch_size) / section.gradient_accumulation_steps) * section.epochs
    arguments = RewardConfig(
        output_dir=str(folder),
        per_device_train_batch_size=section.batch_size,
        gradient_accumulation_steps=section.gradient_accumulation_steps,
        num_train_epochs=section.epochs,
        learning_rate=section.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=int(section.warmup_ratio * steps),
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        gradient_checkpointing=section.gradient_checkpointing,
        center_rewards_coefficient=section.centre or None,
        max_length=None,
        disable_dropout=section.lora is None,
        train_sampling_strategy="group_by_length",
        bf16=compute is torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        seed=section.seed,
        data_seed=section.seed,
        save_strategy="steps",
        save_steps=section.checkpoint_steps,
        logging_steps=10,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    _ = arguments.device  # settles how many GPUs there are
    arguments._n_gpu = min(arguments.n_gpu, 1)  # pyright: ignore[reportPrivateUsage]  # nothing else says "one GPU"
    return arguments
