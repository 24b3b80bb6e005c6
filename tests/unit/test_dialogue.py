"""Dialogues of one text, as the hub's HH data has them."""

import json

import pytest
from pydantic import ValidationError

from plad.config.root import Columns
from plad.data.read import read_examples
from plad.data.rows import BadRowsError
from plad.data.shapes import split_dialogue

TURNS = (
    "\n\nHuman: How long do I boil an egg?"
    "\n\nAssistant: Hard or soft?"
    "\n\nHuman: Soft, please.\n\nI like it runny."
    "\n\nAssistant: Six minutes.\n\nThen cold water."
)
ONE = "\n\nHuman: Name a tree.\n\nAssistant: An oak."


def test_all_before_the_last_answer_is_the_prompt_as_it_stands() -> None:
    assert split_dialogue(ONE, "text") == ("Human: Name a tree.\n\nAssistant:", "An oak.")
    prompt, answer = split_dialogue(TURNS, "text")
    assert prompt == TURNS.strip().removesuffix(" Six minutes.\n\nThen cold water.")
    assert answer == "Six minutes.\n\nThen cold water."


def test_every_turn_is_a_message() -> None:
    prompt, answer = split_dialogue(TURNS, "messages")
    assert prompt == (
        {"role": "user", "content": "How long do I boil an egg?"},
        {"role": "assistant", "content": "Hard or soft?"},
        {"role": "user", "content": "Soft, please.\n\nI like it runny."},
    )
    assert answer == "Six minutes.\n\nThen cold water."


def test_a_name_within_a_line_is_no_turn() -> None:
    text = "\n\nHuman: What does 'Assistant: yes' mean?\n\nAssistant: Human: is a name."
    prompt, answer = split_dialogue(text, "messages")
    assert [m["content"] for m in prompt] == ["What does 'Assistant: yes' mean?"]  # type: ignore[index]
    assert answer == "Human: is a name."


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("An oak.", "doesn't begin with 'Human:'"),
        ("\n\nAssistant: Hello." + ONE, "doesn't begin with 'Human:'"),
        ("\n\nHuman: Name a tree.", "doesn't end with an answer"),
        (TURNS + "\n\nHuman: Thanks.", "doesn't end with an answer"),
        ("\n\nHuman: Name a tree.\n\nAssistant: \n", "last answer is blank"),
    ],
)
@pytest.mark.parametrize("prompt", ["text", "messages"])
def test_what_is_no_dialogue_is_refused(text: str, why: str, prompt: str) -> None:
    with pytest.raises(ValueError, match=why):
        split_dialogue(text, prompt)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\n\nHuman: A tree?\n\nHuman: Please!\n\nAssistant: An oak.", "'Human:' speaks twice"),
        ("\n\nHuman: A tree?\n\nAssistant: Oak.\n\nAssistant: An oak.", "'Assistant:' speaks twice"),
        ("\n\nHuman: \n\nAssistant: An oak.", "blank turn"),
    ],
)
def test_messages_take_turns_and_text_needs_not(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        split_dialogue(text, "messages")
    assert split_dialogue(text, "text")[1] == "An oak."


def test_rows_as_the_hub_has_them(tmp_path) -> None:
    """Two whole dialogues a row that differ in the last answer; a damaged one is named by its line."""
    file = tmp_path / "hh.jsonl"
    good = {"chosen": TURNS, "rejected": TURNS.replace("Six", "Sixty")}
    file.write_text(json.dumps(good) + "\n" + json.dumps({"chosen": "no dialogue", "rejected": ONE}) + "\n")
    columns = Columns(dialogue="chosen", dialogue_prompt="messages")
    with pytest.raises(BadRowsError, match="chosen: a dialogue that doesn't begin") as error:
        read_examples(str(file), columns)
    assert "hh.jsonl:2" in str(error.value)
    result = read_examples(str(file), columns, skip_invalid=True, need_references=True)
    assert (len(result.examples), result.skipped) == (1, 1)
    assert result.examples[0].references == ("Six minutes.\n\nThen cold water.",)
    assert len(result.examples[0].prompt) == 3


def test_a_dialogue_takes_the_place_of_prompt_and_reference() -> None:
    with pytest.raises(ValidationError, match="dialogue holds prompt and target; leave reference out"):
        Columns(dialogue="chosen", reference="rejected")


def test_tldr_rows_as_the_hub_has_them(tmp_path) -> None:
    """One copy names its columns prompt and completion, the other prompt and label."""
    file = tmp_path / "tldr.jsonl"
    post = "SUBREDDIT: r/garden\n\nTITLE: Trees\n\nPOST: I planted an oak.\n\nTL;DR:"
    for name, columns in (("completion", Columns()), ("label", Columns(reference="label"))):
        file.write_text(json.dumps({"prompt": post, name: " Planted a tree."}) + "\n")
        example = read_examples(str(file), columns, need_references=True).examples[0]
        assert (example.prompt, example.references) == (post, ("Planted a tree.",))
