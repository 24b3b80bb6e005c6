"""Objectives on logits against slow literal readings of their papers, over whole models and real groups."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from plad.config.objectives import ObjectiveSection
from plad.distillers.distillm import DistillmObjective
from plad.distillers.f_distill import FDistillObjective
from plad.distillers.gkd import GkdObjective
from plad.distillers.kd import KdObjective
from plad.distillers.logits.compare import LiveTeacher
from plad.distillers.logits.losses import Document, Rollout
from plad.distillers.minillm import MiniLlmObjective
from plad.scoring.layout import Group
from plad.scoring.score import Route, score
from plad.train.loss import loss_of
from tests.support.tiny_models import tiny_model

V = 31
GROUPS = [  # two texts of the teacher and one of the student's; one of each; the teacher's alone
    Group("a", (5, 6, 7, 8), ((9, 10, 11, 2), (12, 13, 2), (14, 2)), 2),
    Group("b", (20, 21), ((22, 23, 24, 25, 26, 2), (27, 28)), 1),
    Group("c", (29,), ((30, 2),), 1),
]
TEACHER_ALONE = [replace(g, completions=g.completions[: g.chosen]) for g in GROUPS]
STUDENT_ALONE = [replace(g, completions=g.completions[g.chosen :], chosen=0) for g in GROUPS[:2]]


@pytest.fixture(scope="module")
def models() -> tuple[nn.Module, nn.Module]:
    return tuple(tiny_model("llama", V, dtype=torch.float64, seed=seed, initializer_range=0.3) for seed in (0, 1))  # type: ignore[return-value]


def probabilities(model: nn.Module, prompt: tuple[int, ...], text: tuple[int, ...], temperature: float) -> Tensor:
    """[L, V] by one plain forward of one text."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *text]])).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).softmax(-1)


def literal(models: Any, groups: list[Group], of: Callable[..., float], temperature: float = 1.0) -> float:
    """sum over kinds of the mean over the kind's texts of `of(kind, p, q, own)`, over tokens of an average text."""
    student, teacher = models
    total = tokens = 0.0
    for group in groups:
        kinds = [("teacher", range(group.chosen)), ("student", range(group.chosen, len(group.completions)))]
        kinds = [(kind, texts) for kind, texts in kinds if texts]
        for kind, texts in kinds:
            for i in texts:
                text = group.completions[i]
                q = probabilities(student, group.prompt, text, temperature)
                own = probabilities(student, group.prompt, text, 1.0)
                p = probabilities(teacher, group.prompt, text, temperature)
                for t, token in enumerate(text):
                    total += of(kind, p[t].tolist(), q[t].tolist(), own[t, token].item()) / len(texts)
            tokens += sum(len(group.completions[i]) for i in texts) / len(texts) / len(kinds)
    return total / tokens


def found(models: Any, groups: list[Group], section: ObjectiveSection) -> float:
    """The loss of a batch as the trainer makes it."""
    student, teacher = models
    objective = loss_of(section, student, LiveTeacher(teacher, Route.SEGMENTS))
    out = objective(score(student, groups, states=objective.states, logits=objective.logits))
    assert bool(out.active.all())
    assert bool(torch.stack(list(out.metrics.values())).isfinite().any(0).all()), "every group has figures"
    return out.losses.sum().item() / sum(map(objective.weight, groups))


def kl(a: list[float], b: list[float]) -> float:
    return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))


def test_standard_distillation(models: Any) -> None:
    """ratio T^2 KL(p || q) - (1 - ratio) log q(y), a mean over tokens; log q(y) at temperature 1."""
    section = KdObjective(ratio=0.3, temperature=2.0)
    expected = literal(models, TEACHER_ALONE, lambda k, p, q, own: 0.3 * 4 * kl(p, q) - 0.7 * math.log(own), 2.0)
    assert found(models, TEACHER_ALONE, section) == pytest.approx(expected, abs=1e-6)


def test_standard_distillation_is_the_mix_of_trls_divergence_and_torchs_cross_entropy(
    models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL 1.16's forward KL (beta 0), a mean over tokens that aren't padding, and the same tokens' cross-entropy."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.gkd import GKDTrainer

    single = [replace(g, completions=g.completions[:1], chosen=1) for g in GROUPS]
    labels = torch.full((3, 7), -100)
    logits = torch.randn(2, 3, 7, V, dtype=torch.float64)  # padding has logits, too
    with torch.no_grad():
        for i, g in enumerate(single):
            (text,) = g.completions
            labels[i, : len(text)] = torch.tensor(text)
            for m, model in enumerate(models):
                out = model(input_ids=torch.tensor([[*g.prompt, *text]])).logits
                logits[m, i, : len(text)] = out[0, len(g.prompt) - 1 : -1]
    divergence = GKDTrainer.generalized_jsd_loss(logits[0], logits[1], labels, beta=0.0)
    nll = torch.nn.functional.cross_entropy(logits[0].flatten(0, 1), labels.flatten())
    expected = (0.3 * divergence + 0.7 * nll).item()
    assert found(models, single, KdObjective(ratio=0.3)) == pytest.approx(expected, abs=1e-6)


def test_defaults_are_those_of_the_papers_and_their_code() -> None:
    kd, f, gkd, distillm, minillm = (
        of() for of in (KdObjective, FDistillObjective, GkdObjective, DistillmObjective, MiniLlmObjective)
    )
    assert (kd.ratio, kd.temperature) == (0.5, 1)
    assert (f.divergence, f.beta, f.temperature, f.student_samples) == ("js", 0.5, 1, "fresh")
    assert (gkd.beta, gkd.student_share, gkd.temperature, gkd.sampling_temperature) == (0.5, 0.5, 1, 1)
    assert (distillm.divergence, distillm.skew) == ("skl", 0.1)
    assert (minillm.teacher_mix, minillm.single_step, minillm.length_normalization) == (0.2, 1, True)
    assert (minillm.discount, minillm.own_reward) == (1, False), "the paper's; its code: 0.95 and true"
    assert (minillm.reward_scaling, minillm.reward_clip, minillm.whiten) == (0.5, 100, True)
    assert (minillm.ppo_clip, minillm.ppo_epochs, minillm.rollouts) == (0.2, 4, 256)
    assert (minillm.pretraining, minillm.pretraining_weight) == (None, 1)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_f_distill(models: Any, temperature: float) -> None:
    """JS: (1 - beta) KL(p || m) on the teacher's texts, beta KL(q || m) on the student's; TVD: half of it on each."""

    def js(kind: str, p: list[float], q: list[float], own: float) -> float:
        m = [0.3 * b + 0.7 * a for a, b in zip(p, q, strict=True)]
        return temperature**2 * (0.7 * kl(p, m) if kind == "teacher" else 0.3 * kl(q, m))

    def tvd(kind: str, p: list[float], q: list[float], own: float) -> float:
        return temperature**2 * 0.5 * 0.5 * sum(abs(a - b) for a, b in zip(p, q, strict=True))

    options: dict[str, Any] = {"temperature": temperature}
    cases: list[tuple[list[Group], FDistillObjective, Callable[..., float]]] = [
        (GROUPS, FDistillObjective(divergence="js", beta=0.3, **options), js),
        (GROUPS, FDistillObjective(divergence="tvd", **options), tvd),
        (TEACHER_ALONE, FDistillObjective(divergence="kl", **options), lambda k, p, q, o: temperature**2 * kl(p, q)),
        (STUDENT_ALONE, FDistillObjective(divergence="rkl", **options), lambda k, p, q, o: temperature**2 * kl(q, p)),
    ]
    for groups, section, of in cases:
        assert found(models, groups, section) == pytest.approx(literal(models, groups, of, temperature), abs=1e-6)


@pytest.mark.parametrize("groups", [TEACHER_ALONE, STUDENT_ALONE])
@pytest.mark.parametrize("beta", [0.0, 0.2, 1.0])
def test_generalised_distillation_is_the_same_on_either_text(models: Any, groups: list[Group], beta: float) -> None:
    def of(kind: str, p: list[float], q: list[float], own: float) -> float:
        m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
        inside = beta * kl(p, m) + (1 - beta) * kl(q, m)
        return {0.0: kl(p, q), 1.0: kl(q, p)}.get(beta, inside)

    assert found(models, groups, GkdObjective(beta=beta)) == pytest.approx(literal(models, groups, of), abs=1e-6)


def test_generalised_distillation_is_not_scaled_by_its_temperature(models: Any) -> None:
    """Both softmaxes at temperature 2, the divergence as it is."""

    def of(kind: str, p: list[float], q: list[float], own: float) -> float:
        m = [0.3 * a + 0.7 * b for a, b in zip(p, q, strict=True)]
        return 0.3 * kl(p, m) + 0.7 * kl(q, m)

    section = GkdObjective(beta=0.3, temperature=2.0)
    assert found(models, TEACHER_ALONE, section) == pytest.approx(literal(models, TEACHER_ALONE, of, 2.0), abs=1e-6)


@pytest.mark.parametrize("groups", [TEACHER_ALONE, STUDENT_ALONE])
def test_distillm(models: Any, groups: list[Group]) -> None:
    def skl(kind: str, p: list[float], q: list[float], own: float) -> float:
        return kl(p, [0.1 * a + 0.9 * b for a, b in zip(p, q, strict=True)])

    def srkl(kind: str, p: list[float], q: list[float], own: float) -> float:
        return kl(q, [0.9 * a + 0.1 * b for a, b in zip(p, q, strict=True)])

    for name, of in (("skl", skl), ("srkl", srkl)):
        section = DistillmObjective.model_validate({"divergence": name})
        assert found(models, groups, section) == pytest.approx(literal(models, groups, of), abs=1e-6)


def rollout(group: Group, seed: int) -> Rollout:
    """The student's text of a group, with numbers that a rollout might have."""
    (text,) = group.completions
    torch.manual_seed(seed)
    numbers = {
        name: tuple(torch.empty(len(text)).uniform_(low, high).tolist())
        for name, low, high in (("old_logps", -5, -2), ("advantages", -2, 2), ("weights", 0.5, 1.5))
    }
    return Rollout(group.id, group.prompt, (text,), chosen=0, **numbers)


def test_minillm(models: Any) -> None:
    """single_step KL(q || p) + the clipped policy loss, a mean over the rollouts' tokens; documents' scaled
    cross-entropy beside it, outside that mean's count."""
    rollouts = [rollout(group, seed) for seed, group in enumerate(STUDENT_ALONE)]
    tokens = sum(len(r.completions[0]) for r in rollouts)
    document = Document("d", (3,), ((4, 5, 6),), chosen=0, scale=0.25)
    student, teacher = models
    expected = 0.0
    for r in rollouts:
        (text,) = r.completions
        q, p = (probabilities(m, r.prompt, text, 1.0) for m in (student, teacher))
        for t, token in enumerate(text):
            ratio = r.weights[t] * q[t, token].item() / math.exp(r.old_logps[t])
            clipped = min(max(ratio, 0.8), 1.2)
            policy = max(-r.advantages[t] * ratio, -r.advantages[t] * clipped)
            expected += 0.5 * kl(q[t].tolist(), p[t].tolist()) + policy
    own = probabilities(student, (3,), (4, 5, 6), 1.0)
    expected -= 0.25 * sum(own[t, token].log().item() for t, token in enumerate((4, 5, 6)))
    section = MiniLlmObjective(single_step=0.5)
    assert found(models, [rollouts[0], document, rollouts[1]], section) == pytest.approx(expected / tokens, abs=1e-6)


def test_minillm_sends_the_gradient_through_the_ratio_alone(models: Any) -> None:
    """-A rho grad log q, by hand. Old log-probabilities, advantages and weights are numbers, the teacher has none."""
    student, teacher = models
    student.requires_grad_(True)
    teacher.requires_grad_(True)
    r = rollout(STUDENT_ALONE[0], 0)
    objective = loss_of(
        MiniLlmObjective(single_step=0.0, ppo_clip=0.999), student, LiveTeacher(teacher, Route.SEGMENTS)
    )
    out = objective(score(student, [r], states=True, logits=False))
    ours = torch.autograd.grad(out.losses.sum(), list(student.parameters()))
    (text,) = r.completions
    logits = student(input_ids=torch.tensor([[*r.prompt, *text]])).logits[0, len(r.prompt) - 1 : -1]
    own = logits.log_softmax(-1).gather(1, torch.tensor(text)[:, None]).squeeze(1)
    old, advantages, weights = (torch.tensor(v, dtype=torch.float64) for v in (r.old_logps, r.advantages, r.weights))
    rho = weights * (own.detach() - old).exp()
    inside = (rho - 1).abs() < 0.999
    follows = inside | ((rho > 1) == (advantages < 0))  # the pessimistic side has a gradient outside the bounds, too
    by_hand = torch.autograd.grad((-advantages * rho * follows * own).sum(), list(student.parameters()))
    assert bool(follows.any())
    for a, b in zip(ours, by_hand, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert all(p.grad is None for p in teacher.parameters())


def test_a_batch_may_be_split_anyhow(models: Any) -> None:
    """Losses and weights of groups scored together are those of groups scored alone."""
    student, teacher = models
    for section in (KdObjective(), FDistillObjective(), GkdObjective(), DistillmObjective()):
        objective = loss_of(section, student, LiveTeacher(teacher, Route.SEGMENTS))
        groups = GROUPS if isinstance(section, FDistillObjective) else TEACHER_ALONE
        together = objective(score(student, groups, states=True, logits=False)).losses
        alone = [objective(score(student, [g], states=True, logits=False)).losses for g in groups]
        torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-9)


def test_the_order_of_equal_texts_does_not_matter(models: Any) -> None:
    """The mean over a kind's texts: swapping two of the teacher's changes nothing."""
    a = GROUPS[0]
    swapped = replace(a, completions=(a.completions[1], a.completions[0], a.completions[2]))
    section = FDistillObjective()
    assert found(models, [a], section) == pytest.approx(found(models, [swapped], section), abs=1e-9)
