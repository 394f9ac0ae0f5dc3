"""The live controller: its loop, clock, journal, metrics, and the orders of operators."""
