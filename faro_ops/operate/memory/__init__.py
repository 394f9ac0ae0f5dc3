"""What survives a controller: its journal, orders of operators, and the state of the run."""
