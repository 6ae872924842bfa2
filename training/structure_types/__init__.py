"""Make the table of structure types that the nano model writes: ask, relax, reduce, write.

`python -m hullward.training.structure_types.build` makes `data/prototypes_nano.parquet`.
"""

__all__ = []
