"""Engine `vllm`: a local model, sampled by vLLM in this process."""

import importlib.util
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from plad.answers.engine import EngineKind, EngineResources, Inspection, Record, fitting
from plad.answers.question import Question, Sampling, Spec
from plad.answers.reply import Reply
from plad.config.base import PACES, PositiveInt
from plad.config.models import ModelSection
from plad.errors import Findings, MissingExtraError, PolicyError
from plad.policy.context import context_of
from plad.policy.resolve import is_adapter, resolve_model
from plad.records import Example, Outcome

if TYPE_CHECKING:
    from plad.policy.prompt import PromptFormat

log = logging.getLogger("plad")

TokenIds = tuple[int, ...]
Start = Callable[[], Any]
"""Starts vLLM; called again after it died."""


class VllmEngine(EngineKind):
    """A local model, sampled by vLLM in this process: fast on a GPU."""

    type: Literal["vllm"] = "vllm"
    chunk: Annotated[PositiveInt, PACES] = Field(
        default=512, description="Prompts handed over at once; each whole chunk is recorded."
    )
    gpu_memory_utilization: Annotated[float, PACES] = Field(
        default=0.9, gt=0, le=1, description="Share of the GPU's memory it takes."
    )
    tensor_parallel_size: Annotated[PositiveInt, PACES] = Field(default=1, description="GPUs that share the model.")
    timeout_s: Annotated[float, PACES] = Field(
        default=3600.0, gt=0, description="Seconds for a chunk, after which vLLM counts as hung."
    )

    local: ClassVar[bool] = True

    def require(self) -> None:
        """Raise the way out where vLLM isn't installed.

        Raises:
            MissingExtraError: it isn't.
        """
        if importlib.util.find_spec("vllm") is None:
            raise MissingExtraError(
                "engine vllm needs the package vllm and a GPU",
                where="teacher.engine",
                fix="pip install 'plad[vllm]'\nor use engine transformers",
            )

    def check(self, findings: Findings, task: Inspection) -> None:
        """The package, and whether there is a GPU; the model is looked at as any whose weights are here."""
        from plad.policy.backend import choose_device

        self.require()
        if choose_device()[0].type != "cuda":
            what = "vllm, but no GPU is seen here; engine transformers runs without one"
            findings.add("note", "teacher.engine", what)

    def open(self, resources: EngineResources) -> "Vllm":
        """The teacher as it is, or fine-tuned; vLLM starts with the first question."""
        self.require()
        section = resources.teacher
        folder = resources.folder or resolve_model(section.model, section.revision)
        return self.load(section, folder, resources.weights)

    def load(self, section: ModelSection, folder: Path, weights: str) -> "Vllm":
        """The engine of a model folder, or of an adapter folder on its base.

        Raises:
            MissingExtraError: vLLM isn't installed.
            PolicyError: the model can't be used, or is an encoder-decoder.
        """
        from plad.policy.folder import read_format
        from plad.policy.lora import read_adapter

        self.require()
        adapter = read_adapter(folder) if is_adapter(folder) else None
        base = resolve_model(adapter.base, adapter.revision) if adapter else folder
        prompt, _, config = read_format(folder, base, section.prompt)
        context, apart = context_of(config)
        if apart:
            raise PolicyError("vLLM samples decoder-only models", where="teacher.engine", fix="use engine transformers")

        def start() -> Any:
            lora: dict[str, Any] = {"enable_lora": True, "max_lora_rank": _rank(adapter.rank)} if adapter else {}
            return import_module("vllm").LLM(
                model=str(base),
                dtype=section.dtype,
                trust_remote_code=False,
                gpu_memory_utilization=self.gpu_memory_utilization,
                tensor_parallel_size=self.tensor_parallel_size,
                **lora,
            )

        return Vllm(
            *(start, prompt, weights, context or 1 << 20, section.dtype),
            *(self.chunk, folder if adapter else None, self.timeout_s),
        )


@dataclass
class Vllm:
    """A model that vLLM samples; prompts are encoded here, as training encodes them.

    Attributes:
        weights: fingerprint of the weights and the tokenizer.
        adapter: folder of a LoRA adapter on the model, or None.
    """

    start: Start
    prompt: "PromptFormat"
    weights: str
    context: int
    dtype: str
    chunk: int
    adapter: Path | None = None
    timeout_s: float = 3600.0

    def spec(self) -> Spec:
        """Weights, prompt format, ends, context and precision."""
        return {
            "engine": "vllm",
            "weights": self.weights,
            "format": self.prompt.describe(),
            "eos": list(self.prompt.eos_ids),
            "context": self.context,
            "dtype": self.dtype,
        }

    def encode(self, example: Example) -> tuple[int, ...]:
        """Token ids of a prompt.

        Raises:
            PolicyError: it has none.
        """
        prompt = tuple(self.prompt.encode_prompt(example.prompt))
        if not prompt:
            raise PolicyError("the prompt has no tokens", where=f"example {example.id}", fix="remove the row")
        return prompt

    def answer(self, questions: Iterable[Question[TokenIds]], sampling: Sampling, record: Record) -> None:
        """Sample chunk by chunk; one prompt that is too long never reaches vLLM, where it would fail its whole chunk.

        Raises:
            PolicyError: vLLM died, also on chunks of half the size, or hangs; all whole chunks are recorded.
        """
        llm: Any = None
        size, restarted = self.chunk, False
        asked = fitting(questions, record, len, (self.context - sampling.max_new_tokens).__ge__)
        left: list[Question[TokenIds]] = []
        while left := left or list(islice(asked, size)):
            llm = llm or self.start()
            part, rest = left[:size], left[size:]
            try:
                outputs = _within(self.timeout_s, partial(self._generate, llm, part, sampling))
            except _HungError:
                raise PolicyError(
                    f"vLLM gave no answer within {self.timeout_s:g} s",
                    where="teacher.engine.timeout_s",
                    fix="run the same command again: every whole chunk is kept\n"
                    "or lower teacher.engine.chunk, or raise timeout_s",
                ) from None
            except Exception as e:  # whatever vLLM and CUDA raise
                if restarted:
                    raise PolicyError(
                        f"vLLM died twice ({type(e).__name__}: {str(e).splitlines()[0] if str(e) else 'no message'})",
                        where="teacher.engine",
                        fix="lower teacher.engine.gpu_memory_utilization or chunk, then run the same command again: "
                        "every whole chunk is kept",
                    ) from e
                log.warning("vLLM died (%s): starting it again, with half as many prompts at once", type(e).__name__)
                llm, size, restarted = None, max(1, size // 2), True
                continue
            for question, output in zip(part, outputs, strict=True):
                record(question, self._reply(question, output.outputs[0]))
            left = rest

    def _generate(self, llm: Any, part: list[Question[TokenIds]], sampling: Sampling) -> Any:
        return llm.generate(
            [{"prompt_token_ids": list(q.prompt)} for q in part],
            [self._parameters(q, sampling) for q in part],
            use_tqdm=False,
            **self._request(),
        )

    def _parameters(self, question: Question[TokenIds], sampling: Sampling) -> Any:
        return import_module("vllm").SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_new_tokens,
            seed=question.seed % 2**31,
            stop_token_ids=list(self.prompt.eos_ids),
        )

    def _request(self) -> dict[str, Any]:
        if self.adapter is None:
            return {}
        return {"lora_request": import_module("vllm.lora.request").LoRARequest("teacher", 1, str(self.adapter))}

    def _reply(self, question: Question[TokenIds], output: Any) -> Reply:
        tokens = tuple(output.token_ids)
        text = self.prompt.decode(tokens)
        outcome = Outcome.TRUNCATED if output.finish_reason == "length" else Outcome.OK
        return Reply(outcome if text else Outcome.EMPTY, text, tokens, len(question.prompt), len(tokens), attempts=0)


class _HungError(Exception):
    """A call took too long."""


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What a call returns or raises, unless it takes longer; its thread is then left to itself and ends with us."""
    done: list[Any] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            done.append(call())
        except BaseException as e:
            error.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if error:
        raise error[0]
    if not done:
        raise _HungError
    return done[0]


def _rank(r: int) -> int:
    """The smallest largest rank that vLLM can be started with for adapters of rank `r`."""
    return next(n for n in (8, 16, 32, 64, 128, 256, 320, 512) if n >= r)
