"""Whether two policies speak of the same tokens, so that their predictions can be compared."""

from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from plad.errors import PolicyError

_WAY_OUT = (
    "PLaD (rank, margin) and SeqKD (sft) pass only text between teacher and student: use one of them as objective\n"
    "or use a student of the teacher's family, with the teacher's tokenizer"
)


def require_same_vocabulary(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
    """Refuse two tokenizers that don't give every token the same id."""
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours == theirs:
        return
    raise PolicyError(
        f"teacher and student have different vocabularies ({_difference(ours, theirs)}), so the teacher's logits say "
        "nothing about the student's tokens",
        where="teacher.model, student.model",
        fix=_WAY_OUT,
    )


def _difference(ours: Mapping[str, int], theirs: Mapping[str, int]) -> str:
    sizes = f"{len(theirs):,} and {len(ours):,} tokens"
    token = next((t for t in sorted(theirs, key=theirs.__getitem__) if ours.get(t) != theirs[t]), None)
    if token is None:
        return sizes
    found = f"is {ours[token]} here" if token in ours else "is none here"
    return f"{sizes}; the teacher's token {theirs[token]}, {token!r}, {found}"


def require_same_format(student: Mapping[str, object], teacher: Mapping[str, object]) -> None:
    """Refuse two formats (`PromptFormat.describe()`) that put different tokens before and after a text."""
    differ = [key for key in sorted({*student, *teacher}) if student.get(key) != teacher.get(key)]
    if differ:
        what = ", ".join(f"{key} {teacher.get(key)!r} and {student.get(key)!r}" for key in differ)
        raise PolicyError(
            f"teacher and student see prompts in different formats ({what}), and an objective on logits scores the "
            "same tokens with both",
            where="teacher.prompt, student.prompt",
            fix=f"give both the same prompt section\n{_WAY_OUT}",
        )
