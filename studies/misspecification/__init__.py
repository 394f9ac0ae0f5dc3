"""What do service times cost that are not as stated? (notebook 67, docs/learning.md)

snakemake --cores 1 recorded_misspecification
"""
