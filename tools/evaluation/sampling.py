"""Sample crystals from a generator and write every output to a file for evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hullward.models.errors import InputError, system_reason
from hullward.models.language import (
    CompletionError,
    Constraint,
    LanguageModel,
    Request,
    Sampling,
    TextForm,
    crystal_prompt,
    flat_formula,
)
from hullward.tools.crystal.text import DEFAULT_MAX_ATOMS, crystal_grammar, unit_grammar
from hullward.tools.records import stable_id

CHUNK = 256  # requests between two writes


def read_formulas(path: Path) -> list[str]:
    """The formulas of a file, one per line; raises InputError for none or an invalid one."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = system_reason(error) if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"the formulas in {path} cannot be read: {why}") from error
    formulas = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip()}
    if not formulas:
        raise InputError(f"{path} contains no formula: give one per line")
    for number, formula in formulas.items():
        try:
            flat_formula(formula)
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from error
    return list(formulas.values())


def sample_crystals(
    model: LanguageModel,
    out: Path,
    *,
    formulas: Sequence[str | None],
    samples: int,
    sampling: Sampling,
    form: TextForm = "cell",
    grammar: bool = False,
    max_atoms: int = DEFAULT_MAX_ATOMS,
    min_distance_a: float | None = None,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> int:
    """Write `samples` attempts for each formula (None: any crystal) to a JSON Lines file.

    A row holds the text verbatim, the prompt, the wish and the sampling settings. A request that
    failed gives rows without text, which count as attempts. Each request has its own seed, derived
    from `sampling.seed` and its index. grammar: restrict texts to the formula (`crystal_grammar`,
    `unit_grammar`); min_distance_a: the distance mask of the first. Returns the number of rows.

    Raises InputError for wishes that the grammar cannot fulfil.
    """
    requests = []
    for number, formula in enumerate(formulas):
        constraint, name = None, None
        if grammar:
            wishes = crystal_grammar(
                formula=formula, max_atoms=max_atoms, min_distance_a=min_distance_a
            )
            if form == "asymmetric":
                unit = unit_grammar(wishes)
                constraint, name = unit.constraint(), unit.name
            else:
                constraint, name = wishes.constraint(), wishes.name
        requests.append(_request(number, formula, samples, sampling, form, constraint, name))
    rows = 0
    with out.open("w", encoding="utf-8") as file:
        for start in range(0, len(requests), CHUNK):
            chunk = requests[start : start + CHUNK]
            for (request, about), answer in zip(
                chunk, model.complete([request for request, _ in chunk]), strict=True
            ):
                settings = {
                    "model": model.name,
                    "prompt": request.prompt,
                    "temperature": sampling.temperature,
                    "top_p": sampling.top_p,
                    "seed": request.sampling.seed,
                    **about,
                }
                if isinstance(answer, CompletionError):
                    outputs = [{"text": "", "error": str(answer)}] * samples
                else:
                    outputs = [{"text": c.text, "finish_reason": c.finish_reason} for c in answer]
                for row in outputs:
                    file.write(json.dumps({**row, **settings}) + "\n")
                rows += len(outputs)
            progress("sample", min(start + CHUNK, len(requests)), len(requests))
    return rows


def _request(
    number: int,
    formula: str | None,
    samples: int,
    sampling: Sampling,
    form: TextForm,
    constraint: Constraint | None,
    name: str | None,
) -> tuple[Request, dict[str, Any]]:
    flat = flat_formula(formula) if formula is not None else None
    prompt = crystal_prompt(formula=flat, form=form)
    seed = int(stable_id("s", str(sampling.seed), number, prompt)[2:14], 16)
    request = Request(
        request_id=f"evaluate-{number}",
        prompt=prompt,
        sampling=replace(sampling, n=samples, seed=seed),
        constraint=constraint,
    )
    about: dict[str, Any] = {"target_formula": formula} if formula is not None else {}
    if name is not None:
        about["grammar"] = name
    return request, about
