"""Write shards on the workers of a Dask cluster.

A task is a corpus file, its result the stats of a finished shard. Workers receive the path of the
compiled vocabulary and map it, so all machines need access to the same files. Dask reassigns the
tasks of a lost worker. A shard that is written twice is identical and is renamed into place, so no
row is lost or duplicated.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from data.errors import ConfigError, ToolkitError
from lattice.building.chunks import ChunkProcessor, ProcessorSpec
from lattice.building.shards import ShardTask

_local = threading.local()


def run_on_cluster(
    spec: ProcessorSpec, tasks: Sequence[ShardTask], address: str
) -> Iterator[dict[str, Any]]:
    """Write all shards and yield their stats in order.

    Args:
        spec: The chunk processor.
        tasks: The shards to write.
        address: The address of a Dask scheduler, such as `tcp://10.0.0.1:8786`.

    Raises:
        ConfigError: Dask is not installed, or no scheduler answers at the address.
        ToolkitError: A task killed several workers, or its corpus file is unusable.
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
        # A task rather than scattered data: Dask recomputes it when all its holders are lost.
        shared = client.submit(_identity, spec, pure=False)
        futures = client.map(write_shard, tasks, spec=shared, pure=False)
        for task, future in zip(tasks, futures, strict=True):
            try:
                yield future.result()
            except KilledWorker as error:
                raise ToolkitError(f"{task}: {error}. Out of memory?") from None


def write_shard(task: ShardTask, spec: ProcessorSpec) -> dict[str, Any]:
    """Write a shard in a thread of a worker; each thread opens the spec once."""
    if getattr(_local, "spec", None) is not spec:
        _local.spec, _local.processor = spec, spec.open()
    processor: ChunkProcessor = _local.processor
    return task.run(processor)


def _identity(spec: ProcessorSpec) -> ProcessorSpec:
    return spec
