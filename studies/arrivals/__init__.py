"""What does a planner lose that ignores how requests come in bursts? (docs/arrivals.md)

snakemake --cores 1 recorded_arrivals
"""
