"""Groups, and the rows they are packed into."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plad.errors import DataError
from plad.scoring.layout import Group, lay_out, pack, pad

CPU = torch.device("cpu")


def group(prompt: int, *completions: int, name: str = "g") -> Group:
    return Group(name, (7,) * prompt, tuple((8,) * n for n in completions))


groups = st.builds(
    lambda prompt, completions: group(prompt, *completions),
    st.integers(1, 9),
    st.lists(st.integers(0, 5), min_size=1, max_size=3),
)


def test_a_group_takes_its_prompt_and_all_but_the_last_token_of_each_completion() -> None:
    assert group(4, 3, 1, 0).tokens == 4 + 2 + 0 + 0


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(DataError, match="row-3: the prompt has no tokens"):
        Group("row-3", (), ((1,),))


def test_a_group_without_completions_is_refused() -> None:
    with pytest.raises(DataError, match="row-3: there is no completion"):
        Group("row-3", (1,), ())


def test_without_a_budget_every_group_has_its_own_row() -> None:
    given_groups = [group(2, 1), group(3, 1)]
    assert pack(given_groups, None) == [[given_groups[0]], [given_groups[1]]]


def test_a_row_is_filled_to_the_last_token() -> None:
    a, b, c = group(4, 2), group(4, 2), group(1, 1)
    assert pack([a, b, c], 10) == [[a, b], [c]]
    assert pack([a, b, c], 11) == [[a, b, c]]
    assert pack([a, b, c], 9) == [[a], [b, c]]


def test_a_group_over_the_budget_has_a_row_of_its_own() -> None:
    small, big = group(2, 2), group(20, 2)
    assert pack([small, big, small, small], 6) == [[small], [big], [small, small]]


@given(st.lists(groups, max_size=12), st.integers(1, 30))
def test_rows_hold_the_groups_in_order_and_keep_the_budget(given_groups: list[Group], budget: int) -> None:
    rows = pack(given_groups, budget)
    assert [g for row in rows for g in row] == given_groups
    assert all(row for row in rows)
    assert all(len(row) == 1 or sum(g.tokens for g in row) <= budget for row in rows)
    assert all(sum(g.tokens for g in a) + b[0].tokens > budget for a, b in itertools.pairwise(rows))


def test_a_row_laid_out_by_hand() -> None:
    """Two groups, [1 2 3] with completions [4 5 6] and [7], and [1] with [8 9].

    Read:      1 2 3 | 4 5 |   | 1 | 8      (7 and the last tokens predict nothing)
    Position:  0 1 2 | 3 4 |   | 0 | 1
    Index:     0 1 2 | 3 4 |   | 5 | 6
    4 and 7 are both predicted at index 2, kept once; 5 at 3, 6 at 4; 8 at 5, 9 at 6.
    """
    row = lay_out([Group("a", (1, 2, 3), ((4, 5, 6), (7,))), Group("b", (1,), ((8, 9),))], CPU)
    assert row.input_ids.tolist() == [[1, 2, 3, 4, 5, 1, 8]]
    assert row.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1]]
    assert row.keep.tolist() == [2, 3, 4, 5, 6]
    assert row.sources.tolist() == [0, 1, 2, 0, 3, 4]
    assert row.targets.tolist() == [4, 5, 6, 7, 8, 9]


@given(st.lists(groups, min_size=1, max_size=5))
def test_every_completion_token_is_predicted_by_the_token_before_it(given_groups: list[Group]) -> None:
    row = lay_out(given_groups, CPU)
    assert row.input_ids.shape == row.position_ids.shape == (1, sum(g.tokens for g in given_groups))
    at = row.position_ids[0, row.keep[row.sources]].tolist()
    wanted = [len(g.prompt) - 1 + i for g in given_groups for c in g.completions for i in range(len(c))]
    assert at == wanted
    assert len(row.keep.unique()) == len(row.keep) == sum(1 + sum(g.branches) for g in given_groups)


def test_sequences_are_filled_up_on_the_right() -> None:
    assert pad([(1, 2, 3), (), (4,)], 9, CPU).tolist() == [[1, 2, 3], [9, 9, 9], [4, 9, 9]]


def test_each_chosen_text_is_preferred_to_all_others_but_context_unless_pairs_say_otherwise() -> None:
    four = ((1,), (2,), (3,), (4,))
    assert Group("g", (7,), four, 2).preferences == ((0, 2), (0, 3), (1, 2), (1, 3))
    assert Group("g", (7,), four, 2, context=1).preferences == ((0, 2), (1, 2))
    assert Group("g", (7,), four, 2, pairs=((1, 0),)).preferences == ((1, 0),)
    assert Group("g", (7,), four, 4).preferences == ()


def test_values_that_do_not_fit_the_completions_are_refused() -> None:
    Group("row-3", (1,), ((1,), (2,), (3,)), values={"quality": (1.0, 2.0)}, context=1)
    with pytest.raises(DataError, match="row-3: 1 values of quality for 2 completions"):
        Group("row-3", (1,), ((1,), (2,)), values={"quality": (1.0,)})
