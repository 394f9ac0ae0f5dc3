"""What do replicas gain that several services share? (notebook 45, docs/sharing.md)

snakemake --cores 1 recorded_sharing
"""
