"""Batched relaxation: many crystals at once, in this process or in worker processes.

The engine steps a batch with one potential and an optimizer of `optimizers` (`fire`,
`trust_region`; their names are in `Protocol`). `schedule` decides which structures continue
first, `workers` spreads the work over processes, `Executor` says where. A relaxation that fails
is a record with a reason, never an exception. Potentials are in `hullward.models.potential`.
"""

from hullward.tools.relax.cache import relax_cached
from hullward.tools.relax.executor import Executor
from hullward.tools.relax.phonons import MAX_ATOMS, check_phonons
from hullward.tools.relax.schedule import relax_best_first
from hullward.tools.relax.stream import relax_stream
from hullward.tools.relax.structures_file import relax_inputs
from hullward.tools.relax.workers import default_workers, end_with, one_thread_each, relax_many

__all__ = [
    "MAX_ATOMS",
    "Executor",
    "check_phonons",
    "default_workers",
    "end_with",
    "one_thread_each",
    "relax_best_first",
    "relax_cached",
    "relax_inputs",
    "relax_many",
    "relax_stream",
]
