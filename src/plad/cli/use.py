"""Commands that put a run's student to work: ask it, serve it."""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Annotated, Literal

import typer

from plad.cli.app import AsJson, RunPath, json_text
from plad.cli.guard import guard
from plad.errors import ConfigError
from plad.records import STUDENT
from plad.report.console import console

commands = typer.Typer()
Server = Literal["transformers", "vllm", "llama-server"]


@commands.command("try")
def try_run(
    run: RunPath,
    prompt: Annotated[
        str | None,
        typer.Argument(help="As a row of the data has it. Default: asked for one by one, or read from a pipe."),
    ] = None,
    systems: Annotated[
        list[str] | None,
        typer.Option("--system", metavar="NAME", help="Who answers; several stand side by side. Default: student."),
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")] = 0.0,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Default: as the evaluation had it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the student of a run, and others beside it; nothing is recorded."""
    with guard():
        prompts = _prompts(prompt)
        from plad.extras.use.ask import open_systems

        with open_systems(run, list(dict.fromkeys(systems or [STUDENT])), temperature, max_new_tokens) as asked:
            for number, text in enumerate(prompts()):
                answered = asked.answer(text, number)
                if as_json:
                    typer.echo(json_text(answered))
                else:
                    console().print(answered.panel())


def _prompts(given: str | None) -> Callable[[], Iterator[str]]:
    """The prompt that is given, all of a pipe as one, or what is typed line by line until Ctrl-D.

    Raises:
        ConfigError: there is none, which is said before a model is loaded.
    """
    if given is None and sys.stdin.isatty():
        return _typed
    text = sys.stdin.read().removesuffix("\n") if given is None else given
    if not text.strip():
        raise ConfigError("the prompt is empty", where="PROMPT", fix='plad try RUN "a prompt"')
    return lambda: iter([text])


def _typed() -> Iterator[str]:
    import_module("readline")  # the line can be edited, and former ones come back
    typer.echo("a prompt a line; Ctrl-D ends", err=True)
    while True:
        try:
            line = input("> ")
        except EOFError:
            typer.echo()
            return
        if line.strip():
            yield line


@commands.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    run: RunPath,
    server: Annotated[Server, typer.Option("--with", help="Which of the servers that exist.")] = "transformers",
) -> None:
    """Serve the student with an OpenAI-compatible API; further options go to the server."""
    with guard():
        from plad.extras.use.serve import replace_process, serve_command

        command = serve_command(run, server, context.args)
        typer.echo(" ".join(command), err=True)
        replace_process(command)
