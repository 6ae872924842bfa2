"""Valid proposals per second of a small model in this process, with and without grammars.

    python tests/benchmarks/local_speed.py FOLDER --formulas FILE [--samples 1000] [--threads 2]

FOLDER is a checkpoint such as hullward-nano-cif. FILE has a formula on each line, followed by a
space group or nothing; each sample asks for the next one. A proposal is valid when it parses, has
the formula, the space group where one was requested, and no pair of atoms closer than 0.5 Å. Times
are wall and CPU; they include making the grammars and their masks, from a cold start.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import options

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.models.language import (
    NANO_SAMPLING,
    CompletionError,
    LocalModel,
    Request,
    crystal_prompt,
    flat_formula,
)
from hullward.tools.crystal.text import crystal_grammar, unit_grammar
from hullward.tools.evaluation import closest_a, parse_text

MAX_ATOMS = 20
FREE, HELD, GROUP, MASK = "free", "grammar", "grammar and space group", "grammar and distance mask"
WAYS = {"asymmetric": (FREE, HELD, GROUP), "cell": (FREE, HELD, MASK)}


def main() -> None:
    import torch

    parser = options(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--formulas", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--form", choices=WAYS, action="append")
    parser.add_argument("--held", choices=[FREE, HELD, GROUP, MASK], action="append")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    lines = [line.split() for line in given.formulas.read_text().splitlines() if line.strip()]
    wanted = [(line[0], int(line[1]) if len(line) > 1 else None) for line in lines]
    wanted = [wanted[i % len(wanted)] for i in range(given.samples)]
    for form, ways in WAYS.items():
        for held in ways:
            if form in (given.form or WAYS) and held in (given.held or ways):
                measure(LocalModel(given.folder), wanted, form, held)


def measure(model: LocalModel, wanted: list[tuple[str, int | None]], form: str, held: str) -> None:
    """Sample in one way and print the result."""
    wall, cpu = time.monotonic(), time.process_time()
    requests = [r for i, w in enumerate(wanted) if (r := _request(i, w, form, held))]
    made_s = time.monotonic() - wall
    answers = model.complete(requests)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    parsed = right = grouped = valid = tokens = 0
    for request, answer in zip(requests, answers, strict=True):
        assert not isinstance(answer, CompletionError), answer
        formula, group = wanted[int(request.request_id)]
        crystal = parse_text(answer[0].text)
        tokens += answer[0].completion_tokens or 0
        if not isinstance(crystal, Crystal):
            continue
        parsed += 1
        if flat_formula(crystal.formula) != flat_formula(formula):
            continue
        right += 1
        if held == GROUP and group and not answer[0].text.startswith(f"{group}\n"):
            continue
        grouped += 1
        valid += closest_a(crystal) >= 0.5
    of_group = f", space group {grouped}" if held == GROUP else ""
    print(
        f"{form}, {held}: of {len(wanted)} samples {len(requests)} could be asked, "
        f"parsed {parsed}, "
        f"formula {right}{of_group}, valid {valid}; {tokens / len(requests):.0f} tokens each; "
        f"{wall:.1f} s wall ({made_s:.1f} for the grammars), {cpu:.1f} s CPU: "
        f"{valid / wall:.1f} valid/s wall, {valid / cpu:.1f} valid/s CPU",
        flush=True,
    )


def _request(number: int, wanted: tuple[str, int | None], form: Any, held: str) -> Request | None:
    """The request; None where no crystal of at most MAX_ATOMS can be what is wanted."""
    formula, group = wanted
    constraint = None
    try:
        wishes = crystal_grammar(
            formula=formula, max_atoms=MAX_ATOMS, min_distance_a=1.0 if held == MASK else None
        )
        if held != FREE and form == "asymmetric":
            constraint = unit_grammar(wishes, group if held == GROUP else None).constraint()
        elif held != FREE:
            constraint = wishes.constraint(server=False)
    except InputError:
        return None
    return Request(
        request_id=str(number),
        prompt=crystal_prompt(
            formula=flat_formula(formula),
            space_group=group if held == GROUP else None,
            form=form,
        ),
        sampling=replace(NANO_SAMPLING, seed=number),
        constraint=constraint,
    )


if __name__ == "__main__":
    main()
