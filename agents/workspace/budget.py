"""What a campaign has spent of its budget, over all its runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hullward.agents.settings import Campaign
from hullward.tools.records import RunTime
from hullward.tools.store import Store

NOTED_EVERY_S = 60.0  # a run that is killed forgets at most so much of its time, and one step
FIRST_RELAXATIONS = "relaxations JOIN bases USING (potential_sha256, protocol_id)"
FORCE_CALLS = f"""(SELECT force_calls FROM {FIRST_RELAXATIONS}
    UNION ALL SELECT force_calls FROM symmetrised_cells)"""


@dataclass(kw_only=True)
class Spending:
    """The limits of a campaign beside what its runs have used."""

    campaign: Campaign
    store: Store
    run: int  # number of this run
    earlier_s: float  # wall time of the runs before it
    started_s: float
    _noted_s: float = 0.0

    @classmethod
    def of(cls, campaign: Campaign, store: Store) -> Spending:
        """That of a campaign whose next run begins now."""
        runs = store.load(RunTime)
        earlier_s = sum(run.wall_s for run in runs)
        return cls(
            campaign=campaign,
            store=store,
            run=len(runs),
            earlier_s=earlier_s,
            started_s=time.monotonic(),
        )

    def note(self, *, now: bool = True) -> None:
        """Store how long this run has lasted, where hours are limited; now: else once a minute."""
        ran_s = time.monotonic() - self.started_s
        if self.campaign.budget.hours is None or not (now or ran_s > self._noted_s + NOTED_EVERY_S):
            return
        self._noted_s = ran_s
        campaign_id = self.campaign.campaign_id
        self.store.add([RunTime(campaign_id=campaign_id, number=self.run, wall_s=round(ran_s, 3))])

    def time_is_over(self) -> bool:
        """Whether all runs together have lasted as long as they may."""
        hours = self.campaign.budget.hours
        ran_s = self.earlier_s + time.monotonic() - self.started_s
        return hours is not None and ran_s > 3600 * hours

    def relaxations_left(self) -> int | None:
        """The number of relaxations left in the budget; None without such a limit."""
        limit = self.campaign.budget.relaxations
        if limit is None:
            return None
        return max(0, limit - self._spent("count(*)"))

    def reason_to_stop(self, next_cycle: int) -> str:
        """The limit that has been reached, or ''."""
        budget = self.campaign.budget
        if next_cycle >= budget.cycles:
            return f"all {budget.cycles} cycles done"
        if self.relaxations_left() == 0:
            return f"{budget.relaxations} relaxations done"
        if budget.force_calls is not None and (
            self._spent("sum(force_calls)", FORCE_CALLS) >= budget.force_calls
        ):
            return f"{budget.force_calls} force calls spent"
        if budget.tokens is not None and self._tokens(next_cycle) >= budget.tokens:
            return f"{budget.tokens} tokens spent"
        if self.time_is_over():
            return f"{budget.hours:g} hours over"
        return ""

    def _tokens(self, next_cycle: int) -> int:
        """Tokens of language models, in and out, before a cycle; those asked ahead belong to it."""
        return self._spent(
            "sum(coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0))",
            f"asked WHERE cycle < {next_cycle}",
        )

    def _spent(self, what: str, source: str = FIRST_RELAXATIONS) -> int:
        (row,) = self.store.rows(f"SELECT coalesce({what}, 0)::BIGINT AS spent FROM {source}")
        return int(row["spent"])
