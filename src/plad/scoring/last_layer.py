"""The last layer, computed only at the positions whose output is read.

In every layer but the last, a token's output feeds the tokens after it. In the last one only the positions whose logits
are wanted are read; the others matter through their keys and values alone. Their queries, their attention's output and
their feed-forward are left out here, which changes nothing but the time.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from plad.scoring.head import text_config

_TOKEN_BY_TOKEN = frozenset({"q_proj", "o_proj"})


def last_layer(model: PreTrainedModel) -> int | None:
    """Index of the last layer, where part of it can be left out; else None."""
    return None if _find(model) is None else text_config(model).num_hidden_layers - 1


def _find(model: PreTrainedModel) -> nn.Module | None:
    count = getattr(text_config(model), "num_hidden_layers", None)
    stacks = (m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count)
    stack = next(stacks, None)
    return None if stack is None or not _modules(stack[-1]) else stack[-1]


def _modules(layer: nn.Module) -> list[nn.Module]:
    """The modules of a layer that work token by token: queries, the output of attention, a dense feed-forward."""
    named = [(name.rpartition(".")[2], module) for name, module in _named(layer)]
    return [m for name, m in named if name in _TOKEN_BY_TOKEN or (name == "mlp" and _is_dense(m))]


def _named(module: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    return module.named_modules()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  # untyped


def _is_dense(module: nn.Module) -> bool:
    """Whether a feed-forward is a plain one: a mixture of experts may return more than its output."""
    parts = [name for name, _ in _named(module)]
    return type(module).__name__.endswith("MLP") and not any("expert" in n or "router" in n for n in parts)


@contextmanager
def read_at(model: PreTrainedModel, keep: Tensor, tokens: int) -> Generator[None]:
    """Inside the block, the last layer gives the positions `keep` of a row alone; the others' output is not defined.

    Args:
        keep: [R] positions.
        tokens: T, of the row.
    """
    layer = _find(model) if len(keep) < tokens else None
    if layer is None:
        yield
        return

    def narrow(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].index_select(1, keep), *args[1:])

    def widen(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output.new_zeros(output.shape[0], tokens, output.shape[2]).index_copy(1, keep, output)

    modules = _modules(layer)
    handles = [m.register_forward_pre_hook(narrow) for m in modules] + [m.register_forward_hook(widen) for m in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
