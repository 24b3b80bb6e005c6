"""One training step, by plad and by TRL's trainers, through the training loop of each."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from benchmarks.data import Pair
from benchmarks.measure import Meter
from benchmarks.models import group, load
from plad.config.models import LoraSection
from plad.objectives.plad import MarginObjective, RankObjective
from plad.policy.lora import attach
from plad.scoring.layout import Group
from plad.scoring.score import choose_route
from plad.train.loss import SIMILARITY, TextLoss
from plad.train.memory import PeakMemory
from plad.train.trainer import GroupTrainer

SEED = 0
PACKED_TOKENS = 4096
LORA = LoraSection.model_validate({"r": 8, "alpha": 32, "dropout": 0.0})

TrainVariant = Literal[
    "plad", "plad packed", "plad margin", "plad margin live", "cpo", "dpo", "dpo compact", "dpo defaults"
]


@dataclass(frozen=True, slots=True)
class TrainTask:
    """What a child trains.

    Attributes:
        tokenizer: folder TRL takes the padding token from.
        batches: one step each; the first warms up and isn't measured.
    """

    variant: TrainVariant
    model: Path
    tokenizer: Path
    lora: bool
    batches: list[list[Pair]]


class _Turns(TrainerCallback):
    """Waits before each step for the parent, and reports it."""

    def __init__(self, meter: Meter, losses: list[float]) -> None:
        self.meter, self.losses = meter, losses

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step > 1:
            self.meter.report(loss=self.losses[-1])
        if state.global_step < state.max_steps:
            self.meter.wait()


class _Losses:
    """Mixin that keeps the loss of each step."""

    losses: list[float]

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.losses.append(float(loss))
        return loss


class _Plad(_Losses, GroupTrainer):
    pass


def train(meter: Meter, task: TrainTask) -> None:
    """Run a child's steps."""
    model = load(task.model)
    with tempfile.TemporaryDirectory() as folder:
        if task.variant.startswith("plad"):
            trainer = _plad(model, task, folder)
        elif task.variant == "cpo":
            trainer = _cpo(model, task, folder)
        else:
            trainer = _dpo(model, task, folder)
        trainer.losses = []  # type: ignore[attr-defined]
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_Turns(meter, trainer.losses))  # type: ignore[attr-defined]
        meter.model_is_loaded()
        trainer.train()


def _arguments(task: TrainTask, folder: str) -> dict[str, Any]:
    """The same optimizer, clipping, order and precision for everyone."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": len(task.batches[0]) * (1 if task.variant.startswith("plad") else _pairs(task)),
        "max_steps": len(task.batches),
        "train_sampling_strategy": "sequential",
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "seed": SEED,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }


def _plad(model: PreTrainedModel, task: TrainTask, folder: str) -> Trainer:
    torch.manual_seed(SEED)
    policy = attach(model, LORA)[0] if task.lora else model
    groups = [_group(pair, str(i), task.variant) for i, pair in enumerate(_flat(task.batches))]
    return _Plad(
        policy,
        TrainingArguments(**_arguments(task, folder), average_tokens_across_devices=False),
        groups,
        objective=TextLoss(_objective(task.variant)),
        route=choose_route(policy),
        max_tokens=PACKED_TOKENS if task.variant == "plad packed" else None,
        settings={},
        emit=lambda row: None,
        meter=PeakMemory([policy.device]),
    )


def _objective(variant: TrainVariant) -> RankObjective | MarginObjective:
    if variant.startswith("plad margin"):
        scores = "live" if variant == "plad margin live" else "frozen"
        return MarginObjective(beta=1.0, length_normalization="sum", scores=scores)
    return RankObjective(beta=1.0, length_normalization="sum")


def _group(pair: Pair, name: str, variant: TrainVariant) -> Group:
    """The pair with what its objective needs beside the texts."""
    made = group(pair, name)
    if variant == "plad margin":
        return replace(made, values={SIMILARITY: tuple(map(float, range(len(made.completions), 0, -1)))})
    if variant == "plad margin live":
        return replace(made, completions=(*made.completions, pair.reference), context=1)
    return made


def _pairs(task: TrainTask) -> int:
    """Pairs a prompt."""
    return len(task.batches[0][0].each())


def _flat(batches: Sequence[Sequence[Pair]]) -> list[Pair]:
    return [pair for batch in batches for pair in batch]


def _trl_inputs(model: PreTrainedModel, task: TrainTask) -> dict[str, Any]:
    """What both of TRL's trainers are given; their own tokenization is passed by, the ids are the same for all."""
    from datasets import Dataset
    from peft import LoraConfig

    rows = [
        {"prompt": list(p.prompt), "chosen": list(p.chosen), "rejected": list(p.rejected)}
        for prompt in _flat(task.batches)
        for p in prompt.each()
    ]
    adapter = LoraConfig(
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        r=LORA.r,
        lora_alpha=LORA.alpha,  # type: ignore[arg-type]
        lora_dropout=LORA.dropout,
        target_modules="all-linear",
    )
    return {
        "model": model,
        "train_dataset": Dataset.from_list(rows),
        "processing_class": AutoTokenizer.from_pretrained(str(task.tokenizer)),
        "peft_config": adapter if task.lora else None,
    }


def _cpo(model: PreTrainedModel, task: TrainTask, folder: str) -> Trainer:
    """CPOTrainer with the same loss: relu(1 - (log P(chosen) - log P(rejected))), no other term."""
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    class TokensCPO(_Losses, CPOTrainer):
        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            return _labelled(feature, bool(self.is_encoder_decoder))

    args = CPOConfig(
        **_arguments(task, folder),
        loss_type="hinge",
        cpo_alpha=0.0,
        beta=1.0,
        max_length=1024,
        max_completion_length=128,  # nothing is cut
    )
    return TokensCPO(args=args, **_trl_inputs(model, task))


def _labelled(feature: dict[str, Any], encoder_decoder: bool) -> dict[str, Any]:
    """Columns of CPOTrainer's collator: the decoder of an encoder-decoder reads completions alone."""
    prompt = feature["prompt"]
    columns = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
    for name in ("chosen", "rejected"):
        completion = feature[name]
        if encoder_decoder:
            columns[f"{name}_labels"] = completion
            continue
        columns |= {
            f"{name}_input_ids": prompt + completion,
            f"{name}_attention_mask": [1] * (len(prompt) + len(completion)),
            f"{name}_labels": [-100] * len(prompt) + completion,
        }
    return columns


def _dpo(model: PreTrainedModel, task: TrainTask, folder: str) -> Trainer:
    """DPOTrainer.

    dpo: the same loss, by a reference of log-probability zero; the head scores every position, as it does on CPU.
    dpo compact: the same with the head on completion positions only, as it is on a GPU.
    dpo defaults: its own loss, a reference model, gradient checkpointing, and the GPU's head.
    """
    import trl.trainer.utils
    from trl import DPOConfig, DPOTrainer

    if task.variant != "dpo":
        trl.trainer.utils._use_triton = lambda device: True

    class TokensDPO(_Losses, DPOTrainer):
        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
            return dataset.rename_columns({n: f"{n}_ids" for n in ("prompt", "chosen", "rejected")})

        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            zeros = [0.0] * len(dataset)
            return dataset.add_column("ref_chosen_logps", zeros).add_column("ref_rejected_logps", zeros)

    settings = _arguments(task, folder)
    if task.variant == "dpo defaults":
        settings["gradient_checkpointing"] = True
    else:
        settings |= {"loss_type": "hinge", "beta": 1.0, "precompute_ref_log_probs": True}
    return TokensDPO(args=DPOConfig(**settings), **_trl_inputs(model, task))
