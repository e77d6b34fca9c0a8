"""The embedded default: emoji, their Chinese names and a small knowledge graph."""
