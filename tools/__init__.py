"""The science: checks, relaxation, hulls, references, store, report. It knows no loop."""
