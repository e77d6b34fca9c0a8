"""Stages 3 and 4: a lattice table becomes a model, and a prompt becomes pictures."""
