"""Notebook 86: which autoscaler loses least on the arena's scenarios? (docs/arena.md)

Autoscalers of other projects as plugins, their own code, a fluid cluster, the scores of entries.
`make arena` scores the recorded entries again.
"""
