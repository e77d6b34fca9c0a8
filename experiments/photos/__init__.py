"""Real photographs of classes that no training caption contains."""

__all__ = [
    "config",
    "features",
    "judge",
    "measures",
    "nats",
    "photo_folder",
    "report",
    "run",
    "tables",
]
