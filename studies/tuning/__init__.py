"""Which hyperparameters does Faro have by default, and why? (docs/tuning.md)

python -m studies.tuning.run --out tuning.csv
"""
