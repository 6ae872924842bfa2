"""Requests to language models in a campaign, and their outcomes."""

from __future__ import annotations

from typing import Any

import duckdb

from hullward.tools.report.schema import AskedOf
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
            sum(a.answers)::BIGINT AS answers,
            coalesce(max(u.n), 0) AS unreadable,
            sum(a.prompt_tokens)::BIGINT AS prompt_tokens,
            sum(a.completion_tokens)::BIGINT AS completion_tokens,
            sum(a.memories_left_out)::BIGINT AS memories_left_out
        FROM asked a
        LEFT JOIN unread u USING (backend, model, purpose)
        GROUP BY a.backend, a.model, a.purpose
        ORDER BY a.purpose NOT IN ('brief', 'plan'), a.purpose, a.backend, a.model
        """,
    )
    failures: dict[tuple[str, str, str], dict[str, int]] = {}
    for row in fetch_rows(
        connection,
        """SELECT backend, model, purpose, failure, count(*) AS n FROM asked
           WHERE state = 'failed' GROUP BY ALL ORDER BY n DESC, failure""",
    ):
        who = row["backend"], row["model"], row["purpose"]
        failures.setdefault(who, {})[row["failure"]] = row["n"]
    return tuple(
        AskedOf(**row, failures=failures.get((row["backend"], row["model"], row["purpose"]), {}))
        for row in found
    )


def count_requests(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Requests to language models by outcome, failures by kind, and tokens; {} without any.

    A failed request is not a proposal: it is counted here and nowhere else.
    """
    states = {
        r["state"]: r["n"]
        for r in fetch_rows(connection, "SELECT state, count(*) AS n FROM asked GROUP BY 1")
    }
    if not states:
        return {}
    (tokens,) = fetch_rows(
        connection,
        """SELECT coalesce(sum(prompt_tokens), 0)::BIGINT AS tokens_in,
                  coalesce(sum(completion_tokens), 0)::BIGINT AS tokens_out FROM asked""",
    )
    failures = fetch_rows(
        connection,
        """SELECT failure, count(*) AS n FROM asked WHERE state = 'failed'
           GROUP BY failure ORDER BY n DESC, failure""",
    )
    return {
        **{state: states.get(state, 0) for state in ("answered", "failed", "waiting")},
        "failures": {row["failure"]: row["n"] for row in failures},
        **tokens,
    }
