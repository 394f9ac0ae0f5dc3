"""For operators: the `faro` command, the live controller, its platforms, advice from records."""
