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


def audit(
    store: Store, folder_of: Callable[[str], Path | None], proposer: str | None = None
) -> list[TrainingOverlap]:
    """Store the training overlap of every candidate that a language model proposed.

    folder_of: a model's folder, None where it is not here.  proposer: the model behind proposals
    that name none, as those of a screened file.
    """
    return _audit(store, folder_of, _rows(store, "true"), proposer)


def audit_new(store: Store, folder_of: Callable[[str], Path | None]) -> None:
    """Store the training overlap of candidates without one, or with another model or parent.

    Those too whose model has a list of what it learnt by now. A list that changes is noticed by
    `audit` alone.
    """
    stale = "o.candidate_id IS NULL OR o.model <> p.model OR o.match_id IS DISTINCT FROM parent"
    _audit(store, folder_of, _rows(store, f"p.model <> '' AND ({stale})"))
    unknown = store.rows(
        "SELECT DISTINCT model FROM training_overlaps WHERE formula_seen IS NULL ORDER BY model"
    )
    for model in (row["model"] for row in unknown):
        folder = folder_of(model)
        if folder is not None and (folder / FORMULAS).exists() and (folder / IDS).exists():
            condition = "o.formula_seen IS NULL AND o.model = $model AND o.model = p.model"
            _audit(store, folder_of, _rows(store, condition, model=model))


def _audit(
    store: Store,
    folder_of: Callable[[str], Path | None],
    rows: Sequence[dict[str, Any]],
    proposer: str | None = None,
) -> list[TrainingOverlap]:
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if model := row["model"] or proposer:
            by_model.setdefault(model, []).append(row)
    found = [one for m, own in by_model.items() for one in _overlaps(m, folder_of(m), own)]
    store.add(found)
    return found


# The material's own id: a table that lists one twice has 'mp-1#7' for the second.
_PARENT = """CASE WHEN coalesce(a.kind, b.kind) IN ('known', 'lanthanide_swap', 'substitution')
    THEN split_part(coalesce(a.match_id, b.match_id), '#', 1) END"""


def _rows(store: Store, condition: str, **parameters: str) -> list[dict[str, Any]]:
    """Candidates with the model that proposed them and the known phase they derive from.

    The explanation as relaxed decides, or that as proposed where there is none.
    """
    return store.rows(
        f"""SELECT c.candidate_id, c.formula, p.model, {_PARENT} AS parent
            FROM candidates c JOIN proposals p USING (proposal_id)
            LEFT JOIN (FROM explanations WHERE moment = 'before') b
                ON b.candidate_id = c.candidate_id
            LEFT JOIN (FROM explanations WHERE moment = 'after') a
                ON a.candidate_id = c.candidate_id
            LEFT JOIN training_overlaps o ON o.candidate_id = c.candidate_id
            WHERE {condition} ORDER BY p.cycle, p.request_id, p."index" """,
        parameters,
    )


def _overlaps(
    model: str, folder: Path | None, rows: Sequence[dict[str, Any]]
) -> list[TrainingOverlap]:
    matches = [row["parent"] for row in rows]
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


def _words(model: str, formula: bool | None, match: str | None, seen: bool | None) -> str:
    name = Path(model).name
    if formula is None:
        return f"unknown training data: those of {name} are not listed"
    seen_too = [w for w, hit in (("its formula", formula), (f"its parent {match}", seen)) if hit]
    if seen_too:
        verb = "was" if len(seen_too) == 1 else "were"
        return f"{' and '.join(seen_too)} {verb} in the training data of {name}"
    if match:
        return f"neither its formula nor its parent {match} was in the training data of {name}"
    return f"its formula was not in the training data of {name}"


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
