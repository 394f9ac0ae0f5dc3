"""What survives a controller: orders of operators, and the state of the run."""
