"""Judges for tests: tiny reward models over words, and scripts of a server that judges."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from tests.support.servers.scripted import Call, Response, answer

JUDGE_WORDS = [
    "[PAD]",
    "[CLS]",
    "[SEP]",
    "[UNK]",
    "good",
    "bad",
    "what",
    "is",
    "a",
    "long",
    "answer",
    "user",
    "assistant",
    "system",
]


def judge_tokenizer(
    *, model_inputs: Sequence[str] = ("input_ids", "token_type_ids", "attention_mask"), **special: str
) -> PreTrainedTokenizerFast:
    core = Tokenizer(WordLevel({w: i for i, w in enumerate(JUDGE_WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = WhitespaceSplit()
    core.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=list(model_inputs),
        **special,
    )


def bert_config(labels: int = 1) -> BertConfig:
    return BertConfig(
        vocab_size=len(JUDGE_WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        pad_token_id=0,
        id2label={i: str(i) for i in range(labels)},
    )


def bert(folder: Path, labels: int = 1) -> BertForSequenceClassification:
    torch.manual_seed(0)
    model = BertForSequenceClassification(bert_config(labels))
    torch.nn.init.normal_(model.classifier.weight, std=3.0)  # a fresh head is nearly flat
    model.save_pretrained(folder)
    judge_tokenizer(pad_token="[PAD]").save_pretrained(folder)
    return model.eval()


@dataclass(frozen=True)
class Seen:
    """What a model sees of a question."""

    request: str
    answers: dict[str, str]  # label -> text
    tie: str

    @property
    def labels(self) -> list[str]:
        return list(self.answers)


def read(call: Call) -> Seen:
    system, user = (m["content"] for m in call.body["messages"])
    nonce = user.split(" ", 1)[0]
    parts = [p.split("\n", 1) for p in f"\n{user}".split(f"\n{nonce} ")[1:]]
    assert [p[0].split()[0] for p in parts] == ["request", "answer", "answer", "end"]
    answers = {title.split()[1]: json.loads(text) for title, text in parts[1:3]}
    tie = re.search(r"(\w+) if neither is\.$", system)
    assert tie is not None
    return Seen(parts[0][1], answers, tie.group(1))


def verdict(label: str) -> Response:
    return answer(json.dumps({"reason": "so it seems", "verdict": label}))


def honest(call: Call) -> Response:
    """The answer with more "good" is better."""
    seen = read(call)
    a, b = (text.count("good") for text in seen.answers.values())
    return verdict(seen.tie if a == b else seen.labels[0 if a > b else 1])


def first(call: Call) -> Response:
    """Always the first."""
    return verdict(read(call).labels[0])
