"""The live control loop, its tick, and what it notices about jobs."""
