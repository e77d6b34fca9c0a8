"""The demo: emoji with Chinese names on painted scenes, and a small knowledge graph."""

__all__ = ["run", "scenes", "world"]
