"""How does Faro take over autoscaling that exists: bounds of HPAs, earned authority, the brake?

`policies.py` is a plugin for `make figures CONFIG=config/adopt.yaml`; `python -m
studies.adoption.authority` prints the tables of docs/adopt.md, and `... .brake` what
docs/reliability.md says of the brake.
"""
