"""The demo: emoji with Chinese names on painted scenes, and a small knowledge graph."""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from experiments.emoji.run import DemoConfig, DemoReport, run_demo
    from experiments.emoji.scenes import classify_scene
    from experiments.emoji.world import World, read_world, write_world

__all__ = [
    "DemoConfig",
    "DemoReport",
    "World",
    "classify_scene",
    "read_world",
    "run_demo",
    "write_world",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "DemoConfig": "experiments.emoji.run",
        "DemoReport": "experiments.emoji.run",
        "World": "experiments.emoji.world",
        "classify_scene": "experiments.emoji.scenes",
        "read_world": "experiments.emoji.world",
        "run_demo": "experiments.emoji.run",
        "write_world": "experiments.emoji.world",
    },
)
