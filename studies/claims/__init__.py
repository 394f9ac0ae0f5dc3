"""Do the claims of docs/artifact.md hold when they are computed again?

python -m studies.claims.run
"""
