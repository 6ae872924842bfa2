"""`hullward probe`: find the prompt form that a served crystal model was trained on."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from hullward.agents.cli.evaluate import open_served
from hullward.agents.cli.options import Json
from hullward.agents.cli.output import print_result

if TYPE_CHECKING:
    from hullward.models.crystal import Crystal
    from hullward.models.language import ProbeCase
    from hullward.tools.hull import Phase

SYSTEM = "You know how crystals are built. Write the structure that is asked for, and nothing else."
LAYOUT = (
    "Write in this form only: a line with three lengths, a line with three angles, then for every "
    "atom a line with its element and a line with its three fractional coordinates."
)
MOST_ATOMS = 8
SYSTEMS = (
    "Na-Cl", "Mg-O", "Ga-As", "Zn-S", "Ti-O", "Al-Ni", "Ca-F", "Li-O", "C-Si", "Cu-O", "Al-Fe",
    "Cs-Cl", "K-Br", "Ni-Ti", "Ga-N", "B-N", "In-P", "Cd-Te", "Mg-Zn", "Li-S", "Ba-O", "La-N",
)  # fmt: skip


def probe(
    url: Annotated[str, typer.Option(help="the server, with /v1")],
    model: Annotated[str, typer.Option(help="name of the model on the server")],
    cases: Annotated[int, typer.Option(min=2, max=100, help="known crystals to request")] = 12,
    samples: Annotated[int, typer.Option(min=1, max=64, help="texts for each crystal")] = 4,
    temperature: Annotated[float, typer.Option(min=0.01, max=2, help="of sampling")] = 0.7,
    as_json: Json = False,
) -> None:
    """Find out which prompt form a crystal model was trained on.

    The model is prompted for stable phases of the embedded reference in every form. The form for
    which their known texts are likeliest, and most of its own texts are crystals, comes first.
    """
    from hullward.models.language import Sampling, probe_forms
    from hullward.tools.crystal.text import parse_cell_text, read_completion
    from hullward.tools.records import Flaw

    served = open_served(url, model)

    def parses(text: str) -> bool:
        cut = read_completion(text)
        return cut.flaw is None and not isinstance(parse_cell_text(cut.raw), Flaw)

    sampling = Sampling(
        temperature=temperature, n=samples, max_tokens=320, stop=("Title", "<|im_end|>")
    )
    scores = probe_forms(
        served, ("input-output", "chatml", "plain"), _cases(cases), parses, sampling
    )
    rows = [
        {
            "form": s.form,
            "mean_logprob": s.mean_logprob,
            "parsed": s.parsed,
            "written": s.written,
        }
        for s in scores
    ]
    lines = [
        f"{s.form:<13} {s.parsed} of {s.written} texts are crystals; known ones have "
        f"{s.mean_logprob:.3f} a token"
        for s in scores
    ]
    lines.append(f"use: crystal: {{url: {url}, model: {model}, format: {scores[0].form}}}")
    print_result({"model": model, "url": url, "forms": rows}, lines, as_json)


def _cases(n: int) -> list[ProbeCase]:
    """Small stable compounds of two elements, spread over the embedded reference."""
    from hullward.tools.reference import load_reference

    reference = load_reference("embedded")
    chosen: list[tuple[Phase, Crystal]] = []
    for system in SYSTEMS:
        small = (
            (phase, phase.crystal)
            for phase in reference.hull(system).stable_phases
            if phase.crystal is not None
            and len(phase.elements) == len(system.split("-"))
            and phase.crystal.n_atoms <= MOST_ATOMS
        )
        chosen += islice(small, 2)
    return [_case(phase, crystal) for phase, crystal in chosen[:n]]


def _case(phase: Phase, crystal: Crystal) -> ProbeCase:
    from hullward.models.language import ProbeCase, crystal_prompt
    from hullward.tools.crystal.text import write_cell_text

    asked = crystal_prompt(formula=phase.formula, elements=sorted(phase.elements))
    return ProbeCase(
        system=SYSTEM, question=asked + LAYOUT, plain=asked, answer=write_cell_text(crystal)
    )
