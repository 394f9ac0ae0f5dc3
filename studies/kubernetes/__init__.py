"""Notebook 81: which policy wins on a kind cluster, also if a worker is lost? (docs/kubernetes.md)

make recorded-kubernetes
"""
