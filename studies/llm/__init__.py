"""Which autoscaler serves ten language models best on measured GPUs? (docs/llm.md)

snakemake --cores 1 recorded_llm
"""
