"""How every command prints: notes on stderr, one JSON document on stdout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]


def tell(document: dict[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """Print one JSON document, or lines for people."""
    if as_json:
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        for line in lines:
            typer.echo(line)
