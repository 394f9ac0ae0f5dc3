"""Notebook 85: what does Faro lose if it takes all replicas for serial? (docs/replicas.md)"""
