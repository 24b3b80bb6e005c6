"""The two halves and leakage between splits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plad.data.split import nested_share, prompt_key, refuse_leakage, split_train
from plad.errors import DataError
from plad.records import Example


def rows(*prompts):
    return [Example(str(i), p, ("r",)) for i, p in enumerate(prompts)]


def test_240_prompts_are_cut_into_120_and_120():
    sft, distill = split_train(rows(*(f"prompt {i}" for i in range(240))), 0.5, 0)
    assert (len(sft), len(distill)) == (120, 120)


@pytest.mark.parametrize(("share", "expected"), [(0.25, 25), (0.1, 10), (0.9, 90)])
def test_the_share_is_the_share_of_distinct_prompts(share, expected):
    assert len(split_train(rows(*map(str, range(100))), share, 3)[0]) == expected


@given(st.lists(st.text(max_size=4), min_size=8, max_size=40), st.integers(0, 5))
def test_no_prompt_stands_in_both_halves_and_none_is_lost(prompts, seed):
    examples = rows(*prompts, "first one", "second one", "third one")
    sft, distill = split_train(examples, 0.5, seed)
    assert not {prompt_key(e.prompt) for e in sft} & {prompt_key(e.prompt) for e in distill}
    assert sorted(e.id for e in sft + distill) == sorted(e.id for e in examples)


def test_order_of_the_file_changes_nothing_and_the_seed_does():
    examples = rows(*map(str, range(50)))
    half = {e.id for e in split_train(examples, 0.5, 1)[0]}
    assert {e.id for e in split_train(examples[::-1], 0.5, 1)[0]} == half
    assert {e.id for e in split_train(examples, 0.5, 2)[0]} != half


def test_duplicates_stay_together():
    examples = rows(*(f"p{i % 10}" for i in range(40)))
    sft, distill = split_train(examples, 0.5, 0)
    assert len(sft) == len(distill) == 20


def test_a_half_may_not_be_empty():
    with pytest.raises(DataError, match=r"1 distinct training prompts .* leave 0"):
        split_train(rows("a", "A "), 0.5, 0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hello world", "hello\n WORLD "),
        ("ﬁne", "fine"),
        ("e\u0301", "\u00e9"),
        ("Hi", ({"role": "user", "content": "hi"},)),
    ],
)
def test_prompts_that_read_alike_have_one_key(one, other):
    assert prompt_key(one) == prompt_key(other)


def test_other_roles_and_other_words_have_other_keys():
    system = ({"role": "system", "content": "Hi"}, {"role": "user", "content": "Hi"})
    assert len({prompt_key("Hi"), prompt_key("Hi!"), prompt_key(system)}) == 3


@pytest.mark.parametrize("pair", [("train", "validation"), ("train", "test"), ("validation", "test")])
def test_a_prompt_in_two_splits_is_refused_with_both_rows(pair):
    splits = {name: [(f"{name}.jsonl:1", Example("a", f"only in {name}"))] for name in ("train", "validation", "test")}
    splits[pair[0]].append((f"{pair[0]}.jsonl:7", Example("b", "Leaked  prompt")))
    splits[pair[1]].append((f"{pair[1]}.jsonl:9", Example("c", "leaked prompt")))
    with pytest.raises(DataError) as e:
        refuse_leakage(splits)
    assert f"{pair[0]}.jsonl:7 ({pair[0]}) = {pair[1]}.jsonl:9 ({pair[1]}, id c)" in str(e.value)
    assert e.value.what.startswith("1 prompt(s)")
    assert "-> remove" in str(e.value)


def test_duplicates_inside_one_split_are_no_leak():
    refuse_leakage({"train": [("t:1", Example("a", "x")), ("t:2", Example("b", "x"))], "test": []})


def test_shares_are_nested_sizes_are_right_and_order_is_kept():
    examples = [Example(f"e{i}", f"prompt {i % 40}") for i in range(50)]  # ten prompts stand twice
    before: list[Example] = []
    for share, n in ((0.0, 0), (0.01, 1), (0.05, 2), (0.5, 20), (0.999, 40), (1.0, 40)):
        found = nested_share(examples, share, 7, "test")
        assert len({e.prompt for e in found}) == n
        assert [e for e in examples if e in found] == found
        assert set(before) <= set(found)
        before = found


def test_a_share_does_not_depend_on_the_order_and_every_purpose_chooses_for_itself():
    examples = [Example(f"e{i}", f"prompt {i}") for i in range(50)]
    found = nested_share(examples, 0.3, 7, "test")
    assert set(nested_share(examples[::-1], 0.3, 7, "test")) == set(found)
    assert nested_share(examples, 0.3, 7, "other") != found
    assert nested_share(examples, 0.3, 8, "test") != found
