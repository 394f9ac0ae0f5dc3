"""How long does each fault on a kind cluster last, and what does it cost? (docs/kubernetes.md)

make test-faults
"""
