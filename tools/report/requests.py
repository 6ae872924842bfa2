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
