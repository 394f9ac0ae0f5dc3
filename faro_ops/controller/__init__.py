"""The live controller: its loop, clock, journal, metrics, and what operators order while it runs."""
