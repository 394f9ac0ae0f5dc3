"""The journal of a run: what `faro run` observed, planned and requested at each tick."""
