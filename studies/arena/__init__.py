"""Notebook 86: autoscalers of other projects as plugins, a fluid cluster, the scores of entries."""
