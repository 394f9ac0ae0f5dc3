"""Notebook 86: autoscalers of other projects as plugins, a fluid cluster, and the scores of entries."""
