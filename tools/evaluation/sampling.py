"""Asking a generator for crystals, and writing down all it says: the file that is then judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hullward.models.errors import InputError
from hullward.models.language import (
    CompletionError,
    Constraint,
    Form,
    LanguageModel,
    Request,
    Sampling,
    crystal_prompt,
    flat_formula,
)
from hullward.tools.crystal.text import DEFAULT_MAX_ATOMS, crystal_grammar, unit_grammar
from hullward.tools.records import stable_id

CHUNK = 256  # requests between two writes


def read_formulas(path: Path) -> list[str]:
    """Formulas, one a line; raises InputError where there are none or one is no formula."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the formulas in {path} cannot be read: {error}") from error
    formulas = [line.strip() for line in lines if line.strip()]
    if not formulas:
        raise InputError(f"{path} holds no formula: give one a line")
    for number, formula in enumerate(formulas, 1):
        try:
            flat_formula(formula)
        except (ValueError, KeyError) as error:
            raise InputError(f"{path}, formula {number}: {error}") from error
    return formulas


def sample_crystals(
    model: LanguageModel,
    out: Path,
    *,
    formulas: Sequence[str | None],
    samples: int,
    sampling: Sampling,
    form: Form = "cell",
    grammar: bool = False,
    max_atoms: int = DEFAULT_MAX_ATOMS,
    min_distance_a: float | None = None,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> int:
    """Write `samples` attempts for each formula (None: any crystal) to a JSON Lines file.

    A row holds the text verbatim, the prompt, what was asked, and how it was drawn; a request that
    got no answer is a row without text, and counts. Each request has its own seed, made from
    `sampling.seed` and its place. grammar: hold to elements and formula (`crystal_grammar`,
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
                drawn = {
                    "model": model.name,
                    "prompt": request.prompt,
                    "temperature": sampling.temperature,
                    "top_p": sampling.top_p,
                    "seed": request.sampling.seed,
                    **about,
                }
                if isinstance(answer, CompletionError):
                    told = [{"text": "", "error": str(answer)}] * samples
                else:
                    told = [{"text": c.text, "finish_reason": c.finish_reason} for c in answer]
                for row in told:
                    file.write(json.dumps({**row, **drawn}) + "\n")
                rows += len(told)
            progress("sample", min(start + CHUNK, len(requests)), len(requests))
    return rows


def _request(
    number: int,
    formula: str | None,
    samples: int,
    sampling: Sampling,
    form: Form,
    constraint: Constraint | None,
    name: str | None,
) -> tuple[Request, dict[str, Any]]:
    flat = flat_formula(formula) if formula is not None else None
    prompt = crystal_prompt(formula=flat, form=form)
    seed = int(stable_id("s", str(sampling.seed), number, prompt)[2:14], 16)
    request = Request(
        request_id=f"evaluate-{number}",
        prompt=prompt,
        sampling=Sampling(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop=sampling.stop,
            n=samples,
            seed=seed,
        ),
        constraint=constraint,
    )
    about: dict[str, Any] = {"target_formula": formula} if formula is not None else {}
    if name is not None:
        about["grammar"] = name
    return request, about
