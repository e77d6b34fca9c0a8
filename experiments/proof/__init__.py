"""The controlled proof: a generated world in which only the graph determines an entity's image."""

__all__ = ["run", "world"]
