"""Stage 1: a dump of triples becomes one vector for each entity (TransE)."""
