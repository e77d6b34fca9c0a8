"""Names for the types of the arrays that the compiled loops use."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]  # positions and counts
Ids = NDArray[np.int32]  # token ids, entity ids, symbols
Codes = NDArray[np.uint32]  # code points
Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
