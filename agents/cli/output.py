"""Arguments that many commands share, and how a command prints its result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="a campaign directory")]
Json = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="worker processes; 0 relaxes in this process")
]


def tell(document: dict[str, Any], lines: Sequence[str], as_json: bool) -> None:
    """Print one JSON document, or lines for people."""
    if as_json:
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        for line in lines:
            typer.echo(line)
