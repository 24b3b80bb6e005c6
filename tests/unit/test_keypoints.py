"""The rule that marks key points, and what the case browser is given."""

import json

import pytest

from plad.records import Example, Judgement, Verdict
from plad.report.parts.blocks import Examples
from plad.report.parts.run_facts import EvaluatedAnswer
from plad.report.sections.examples import BUDGET, LIMIT, ShownSystem, embed, pack
from plad.report.sections.keypoints import counts, mark_answer, mark_shared, share_in, words


def marked(text: str, prompt: str, *references: str, grounded: bool = True) -> list[str]:
    found = mark_answer(text, counts(prompt), [counts(r) for r in references], grounded=grounded)
    assert "".join(run[i % 2 :] for i, run in enumerate(found.runs)) == text
    return [run for i, run in enumerate(found.runs) if i % 2]


PROMPT = "He lost the game, hit his desk, and the graphics card broke. He is 19 and likes pizza."


def test_shared_redundant_and_unsupported_words() -> None:
    """The reference says lost, game, card, broke; pizza is in the prompt, a monitor nowhere, lost is said twice."""
    found = marked(
        "He lost the game. His monitor broke, he likes pizza, he lost.", PROMPT, "lost a game, broke the card"
    )
    assert found == ["glost the game", "rmonitor", "gbroke", "ylikes pizza", "ylost"]


def test_words_are_compared_by_their_stem_and_not_by_case() -> None:
    assert marked("Models LEARNED", "x", "a model learns") == ["gModels LEARNED"]


def test_a_word_may_be_said_as_often_as_in_one_reference() -> None:
    assert marked("game game game", "", "game after game", "game") == ["ggame game", "ygame"]


def test_marks_end_with_a_sentence_and_after_more_than_three_function_words() -> None:
    assert marked("game. card", "", "game card") == ["ggame", "gcard"]
    assert marked("game of the card", "", "game card") == ["ggame of the card"]
    assert marked("game that you would have card", "", "game card") == ["ggame", "gcard"]


def test_numbers_are_content_and_short_words_are_not() -> None:
    assert marked("19 ox go", PROMPT, "nothing") == ["y19"]


def test_where_answers_do_not_draw_on_the_prompt_nothing_is_unsupported() -> None:
    assert marked("card pizza unicorn card", "pizza", "card", grounded=False) == ["gcard", "ycard"]


def test_without_a_reference_nothing_is_marked() -> None:
    assert marked("card pizza unicorn", "pizza") == []


def test_unspaced_scripts_are_compared_by_pairs_of_characters() -> None:
    """The reference says 模型 and 学习; the prompt 数据; 火星 stands nowhere. One character in common is nothing."""
    assert marked("模型学习数据火星", "数据", "模型学习很多") == ["g模型学习", "y数据", "r火星"]
    assert marked("学模", "", "模型学习") == ["r学模"]


def test_marks_of_scripts_with_combining_letters_keep_words_whole() -> None:
    text = "नमस्ते दुनिया"
    assert [text[w.start : w.end] for w in words(text)] == ["नमस्ते", "दुनिया"]


def test_the_share_of_targets_that_stands_in_the_prompts() -> None:
    pairs = [(counts("game card"), counts("game")), (counts("pizza desk"), counts("nothing"))]
    assert share_in(pairs) == 0.25
    assert share_in([]) is None
    assert mark_shared("the game", counts("game")).counts == {"g": 1}


# -- cases ------------------------------------------------------------------------------------------


def packed(n: int, prompt: str, answer: str = "an answer of some words here") -> Examples:
    examples = {f"e{i:05}": Example(f"e{i:05}", f"{i} {prompt}", (f"{i} target",)) for i in range(n)}
    judged = [Judgement(i, "judge", "student", "target", Verdict.WIN, 0.75, 0.5) for i in examples]
    systems = [
        ShownSystem(
            k,
            k,
            dict.fromkeys(examples, EvaluatedAnswer(text=f"{k} {answer}", outcome="ok", tokens=5)),
            judged if k == "student" else (),
        )
        for k in ("student", "student_sft", "teacher")
    ]
    found = pack(examples, systems)
    assert found is not None
    return found


def test_a_thousand_examples_with_long_prompts_stay_within_the_budget() -> None:
    """4,000 characters a prompt would be 4 MB: every text is cut at the same length, and says by how much."""
    found = packed(1000, "word of the prompt, " * 200)
    assert (found.shown, found.total) == (1000, 1000)
    assert len(found.json.encode()) <= BUDGET * 1.05
    assert 600 <= found.cut < 4000
    case = json.loads(found.json)["cases"][5]
    assert case["prompt"][0][3] == len("5 ") + 4000 - found.cut
    assert case["texts"][1][2] == 0


def test_more_examples_than_a_page_holds_are_spaced_evenly() -> None:
    found = packed(2500, "p")
    assert (found.shown, found.total) == (LIMIT, 2500)
    ids = [c["id"] for c in json.loads(found.json)["cases"]]
    assert (ids[:3], ids[-1]) == (["e00000", "e00002", "e00005"], "e02497")


def test_scores_of_each_judge_and_system_stand_beside_the_texts() -> None:
    found = packed(1, "p")
    (case,) = json.loads(found.json)["cases"]
    assert case["scores"] == [[[0.75, 0.5], None, None]]
    assert json.loads(found.json)["systems"] == [
        ["target", "Human target"],
        ["student", "student"],
        ["student_sft", "student_sft"],
        ["teacher", "teacher"],
    ]


@pytest.mark.parametrize("text", ["</script>", "<!--", "a & b", "\u2028", 'quote " and \\'])
def test_embedded_json_reads_back_and_cannot_leave_its_element(text: str) -> None:
    assert json.loads(embed([text])) == [text]
    assert "<" not in embed([text])


def test_secrets_in_answers_do_not_reach_the_page() -> None:
    found = packed(1, "my key is sk-abcdefgh12345", "mail https://me:pa55word@host/x")
    assert "sk-abcdefgh" not in found.json
    assert "pa55word" not in found.json
