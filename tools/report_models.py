"""What language models were asked in a campaign, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hullward.tools.report_records import AskedOf, Report

Rows = Callable[[str], list[dict[str, Any]]]


def gather_asked(rows: Rows) -> tuple[AskedOf, ...]:
    """One entry a model and purpose, planning first, then operators by name."""
    found = rows(
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
        """
    )
    failures: dict[tuple[str, str, str], dict[str, int]] = {}
    for row in rows(
        """SELECT backend, model, purpose, failure, count(*) AS n FROM asked
           WHERE state = 'failed' GROUP BY ALL ORDER BY n DESC, failure"""
    ):
        who = row["backend"], row["model"], row["purpose"]
        failures.setdefault(who, {})[row["failure"]] = row["n"]
    return tuple(
        AskedOf(**row, failures=failures.get((row["backend"], row["model"], row["purpose"]), {}))
        for row in found
    )


def count_requests(rows: Rows) -> dict[str, Any]:
    """Requests to language models by what came of them, failures by kind, tokens; {} without any.

    A request that failed is no proposal: it is counted here and nowhere else.
    """
    states = {r["state"]: r["n"] for r in rows("SELECT state, count(*) AS n FROM asked GROUP BY 1")}
    if not states:
        return {}
    (tokens,) = rows(
        """SELECT coalesce(sum(prompt_tokens), 0)::BIGINT AS tokens_in,
                  coalesce(sum(completion_tokens), 0)::BIGINT AS tokens_out FROM asked"""
    )
    failures = rows(
        """SELECT failure, count(*) AS n FROM asked WHERE state = 'failed'
           GROUP BY failure ORDER BY n DESC, failure"""
    )
    return {
        **{state: states.get(state, 0) for state in ("answered", "failed", "waiting")},
        "failures": {row["failure"]: row["n"] for row in failures},
        **tokens,
    }


def requests_line(counts: Mapping[str, Any]) -> str:
    """The same in words: '12 answered, 3 failed (2 timeout, 1 server)'."""
    told = [f"{counts[state]} {state}" for state in ("answered", "failed", "waiting")]
    if counts["failures"]:
        kinds = ", ".join(f"{n} {kind}" for kind, n in counts["failures"].items())
        told[1] += f" ({kinds})"
    parts = [part for part in told if not part.startswith("0 ")]
    return f"{', '.join(parts)}; {counts['tokens_in']} tokens in, {counts['tokens_out']} out"


def backends_sentence(report: Report) -> str:
    """Who wrote structures and who planned, in one plain sentence."""
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
    return f"{sentence}."


def _described(backend: Mapping[str, Any]) -> str:
    if backend.get("url"):
        return f"{backend.get('model')} at {backend['url']}"
    for key, what in (("path", "the checkpoint"), ("recorded", "the recording")):
        if backend.get(key):
            return f"{what} {backend[key]}"
    return {"nano": "hullward-nano-cif"}.get(str(backend.get("word")), str(backend.get("word")))
