"""The live control loop, its tick, what it notices about jobs, and how it resumes."""
