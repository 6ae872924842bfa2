"""The command line: one module for each group of commands, `app` puts them together.

Commands parse arguments, call the packages below and print; they decide nothing. Heavy libraries
are imported inside the commands.
"""

__all__ = []
