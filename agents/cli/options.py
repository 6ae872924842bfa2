"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="a campaign directory")]
Structures = Annotated[
    Path, typer.Argument(metavar="INPUT", help="a file of structures, or a folder of CIFs")
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="worker processes (default: one a core); 0 relaxes in this process"),
]
ReferenceName = Annotated[
    str, typer.Option("--reference", help="the reference; see `hullward reference list`")
]
PotentialName = Annotated[str, typer.Option("--potential", help="interatomic potential")]
ForceConvergence = Annotated[float, typer.Option("--fmax", help="force convergence, eV/Å")]


class TextForm(StrEnum):
    """The text form of the crystals that a model writes."""

    CELL = "cell"
    ASYMMETRIC = "asymmetric"


ServerUrl = Annotated[
    str | None, typer.Option("--url", help="an OpenAI-compatible server, with /v1")
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="auto (default: a GPU where there is one), cpu, cuda or cuda:N"),
]
Seed = Annotated[int, typer.Option("--seed", help="of the model's sampling")]
