"""Find out from hashes in a model's folder whether it was trained on what it proposed.

A formula or a parent that was learnt makes a candidate no less stable; it makes it less of a
discovery by the model. Where a folder has no hashes, as LLaMat's, the answer is unknown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hullward.models.errors import InputError
from hullward.models.language import flat_formula
from hullward.tools.records import TrainingOverlap
from hullward.tools.store import Store

KIN = ("known", "lanthanide_swap", "substitution")  # labels whose match is a known phase


def audit(
    store: Store, folder_of: Callable[[str], Path | None], proposer: str | None = None
) -> list[TrainingOverlap]:
    """Store the training overlap of every candidate that a language model proposed.

    folder_of: a model's folder, None where it is not here.  proposer: the model behind proposals
    that name none, as those of a screened file.
    """
    rows = store.rows(
        """SELECT r.candidate_id, r.formula, p.model, r.novelty_kind, r.novelty_match
           FROM results r JOIN candidates c USING (proposal_id) JOIN proposals p USING (proposal_id)
           ORDER BY p.cycle, p.request_id, p."index" """
    )
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if model := row["model"] or proposer:
            by_model.setdefault(model, []).append(row)
    found = [one for m, own in by_model.items() for one in _overlaps(m, folder_of(m), own)]
    store.add(found)
    return found


def _overlaps(
    model: str, folder: Path | None, rows: Sequence[dict[str, Any]]
) -> list[TrainingOverlap]:
    matches = [_parent(row) for row in rows]
    try:
        if folder is None:
            raise InputError("no folder")
        formulas: Sequence[bool | None] = learnt_formulas(
            folder, [flat_formula(row["formula"]) for row in rows]
        )
        ids: Sequence[bool | None] = learnt_ids(folder, [match or "" for match in matches])
    except InputError:
        formulas = ids = [None] * len(rows)
    return [
        TrainingOverlap(
            candidate_id=row["candidate_id"],
            model=model,
            formula_seen=formula,
            match_id=match,
            match_seen=seen if match else None,
            words=_words(model, formula, match, seen if match else None),
        )
        for row, match, formula, seen in zip(rows, matches, formulas, ids, strict=True)
    ]


def _parent(row: dict[str, Any]) -> str | None:
    """The material's own id: a table that lists one twice has 'mp-1#7' for the second."""
    match = row["novelty_match"] if row["novelty_kind"] in KIN else None
    return str(match).split("#")[0] if match else None


def _words(model: str, formula: bool | None, match: str | None, seen: bool | None) -> str:
    name = Path(model).name
    if formula is None:
        return f"unknown training data: {name} has no list of what it learnt from"
    learnt = [w for w, hit in (("its formula", formula), (f"its parent {match}", seen)) if hit]
    if learnt:
        return f"{name} had learnt from {' and '.join(learnt)}"
    if match:
        return f"{name} had learnt neither from its formula nor from its parent {match}"
    return f"{name} had not learnt from its formula"


IDS, FORMULAS = "learnt_ids.npy", "learnt_formulas.npy"


def digest(word: str) -> int:
    """The first 8 bytes of its sha256 as a number."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")


def learnt_ids(model: Path, material_ids: Sequence[str]) -> list[bool]:
    """Which of these materials a model was trained or validated on.

    Raises InputError where its folder has no hashes.
    """
    return _are_among(model / IDS, material_ids)


def learnt_formulas(model: Path, flat_formulas: Sequence[str]) -> list[bool]:
    """Which of these formulas, spelt by `models.crystal_prompts.flat_formula`, it has seen.

    Raises InputError where its folder has no hashes.
    """
    return _are_among(model / FORMULAS, flat_formulas)


def _are_among(path: Path, words: Sequence[str]) -> list[bool]:
    try:
        known = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read, so what was learnt is unknown: {error}") from None
    return [bool(hit) for hit in np.isin([digest(word) for word in words], known)]
