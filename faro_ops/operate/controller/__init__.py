"""What `faro run` sets up, for each backend, and what it replaces while it runs."""
