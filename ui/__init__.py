"""Shows and commands; never computes. Empty until the interface lands."""
