"""Names for the types of numpy arrays."""

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]  # entity, relation and string ids
Ints = NDArray[np.int64]  # positions and counts
Hashes = NDArray[np.uint64]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]  # vectors
Doubles = NDArray[np.float64]  # ranks, metrics, places on a map
