"""When do replicas for prefill and decode apart beat one pool? (docs/disaggregated.md)

snakemake --cores 1 recorded_disaggregated
"""
