"""Does Faro also win against rivals that are tuned for the workload? (docs/tuning.md)

snakemake --cores 1 recorded_rivals
"""
