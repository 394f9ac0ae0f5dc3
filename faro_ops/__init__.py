"""What an operator needs: the `faro` command, the live controller, its platforms, and advice from records."""
