"""Code that only experiments need: a module per experiment, and what several of them share."""
