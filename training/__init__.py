"""Makes models. Empty until the training capability lands."""
