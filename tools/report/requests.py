"""Requests to language models in a campaign, their outcomes, and the sentences on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb

from hullward.tools.report.schema import AskedOf, Report
from hullward.tools.store import fetch_rows


def gather_asked(connection: duckdb.DuckDBPyConnection) -> tuple[AskedOf, ...]:
    """One entry a model and purpose, planning first, then operators by name."""
    found = fetch_rows(
        connection,
        """
        WITH unread AS (
            SELECT q.backend, q.model, q.purpose, count(*) AS n
            FROM proposals p JOIN requests q USING (request_id)
            JOIN rejections j ON j.proposal_id = p.proposal_id AND j.stage = 'parse'
            GROUP BY ALL
        )
        SELECT
            a.backend, a.model, a.purpose, max(a.answered_by) AS answered_by,
            count(*) AS requests,
            count(*) FILTER (a.state = 'answered') AS answered,
            count(*) FILTER (a.state = 'failed') AS failed,
            histogram(a.failure) FILTER (a.state = 'failed') AS failures,
            sum(a.answers)::BIGINT AS answers,
            coalesce(max(u.n), 0) AS unreadable,
            sum(a.prompt_tokens)::BIGINT AS prompt_tokens,
            sum(a.completion_tokens)::BIGINT AS completion_tokens,
            sum(a.memories_left_out)::BIGINT AS memories_left_out,
            list_sort(list_distinct(flatten(list(a.left_out)))) AS left_out
        FROM asked a
        LEFT JOIN unread u USING (backend, model, purpose)
        GROUP BY a.backend, a.model, a.purpose
        ORDER BY a.purpose NOT IN ('brief', 'plan'), a.purpose, a.backend, a.model
        """,
    )
    return tuple(AskedOf(**row | {"failures": _ranked(row["failures"])}) for row in found)


def count_requests(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Requests to language models by outcome, failures by kind, and tokens; {} without any.

    A failed request is not a proposal: it is counted here and nowhere else.
    """
    (row,) = fetch_rows(
        connection,
        """SELECT count(*) FILTER (state = 'answered') AS answered,
                  count(*) FILTER (state = 'failed') AS failed,
                  count(*) FILTER (state = 'waiting') AS waiting,
                  histogram(failure) FILTER (state = 'failed') AS failures,
                  coalesce(sum(prompt_tokens), 0)::BIGINT AS tokens_in,
                  coalesce(sum(completion_tokens), 0)::BIGINT AS tokens_out FROM asked""",
    )
    any_request = row["answered"] or row["failed"] or row["waiting"]
    return row | {"failures": _ranked(row["failures"])} if any_request else {}


def _ranked(counts: dict[str, int] | None) -> dict[str, int]:
    """Most frequent first, then by name."""
    return dict(sorted((counts or {}).items(), key=lambda one: (-one[1], one[0])))


def requests_line(counts: Mapping[str, Any]) -> str:
    """Counts of requests in words: '12 answered, 3 failed (2 timeout, 1 server)'."""
    outcomes = [f"{counts[state]} {state}" for state in ("answered", "failed", "waiting")]
    if counts["failures"]:
        kinds = ", ".join(f"{n} {kind}" for kind, n in counts["failures"].items())
        outcomes[1] += f" ({kinds})"
    parts = [part for part in outcomes if not part.startswith("0 ")]
    return f"{', '.join(parts)}; {counts['tokens_in']} tokens in, {counts['tokens_out']} out"


def backends_sentence(report: Report) -> str:
    """Which models wrote structures and planned, in one sentence."""
    settings = report.campaign.settings
    if report.campaign.kind != "campaign":
        return ""
    asked = {use.backend for use in report.asked}
    crystal, chat = settings.get("crystal") or {}, settings.get("chat") or {}
    if "crystal" in asked:
        writers = f"Structures were written by {_described(crystal)}"
    else:
        writers = "No language model wrote structures"
    planner = "the built-in rules, without a chat model"
    if "chat" in asked:
        planner = _described(chat)
    sentence = f"{writers}; planned by {planner}"
    by_rules = sum(cycle.made_by == "rules" for cycle in report.cycles)
    if by_rules and "chat" in asked:
        sentence += f", which gave no usable plan in {by_rules} of {len(report.cycles)} cycles"
    return f"{sentence}.{_left_out_words(report)}"


def _left_out_words(report: Report) -> str:
    """Which parameters the servers of which models refuse, or ''."""
    refused: dict[str, set[str]] = {}
    for use in report.asked:
        refused.setdefault(use.model, set()).update(use.left_out)
    return "".join(
        f" The server of {model} refuses {', '.join(sorted(names))}: sent without."
        for model, names in refused.items()
        if names
    )


def _described(backend: Mapping[str, Any]) -> str:
    if backend.get("url"):
        return f"{backend.get('model')} at {backend['url']}"
    for key, what in (("path", "the checkpoint"), ("recorded", "the recording")):
        if backend.get(key):
            return f"{what} {backend[key]}"
    return {"nano": "hullward-nano-cif"}.get(str(backend.get("word")), str(backend.get("word")))
