"""The controlled proof: a generated world in which only the graph says how a thing looks."""
