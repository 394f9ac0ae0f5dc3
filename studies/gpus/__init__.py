"""Which replicas do measured GPUs make, and how far off are the fits? (docs/replicas.md)

snakemake --cores 1 recorded_gpus
"""
