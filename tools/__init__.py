"""Crystals and papers: everything that does not know the loop."""
