"""Divergences in pieces equal the direct formula: values, gradients to head and adapter, memory; stored teachers."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from plad.config.models import LoraSection
from plad.distillers.logits.compare import LiveTeacher, TeacherRows, compared, token_log_probs
from plad.distillers.logits.divergences import forward_kl, generalized_jsd, log_softmax, reverse_kl, total_variation
from plad.distillers.logits.stored import StoredTeacher, store_teacher
from plad.errors import PolicyError
from plad.policy.lora import attach
from plad.scoring.layout import Group
from plad.scoring.score import Route, score
from tests.support.scoring_families import widen
from tests.support.tiny_models import tiny_model

V = 61
GROUPS = [
    Group("a", (5, 6, 7, 8), ((9, 10, 11, 2), (12, 13, 2)), 1),
    Group("b", (20, 21, 22), ((30, 31, 32, 33, 34, 2),), 1),
    Group("c", (40,), ((2,), (), (41, 42)), 1),
]
TARGETS = torch.tensor([t for g in GROUPS for c in g.completions for t in c])
DIVERGENCES = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "tvd": total_variation,
    "jsd": lambda p, q: generalized_jsd(p, q, 0.3),
}


def literal(model: nn.Module) -> Tensor:
    """[N, V] logits of every completion token, by one plain forward a completion."""
    rows = []
    for group in GROUPS:
        for completion in group.completions:
            if completion:
                ids = torch.tensor([[*group.prompt, *completion]])
                rows.append(model(input_ids=ids).logits[0, len(group.prompt) - 1 : -1])
    return torch.cat(rows)


def in_pieces(student: nn.Module, rows: TeacherRows, divergence: Any, temperature: float, elements: int) -> Tensor:
    states = score(student, GROUPS, states=True, logits=False).states
    assert states is not None
    return compared(
        student,
        states,
        rows,
        TARGETS,
        lambda p, q, own: torch.stack([divergence(p, q), own], -1),
        temperature=temperature,
        elements=elements,
    )


def gradients(model: nn.Module, values: Tensor) -> list[Tensor]:
    """Gradients of a sum in which every figure weighs differently."""
    weights = torch.linspace(0.5, 2, values.numel(), dtype=values.dtype).view_as(values)
    model.zero_grad()
    (values * weights).sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.requires_grad and p.grad is not None]


def assert_close(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float) -> None:
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("kind", ["tied", "untied", "lora"])
def test_pieces_equal_the_direct_formula(
    divergence: str, dtype: torch.dtype, tolerance: float, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two positions at a time, as against all of them; values and every gradient, the head's included."""
    student: Any = tiny_model("llama", V, dtype=dtype, tie_word_embeddings=kind == "tied")
    teacher = tiny_model("llama", V, layers=3, dtype=dtype, seed=1)
    if dtype is torch.float64:
        widen(monkeypatch, student)
    if kind == "lora":
        torch.manual_seed(0)
        student = attach(student, LoraSection(dropout=0.0))[0]
        for name, parameter in student.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
    rows = LiveTeacher(teacher, Route.SEGMENTS).rows(GROUPS)
    found = in_pieces(student, rows, DIVERGENCES[divergence], 1.5, elements=2 * V)
    ours = gradients(student, found)
    logits = literal(student)
    with torch.no_grad():
        log_p = log_softmax(literal(teacher), 1.5)
    own = logits.log_softmax(-1).gather(1, TARGETS[:, None]).squeeze(1)
    direct = torch.stack([DIVERGENCES[divergence](log_p, log_softmax(logits, 1.5)), own], -1)
    torch.testing.assert_close(found, direct, rtol=tolerance, atol=tolerance)
    assert_close(ours, gradients(student, direct), tolerance)
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "gpt_neo"])
def test_soft_caps_biases_and_other_routes_are_the_models_own(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = (tiny_model(family, V, dtype=torch.float64, seed=seed) for seed in (0, 1))
    widen(monkeypatch, student)
    route = Route.CACHE if family == "gpt_neo" else Route.SEGMENTS
    states = score(student, GROUPS, route=route, states=True, logits=False).states
    assert states is not None
    rows = LiveTeacher(teacher, route).rows(GROUPS)
    found = compared(student, states, rows, TARGETS, lambda p, q, own: forward_kl(p, q), elements=3 * V)
    direct = forward_kl(log_softmax(literal(teacher)), log_softmax(literal(student)))
    torch.testing.assert_close(found, direct, rtol=0, atol=1e-9)


def test_the_teacher_may_be_in_a_lower_type() -> None:
    student, teacher = tiny_model("llama", V), tiny_model("llama", V, seed=1).to(torch.bfloat16)
    rows = LiveTeacher(teacher, Route.SEGMENTS).rows(GROUPS)
    assert rows.states.dtype is torch.bfloat16
    found = in_pieces(student, rows, forward_kl, 1.0, elements=2 * V)
    assert found.dtype is torch.float32
    with torch.no_grad():
        log_p = log_softmax(literal(teacher).float())
    torch.testing.assert_close(found[:, 0], forward_kl(log_p, log_softmax(literal(student))), rtol=0, atol=0.02)
    assert gradients(student, found)


def test_vocabularies_padded_to_different_lengths_meet_at_the_shorter() -> None:
    student, teacher = tiny_model("llama", V, dtype=torch.float64), tiny_model("llama", V + 3, dtype=torch.float64)
    rows = LiveTeacher(teacher, Route.SEGMENTS).rows(GROUPS)
    found = in_pieces(student, rows, forward_kl, 1.0, elements=2 * V)
    direct = forward_kl(log_softmax(literal(teacher)[:, :V]), log_softmax(literal(student)))
    torch.testing.assert_close(found[:, 0], direct, rtol=0, atol=1e-9)


def test_log_probabilities_in_pieces_equal_the_cores() -> None:
    student = tiny_model("llama", V, dtype=torch.float64)
    scores = score(student, GROUPS, states=True)
    assert scores.states is not None
    found = token_log_probs(student, scores.states, TARGETS, elements=2 * V)
    torch.testing.assert_close(found, scores.logps, rtol=0, atol=1e-12)


class _Watched(torch.utils._python_dispatch.TorchDispatchMode):
    """Keeps the size of the largest tensor any operation gives."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, Tensor):
                self.largest = max(self.largest, t.numel())
        return out


def test_no_tensor_of_all_positions_by_the_vocabulary_exists_forward_or_backward() -> None:
    """200 positions of 500 tokens make 100,000 logits; 5 positions at a time, nothing exceeds the head's own size."""
    student = tiny_model("llama", 500)
    teacher = tiny_model("llama", 500, seed=1)
    groups = [Group("long", (1, 2, 3), (tuple(range(3, 203)),))]
    targets = torch.tensor(groups[0].completions[0])
    states = score(student, groups, states=True, logits=False).states
    assert states is not None
    rows = LiveTeacher(teacher, Route.SEGMENTS).rows(groups)
    with _Watched() as watched:
        found = compared(student, states, rows, targets, lambda p, q, own: generalized_jsd(p, q, 0.5), elements=5 * 500)
        found.sum().backward(retain_graph=True)
    assert watched.largest <= max(500 * 32, 200 * 203)  # head weights; the attention mask of 203 tokens


@pytest.mark.parametrize("elements", [2 * V, 100 * V])
def test_an_adapters_dropout_on_the_head_is_the_same_forward_and_backward(elements: int) -> None:
    """The directional derivative of the loss that was computed, its dropout drawn from the same seed."""
    torch.manual_seed(0)
    model = tiny_model("llama", V, dtype=torch.float64, tie_word_embeddings=False)
    student: Any = attach(model, LoraSection(dropout=0.5, target_modules=("lm_head",)))[0]
    for name, parameter in student.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.5)
    student.train()
    states = torch.randn(len(TARGETS), 32, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(states)

    def loss(at: Tensor) -> Tensor:
        torch.manual_seed(5)
        return token_log_probs(student, at, TARGETS, elements=elements).sum()

    (gradient,) = torch.autograd.grad(loss(states), [states])
    with torch.no_grad():
        slope = (loss(states + 1e-6 * direction) - loss(states - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-5)


# -- stored teachers ------------------------------------------------------------------------------


def stored(
    folder: Path, teacher: nn.Module, k: int, temperature: float = 1.0, shard: int = 4, width: int | None = None
) -> StoredTeacher:
    """A teacher written in files of a few positions and read back."""
    live = LiveTeacher(teacher, Route.SEGMENTS)
    store_teacher(live, GROUPS, folder, k=k, width=width, temperature=temperature, shard=shard)
    return StoredTeacher.read(folder)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_all_tokens_but_one_stored_are_the_whole_vocabulary(
    divergence: str, temperature: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher = (tiny_model("llama", V, dtype=torch.float64, seed=seed) for seed in (0, 1))
    widen(monkeypatch, student)
    kept = stored(tmp_path / "t", teacher, V - 1, temperature).rows(GROUPS)
    live = LiveTeacher(teacher, Route.SEGMENTS).rows(GROUPS)
    found = in_pieces(student, kept, DIVERGENCES[divergence], temperature, elements=2 * V)
    ours = gradients(student, found)
    whole = in_pieces(student, live, DIVERGENCES[divergence], temperature, elements=2 * V)
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-9)
    assert_close(ours, gradients(student, whole), 1e-9)


def test_the_tail_is_one_bucket_of_teacher_and_student(tmp_path: Path) -> None:
    """By hand from the logits: the teacher's 5 likeliest tokens and the sum of all others, for both."""
    student, teacher = (tiny_model("llama", V, dtype=torch.float64, seed=seed) for seed in (0, 1))
    found = in_pieces(student, stored(tmp_path / "t", teacher, 5).rows(GROUPS), forward_kl, 1.0, elements=2 * V)[:, 0]
    p, q = literal(teacher).softmax(-1), literal(student).softmax(-1)
    for i in range(len(TARGETS)):
        top = p[i].topk(5).indices
        mine, theirs = p[i, top].tolist(), q[i, top].tolist()
        mine.append(1 - sum(mine))
        theirs.append(1 - sum(theirs))
        expected = sum(a * torch.tensor(a / b).log().item() for a, b in zip(mine, theirs, strict=True))
        assert found[i].item() == pytest.approx(expected, abs=1e-6)


def test_fewer_tokens_never_give_a_larger_divergence(tmp_path: Path) -> None:
    student, teacher = (tiny_model("llama", V, dtype=torch.float64, seed=seed) for seed in (0, 1))
    for name, divergence in DIVERGENCES.items():
        values = [
            in_pieces(student, stored(tmp_path / f"{name}{k}", teacher, k).rows(GROUPS), divergence, 1.0, V)[:, 0]
            for k in (1, 4, 16, V - 1)
        ]
        for fewer, more in pairwise(values):
            assert bool((fewer <= more + 1e-12).all()), name


def test_stored_texts_are_found_by_their_tokens_in_any_order(tmp_path: Path) -> None:
    teacher = tiny_model("llama", V, dtype=torch.float64)
    kept = stored(tmp_path / "t", teacher, 5, shard=6)
    assert len(list((tmp_path / "t").glob("*.safetensors"))) == 3
    whole, one = kept.rows(GROUPS), kept.rows([GROUPS[1]])
    torch.testing.assert_close(one.logps, whole.logps[7:13])
    with pytest.raises(PolicyError, match="teacher_logits: live"):
        kept.rows([Group("d", (5, 6), ((7, 8),))])


def test_more_tokens_than_the_vocabulary_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="top_k"):
        stored(tmp_path / "t", tiny_model("llama", V), V)


@pytest.mark.parametrize(("ours", "theirs"), [(V, V + 3), (V + 3, V)])
def test_stored_vocabularies_of_different_lengths_meet_at_the_shorter_as_live_ones_do(
    ours: int, theirs: int, tmp_path: Path
) -> None:
    student = tiny_model("llama", ours, dtype=torch.float64)
    teacher = tiny_model("llama", theirs, dtype=torch.float64, seed=1)
    live = LiveTeacher(teacher, Route.SEGMENTS).rows(GROUPS)
    whole = in_pieces(student, live, forward_kl, 1.0, elements=2 * V)
    kept = stored(tmp_path / "all", teacher, V - 1, width=ours).rows(GROUPS)
    torch.testing.assert_close(in_pieces(student, kept, forward_kl, 1.0, elements=2 * V), whole, rtol=0, atol=1e-9)
    few = stored(tmp_path / "few", teacher, 30, width=ours).rows(GROUPS)
    assert bool((in_pieces(student, few, forward_kl, 1.0, elements=2 * V)[:, 0] <= whole[:, 0] + 1e-9).all())
