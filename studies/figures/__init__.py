"""Figures of the pipeline's stages: a module per stage, with a caption beside each figure."""
