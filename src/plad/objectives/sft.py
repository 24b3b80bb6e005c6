"""Cross-entropy."""

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
