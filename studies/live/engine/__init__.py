"""Does the simulator agree with a real engine, llama.cpp on Ray Serve? (docs/engine.md)

snakemake --cores 1 recorded_engine
"""
