"""Memory of distillation on logits at a large vocabulary: `python -m benchmarks.distillation_memory`.

A student and a teacher of random weights, 2 layers deep: what is measured is the heads and the divergence, not the
layers' activations, which any objective has. 2,048 positions are compared in one pass, forward and backward. Peaks are
above the two loaded models; how much of one are gradients that the student's weights keep is said beside it.
"""

import json
import math
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from benchmarks.measure import Child, Meter
from plad.config.models import LoraSection
from plad.distillers.kd import KdObjective
from plad.distillers.logits.compare import LiveTeacher
from plad.distillers.logits.losses import completion_tokens
from plad.policy.lora import attach
from plad.scoring.layout import Group
from plad.scoring.score import Route, score
from plad.train.loss import loss_of

VOCABULARY, POSITIONS, PROMPT, TEXTS = 151_936, 2_048, 128, 16


@dataclass(frozen=True, slots=True)
class Task:
    """What a child measures.

    Attributes:
        width: of the states.
        tuning: `lora` (head frozen), `full` (a head of its own), or `tied` (the head is the input embedding).
        direct: the formula over all positions at once, for comparison.
    """

    width: int
    tuning: str
    direct: bool = False


def model(width: int, layers: int, tied: bool, seed: int) -> PreTrainedModel:
    """A random Llama with the vocabulary of Qwen2.5."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        tie_word_embeddings=tied,
    )
    return AutoModelForCausalLM.from_config(config)


def groups() -> list[Group]:
    """One prompt with texts that make the positions."""
    draw = torch.Generator().manual_seed(0)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, VOCABULARY, (n,), generator=draw).tolist())

    return [Group("g", tokens(PROMPT), tuple(tokens(POSITIONS // TEXTS) for _ in range(TEXTS)), TEXTS)]


def step(meter: Meter, task: Task) -> None:
    """One forward and backward of standard distillation."""
    student = model(task.width, 2, task.tuning == "tied", 0)
    policy = attach(student, LoraSection(dropout=0.0))[0] if task.tuning == "lora" else student
    teacher = LiveTeacher(model(task.width, 2, False, 1).requires_grad_(False), Route.SEGMENTS)
    rows = groups()
    objective = loss_of(KdObjective(), policy, teacher)
    meter.model_is_loaded()
    meter.wait()
    if task.direct:
        loss = direct(policy, teacher, rows)
    else:
        scores = score(policy, rows, route=Route.SEGMENTS, states=True, logits=False)
        loss = objective(scores).losses.sum() / sum(map(objective.weight, rows))
    loss.backward()
    gradients = sum(p.grad.numel() * p.grad.itemsize for p in policy.parameters() if p.grad is not None)
    meter.report(loss=loss.item(), gradients=gradients)


def direct(student: torch.nn.Module, teacher: LiveTeacher, rows: list[Group]) -> torch.Tensor:
    """The same loss with the logits of all positions."""
    from plad.scoring.head import head_logits

    states = score(student, rows, route=Route.SEGMENTS, states=True, logits=False).states
    assert states is not None
    logits = head_logits(student, states)
    with torch.no_grad():
        p = head_logits(teacher.model, teacher.rows(rows).tensors()[0]).log_softmax(-1)
    q = logits.log_softmax(-1)
    own = q.gather(1, completion_tokens(rows, states.device)[:, None])
    return 0.5 * (p.exp() * (p - q)).sum(-1).mean() - 0.5 * own.mean()


def main() -> None:
    """Print a line a variant."""
    tasks = [Task(896, "lora"), Task(896, "full"), Task(896, "tied"), Task(896, "lora", direct=True)]
    losses: list[float] = []
    for task in tasks:
        with Child(step, task) as child:
            child.wait()
            sample = child.measure()
        losses.append(sample.values["loss"])
        row = {
            "width": task.width,
            "tuning": task.tuning,
            "formula": "direct" if task.direct else "in pieces",
            "cpu_seconds": round(sample.seconds, 1),
            "peak_gb": None if sample.peak is None else round(sample.peak / 1e9, 2),
            "gradients_gb": round(sample.values["gradients"] / 1e9, 2),
            "loss": round(sample.values["loss"], 6),
        }
        print(json.dumps(row), flush=True)
    assert math.isclose(losses[0], losses[-1], rel_tol=1e-5), "both formulas give one loss"


if __name__ == "__main__":
    main()
