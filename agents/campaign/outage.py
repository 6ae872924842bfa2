"""Stop when every language model is away and nothing else proposes, rather than burn cycles."""

from __future__ import annotations

from hullward.agents.workspace import Workspace
from hullward.models.errors import BreakerError
from hullward.tools.records import RunEnd


def stop_if_no_model_answers(workspace: Workspace, cycle: int) -> None:
    """Raise BreakerError, once, where a cycle proposed nothing because its requests failed.

    A server that is away for minutes would cost every cycle that is left: an empty one takes
    seconds. Resumed, the campaign goes on with the next cycle. A recording at its end and prompts
    too long for the context are no such failures: waiting helps neither.
    """
    if any(workspace.ready.values()):  # asked ahead, and answered
        return
    cycle_of = {"cycle": cycle}
    (row,) = workspace.store.rows(
        "SELECT count(*) AS n FROM proposals WHERE cycle = $cycle", cycle_of
    )
    if row["n"]:
        return
    failed = workspace.store.rows(
        """SELECT failure, detail FROM asked
           WHERE cycle = $cycle AND purpose NOT IN ('brief', 'plan')
             AND failure NOT IN ('context', 'exhausted') ORDER BY position""",
        cycle_of,
    )
    if not failed:
        return
    why = (
        f"cycle {cycle} proposed nothing: {len(failed)} requests to language models failed, the "
        f"last with {failed[-1]['failure']}: {failed[-1]['detail']}. Everything so far is stored; "
        "when the model answers again: `hullward resume`"
    )
    if all((end.reason, end.detail) != ("breaker", why) for end in workspace.store.load(RunEnd)):
        raise BreakerError(why)
