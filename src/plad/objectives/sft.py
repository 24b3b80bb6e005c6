"""Cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from plad.config.objectives import Needs
from plad.objectives.base import Objective, ObjectiveOut, Texts

if TYPE_CHECKING:
    from torch import Tensor


def sft(logps: Tensor) -> Tensor:
    """Cross-entropy of texts; on a teacher's answers it is sequence-level knowledge distillation.

        L_sft = -log P(y|x) = -sum_n log P(y_n|x, y_<n)

    Args:
        logps: [B] log P(y|x) in nats; of the whole text, or a token for the mean token's cross-entropy.

    Returns:
        [B] losses, in the unit of `logps`.

    Source: PLaD (arXiv 2406.02886), Eq. 2 with p' = p (SeqKD: Kim and Rush, 2016) or p' = data.
    """
    return -logps


class SftObjective(Objective):
    """Cross-entropy on the teacher's answers: SeqKD. A batch's loss is a mean over its tokens."""

    type: Literal["sft"] = "sft"

    @property
    def needs(self) -> Needs:
        """The teacher's answers alone."""
        return Needs()

    def describe(self) -> str:
        """It has no settings."""
        return "cross-entropy on the teacher's answers (sequence-level knowledge distillation)"

    def weight(self, lengths: Sequence[int]) -> float:
        """Tokens of the prompt's texts."""
        return float(sum(lengths))

    def loss(self, texts: Texts) -> ObjectiveOut:
        """-sum log P of a prompt's texts, in nats; 0 for an empty one."""
        losses = texts.total(sft(texts.sums), texts.group)
        tokens = texts.lengths.new_zeros(texts.groups).index_add(0, texts.group, texts.lengths)
        return ObjectiveOut(losses, tokens > 0, {"nll": losses.detach() / tokens.clamp(min=1)})
