"""Shards made by the workers of a Dask cluster, for those who outgrow a machine.

The same parts, the same kernel: a task is a corpus file, its result the stats of a finished shard.
Workers get the path of the compiled vocabulary and map it, so all machines must see the same files.
Dask gives the tasks of a lost worker to others. A shard that is made twice is the same twice and
appears by a rename, so nothing is lost or doubled.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from data.errors import ConfigError, ToolkitError
from lattice.building.chunks import PartMaker, Recipe
from lattice.building.shards import ShardTask

_here = threading.local()


def run_on_cluster(
    recipe: Recipe, tasks: Sequence[ShardTask], address: str
) -> Iterator[dict[str, Any]]:
    """The stats of all shards, in their order.

    Args:
        recipe: How parts are made.
        tasks: The shards to be made.
        address: Of a Dask scheduler, such as `tcp://10.0.0.1:8786`.

    Raises:
        ConfigError: Dask is not installed, or nothing answers at the address.
        ToolkitError: A shard took several workers with it, or its corpus file is useless.
    """
    try:
        from distributed import Client
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise ConfigError(
            "--cluster needs Dask: pip install 'artist-toolkit[cluster]', here and on its workers."
        ) from None
    try:
        client: Any = Client(address, timeout=20, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ConfigError(f"no Dask scheduler answers at {address}: {error}.") from None
    with client:
        # A task rather than scattered data: Dask makes it again where all its holders are lost.
        told = client.submit(_same, recipe, pure=False)
        futures = client.map(make_shard, tasks, recipe=told, pure=False)
        for task, future in zip(tasks, futures, strict=True):
            try:
                yield future.result()
            except KilledWorker as error:
                raise ToolkitError(f"{task}: {error}. Out of memory?") from None


def make_shard(task: ShardTask, recipe: Recipe) -> dict[str, Any]:
    """Make a shard, in a thread of a worker, which opens the recipe once."""
    if getattr(_here, "recipe", None) is not recipe:
        _here.recipe, _here.maker = recipe, recipe.open()
    maker: PartMaker = _here.maker
    return task.run(maker)


def _same(recipe: Recipe) -> Recipe:
    return recipe
