"""Does the lead hold in generated families of worlds, against tuned rivals? (docs/elsewhere.md)

snakemake --cores 1 recorded_families
"""
