"""Embedded data; `README.md` says what each file is. No logic."""
