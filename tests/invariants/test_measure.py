"""What is measured before training is what the student would measure in training."""

import pytest
import torch

from plad.objectives.plad import MarginObjective
from plad.objectives.similarity import similarity
from plad.scoring.layout import Group
from plad.scoring.score import Route, score
from plad.train.loss import TextLoss
from plad.train.measure import measure, weights_digest
from tests.support.scoring_families import routes, some_groups, tiny, widen

GROUPS = [Group(g.id, g.prompt, (*g.completions, (7, 8, 9, 7)), context=1) for g in some_groups()]


@pytest.mark.parametrize(("family", "route"), [(f, r) for f in ("llama", "t5") for r in routes(f)])
@pytest.mark.parametrize("max_tokens", [None, 40, 1000])
def test_values_are_those_of_the_core_however_they_are_packed(
    family: str, route: Route, max_tokens: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(family).train()
    widen(monkeypatch, model)
    done: list[int] = []
    found = measure(
        model,
        GROUPS,
        route=route,
        reference_logp=True,
        spans=(1, 2),
        max_tokens=max_tokens,
        advance=done.append,
    )
    model.eval()
    for group, values in zip(GROUPS, found, strict=True):
        alone = score(model, [group], route=Route.PLAIN, states=True)
        assert values["reference_logp"] == pytest.approx(alone.sums()[:-1].tolist(), abs=1e-9)
        assert alone.states is not None
        candidates = torch.arange(group.candidates)
        reference = torch.full_like(candidates, group.candidates)
        expected = similarity(alone.states, alone.lengths, candidates, reference, (1, 2))
        assert values["similarity"] == pytest.approx(expected.tolist(), abs=1e-9)
    assert sum(done) == len(GROUPS)


def test_only_what_is_wanted_is_measured() -> None:
    model = tiny("llama")
    plain = [Group(g.id, g.prompt, g.completions) for g in some_groups()]
    for groups, logp, spans, names in (
        (plain, True, None, ["reference_logp"]),
        (GROUPS, False, (1,), ["similarity"]),
    ):
        found = measure(model, groups, route=Route.SEGMENTS, reference_logp=logp, spans=spans, max_tokens=None)
        assert all(list(values) == names for values in found)


def test_frozen_scores_equal_live_ones_before_the_first_step() -> None:
    model = tiny("llama")
    groups = [g for g in GROUPS if g.candidates > 1]
    values = measure(model, groups, route=Route.SEGMENTS, reference_logp=False, spans=(1, 2, 4), max_tokens=None)
    frozen = [Group(g.id, g.prompt, g.completions[:-1], values=v) for g, v in zip(groups, values, strict=True)]
    make = {"beta": 2.0, "length_normalization": "mean", "spans": (1, 2, 4)}
    once = TextLoss(MarginObjective(scores="frozen", **make))(score(model, frozen))  # type: ignore[arg-type]
    live = TextLoss(MarginObjective(scores="live", **make))(score(model, groups, states=True))  # type: ignore[arg-type]
    torch.testing.assert_close(live.losses, once.losses)
    assert live.metrics.keys() == once.metrics.keys()
    for name, value in live.metrics.items():
        torch.testing.assert_close(value, once.metrics[name])


def test_other_weights_have_another_digest() -> None:
    model = tiny("llama")
    before = weights_digest(model)
    assert weights_digest(tiny("llama")) == before
    with torch.no_grad():
        model.model.norm.weight[0] += 1e-12
    assert weights_digest(model) != before
    assert weights_digest(tiny("llama", torch.bfloat16)) != before
