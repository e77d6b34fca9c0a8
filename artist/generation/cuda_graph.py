"""Sampling in steps of fixed shapes, which a GPU captures once and replays. Tensors only.

    B batch   T text tokens   L image codes   S positions

At a small batch a step is some 200 kernels of a few microseconds, and launching them from Python
takes longer than running them. So a step takes its position as a tensor, is captured as a CUDA
graph and launched as a whole; nothing returns from the device until all codes are sampled. One
graph serves `BLOCK` positions: it reads the cache up to the end of its block and masks the
positions that are not filled yet. Reading the whole cache at every step would nearly double the
memory traffic of large batches.

On other devices the same steps run one by one; there `artist.generation.sampling.sample` is faster,
unless the steps are compiled. All samplers give the same codes.
"""

import copy
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from artist.generation.config import SamplingConfig
from artist.generation.sampling import (
    guidance_scale,
    guide,
    random_numbers,
    sample_code,
    with_empty,
)
from artist.models.compiled import compiled, many_variants
from artist.models.conditioning import Entities
from artist.models.gpt import GPT, KVCache

log = logging.getLogger(__name__)

BLOCK = 32  # positions that share a graph


class CUDAGraphSampler:
    """Sample batches of at most `batch_size` images with one model and one `SamplingConfig`.

    Args:
        model: On its device, in eval mode. Its weights must not change while the sampler is used:
            in reduced precision they are copied.
        batch_size: Smaller batches are padded to it, and cost as much.
        config: How codes are sampled.
        empty_ids: `(T,)`, the empty caption; required for guidance.
        dtype: Precision of matrix products and cache.
        compile: Run the steps through `torch.compile`, which fuses small kernels; compiling takes
            about a minute.
    """

    def __init__(
        self,
        model: GPT,
        batch_size: int,
        config: SamplingConfig,
        *,
        empty_ids: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
    ) -> None:
        self.config, self.batch_size = config, batch_size
        self.empty_ids, self.dtype = empty_ids, dtype
        self.model = _cast_linear_layers(model, dtype)
        self.device = model.pos_emb.device
        self.guided = config.cfg_scale != 1.0
        sizes = model.config
        self.text_len, self.image_len = sizes.text_len, sizes.image_len
        self.cache = KVCache(
            sizes,
            2 * batch_size if self.guided else batch_size,
            device=self.device,
            dtype=dtype,
            positions=_up_to_block(sizes.block_size),
        )
        scales = [guidance_scale(config, n, sizes.image_len) for n in range(sizes.image_len)]
        # A graph reads and writes fixed addresses, so these tensors are reused by every step.
        self.scales = torch.tensor(scales).to(self.device)  # (L,)
        self.random = torch.zeros(batch_size, sizes.image_len, device=self.device)
        self.codes = torch.zeros(batch_size, sizes.image_len, dtype=torch.long, device=self.device)
        batch = len(self.cache.layers[0][0])
        self.last_codes = torch.zeros(batch, dtype=torch.long, device=self.device)
        self.position = torch.zeros(1, dtype=torch.long, device=self.device)
        self.compile = compile
        self._step = compiled(self._eager_step) if compile else self._eager_step
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        if self.device.type == "cuda":
            self._capture()

    @torch.no_grad()
    def sample(
        self,
        text_ids: Tensor,
        entities: Entities | None,
        seeds: Sequence[int],
        *,
        given: Tensor | None = None,
    ) -> Tensor:
        """Sample the codes `(B, L)` of one image per row.

        Args:
            text_ids: `(B, T)`, shifted by the codebook's size; B at most `batch_size`.
            entities: Entities of the captions, or None.
            seeds: One per row.
            given: `(B, G)`, the first codes of each image, which are kept.

        Raises:
            ValueError: The batch is empty or larger than `batch_size`.
        """
        B = len(text_ids)
        if not 0 < B <= self.batch_size:
            raise ValueError(f"{B} rows for a sampler of batch size {self.batch_size}.")
        given = text_ids.new_zeros(B, 0) if given is None else given
        first = given.shape[1]
        if first == self.image_len:
            return given
        text_ids, given = (_padded(t, self.batch_size) for t in (text_ids, given))
        if entities is not None:
            entities = Entities(
                _padded(entities.vectors, self.batch_size),
                _padded(entities.covers, self.batch_size),
                entities.filler,
            )
        random = random_numbers(seeds, self.image_len, self.device)
        self.random.copy_(_padded(random, self.batch_size))
        self.codes[:, :first] = given
        with self._precision(), self._compiling():
            self._prefill(text_ids, entities, given)
            for position in range(self.text_len + first, self.text_len + self.image_len - 1):
                self._advance(_up_to_block(position + 1))
        return self.codes[:B].clone()

    def _prefill(self, text_ids: Tensor, entities: Entities | None, given: Tensor) -> None:
        """Run the captions and the given codes through the model and sample the next code."""
        if self.guided:
            text_ids, entities = with_empty(text_ids, entities, self.empty_ids)
            given = given.repeat(2, 1)
        self.cache.length = 0
        ids = torch.cat([text_ids, given], 1)
        logits = self.model(ids, entities, cache=self.cache, first=ids.shape[1] - 1)[:, -1]
        self.position.fill_(ids.shape[1] - 1)
        self._sample_next(logits)

    def _eager_step(self, seen: int) -> None:
        """Sample the next code of all rows."""
        self._sample_next(self.model.step(self.last_codes, self.position, self.cache, seen))

    def _sample_next(self, logits: Tensor) -> None:
        """Sample codes from the logits at `position`, store them and advance the position."""
        n = self.position - (self.text_len - 1)  # index of the code, (1,)
        if self.guided:
            logits = guide(logits, self.scales.index_select(0, n))
        codes = sample_code(logits, self.random.index_select(1, n).squeeze(1), self.config)
        self.codes.index_copy_(1, n, codes[:, None])
        self.last_codes.copy_(codes.repeat(2) if self.guided else codes)
        self.position.add_(1)

    def _advance(self, seen: int) -> None:
        graph = self.graphs.get(seen)
        if graph is not None:
            graph.replay()
        else:
            self._step(seen)

    def _precision(self) -> torch.autocast:
        # Autocast's weight cache would outlive a capture; `_cast_linear_layers` replaces it.
        reduced = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype, enabled=reduced, cache_enabled=False)

    def _compiling(self) -> AbstractContextManager[None]:
        # With constant weights, the CPU compiler chooses their layout for small batches.
        on_cpu = self.device.type == "cpu"
        return many_variants(constant_weights=on_cpu) if self.compile else nullcontext()

    @torch.no_grad()
    def _capture(self) -> None:
        """Capture a graph per block of positions; if that fails, steps run one by one."""
        last = self.text_len + self.image_len - 2  # the last position that is an input
        blocks = range(_up_to_block(self.text_len + 1), _up_to_block(last + 1) + 1, BLOCK)
        graphs: dict[int, torch.cuda.CUDAGraph] = {}
        try:
            with self._precision(), self._compiling():
                stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
                stream.wait_stream(torch.cuda.current_stream(self.device))
                with torch.cuda.stream(stream):
                    for seen in blocks:  # warm up: libraries tune and allocate on first calls
                        self.position.fill_(min(seen - 1, last))
                        self._step(seen)
                torch.cuda.current_stream(self.device).wait_stream(stream)
                pool = None
                for seen in blocks:
                    graphs[seen] = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graphs[seen], pool=pool):
                        self._step(seen)
                    pool = graphs[seen].pool()
            self.graphs = graphs
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            log.warning("Sampling without CUDA graphs, slower at small batches: %s", reason)


def _up_to_block(positions: int) -> int:
    return -(-positions // BLOCK) * BLOCK


def _padded(rows: Tensor, count: int) -> Tensor:
    """Pad the rows to `count` with copies of the first."""
    return torch.cat([rows, rows[:1].expand(count - len(rows), *rows.shape[1:])])


def _cast_linear_layers(model: GPT, dtype: torch.dtype) -> GPT:
    """Return a copy with the linear layers in `dtype`, so that no step casts their weights."""
    if dtype == torch.float32:
        return model
    own = copy.deepcopy(model).requires_grad_(False)
    for layer in own.modules():
        if isinstance(layer, nn.Linear):
            layer.to(dtype)
    return own
