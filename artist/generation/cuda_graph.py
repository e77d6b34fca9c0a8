"""Drawing in steps of fixed shapes, which a GPU records once and replays. Tensors only.

    B rows   T text tokens   L image codes   S positions

A step at a small batch is some 200 kernels of a few microseconds, and launching one from Python
takes longer than running it. So a step is written for a position that is a tensor, recorded as a
CUDA graph, and launched as a whole; nothing comes back from the device until all codes are drawn.
One graph serves `BLOCK` positions: it reads the cache up to the end of its block and masks what is
not there yet, since reading all of it at every step would nearly double the memory traffic of large
batches.

On other devices the same steps run one by one. There `artist.generation.sampling.sample` is faster,
unless they are compiled. Either way the codes are those of the plain sampler.
"""

import copy
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from artist.generation.config import SamplingConfig
from artist.generation.sampling import guidance, guide, pick, uniforms, with_empty
from artist.models.compiled import compiled, many_variants
from artist.models.conditioning import Entities
from artist.models.gpt import GPT, KVCache

log = logging.getLogger(__name__)

BLOCK = 32  # positions that share a graph


class StaticSampler:
    """Draws batches of at most `rows` images with one model and one setting.

    Args:
        model: On its device, in eval mode. Its weights must not change meanwhile: in reduced
            precision they are copied.
        rows: The batch. Smaller ones are filled up, and cost as much.
        config: How codes are chosen.
        empty_ids: `(T,)`, the empty caption; needed for guidance.
        dtype: Precision of matrix products and cache.
        compile: Run the steps through `torch.compile`, which joins small kernels: a minute or so
            at the beginning.
    """

    def __init__(
        self,
        model: GPT,
        rows: int,
        config: SamplingConfig,
        *,
        empty_ids: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
    ) -> None:
        self.config, self.rows, self.empty_ids, self.dtype = config, rows, empty_ids, dtype
        self.model = _with_weights_in(model, dtype)
        self.device = model.pos_emb.device
        self.guided = config.cfg_scale != 1.0
        sizes = model.config
        self.text_len, self.image_len = sizes.text_len, sizes.image_len
        self.cache = KVCache(
            sizes,
            2 * rows if self.guided else rows,
            device=self.device,
            dtype=dtype,
            positions=_up_to_block(sizes.block_size),
        )
        scales = [guidance(config, n, sizes.image_len) for n in range(sizes.image_len)]
        # What a step reads and writes lies in the same place at every step.
        self.scales = torch.tensor(scales).to(self.device)  # (L,)
        self.random = torch.zeros(rows, sizes.image_len, device=self.device)
        self.codes = torch.zeros(rows, sizes.image_len, dtype=torch.long, device=self.device)
        self.fresh = torch.zeros(len(self.cache.layers[0][0]), dtype=torch.long, device=self.device)
        self.position = torch.zeros(1, dtype=torch.long, device=self.device)
        self.compile = compile
        self._step = compiled(self._plain_step) if compile else self._plain_step
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        if self.device.type == "cuda":
            self._record()

    @torch.no_grad()
    def draw(
        self,
        text_ids: Tensor,
        entities: Entities | None,
        seeds: Sequence[int],
        *,
        given: Tensor | None = None,
    ) -> Tensor:
        """The codes `(B, L)` of one image a row.

        Args:
            text_ids: `(B, T)`, shifted by the codebook's size; B at most `rows`.
            entities: What the lattice knows of the captions, or None.
            seeds: One a row.
            given: `(B, G)`, the first codes of each image, which are kept.
        """
        B = len(text_ids)
        if not 0 < B <= self.rows:
            raise ValueError(f"{B} rows for a sampler of {self.rows}.")
        given = text_ids.new_zeros(B, 0) if given is None else given
        first = given.shape[1]
        if first == self.image_len:
            return given
        text_ids, given = (_filled(t, self.rows) for t in (text_ids, given))
        if entities is not None:
            entities = Entities(
                _filled(entities.vectors, self.rows),
                _filled(entities.covers, self.rows),
                entities.filler,
            )
        self.random.copy_(_filled(uniforms(seeds, self.image_len, self.device), self.rows))
        self.codes[:, :first] = given
        with self._precision(), self._compiling():
            self._prefill(text_ids, entities, given)
            for position in range(self.text_len + first, self.text_len + self.image_len - 1):
                self._advance(_up_to_block(position + 1))
        return self.codes[:B].clone()

    def _prefill(self, text_ids: Tensor, entities: Entities | None, given: Tensor) -> None:
        """Read the captions and what is given, and draw the code after it."""
        if self.guided:
            text_ids, entities = with_empty(text_ids, entities, self.empty_ids)
            given = given.repeat(2, 1)
        self.cache.length = 0
        ids = torch.cat([text_ids, given], 1)
        logits = self.model(ids, entities, cache=self.cache, first=ids.shape[1] - 1)[:, -1]
        self.position.fill_(ids.shape[1] - 1)
        self._choose(logits)

    def _plain_step(self, seen: int) -> None:
        """Draw the next code of all rows."""
        self._choose(self.model.step(self.fresh, self.position, self.cache, seen))

    def _choose(self, logits: Tensor) -> None:
        """Pick codes from the logits at `position`, write them down, and go on to the next."""
        n = self.position - (self.text_len - 1)  # which code this is
        if self.guided:
            logits = guide(logits, self.scales.index_select(0, n))
        codes = pick(logits, self.random.index_select(1, n).squeeze(1), self.config)
        self.codes.index_copy_(1, n, codes[:, None])
        self.fresh.copy_(codes.repeat(2) if self.guided else codes)
        self.position.add_(1)

    def _advance(self, seen: int) -> None:
        graph = self.graphs.get(seen)
        if graph is not None:
            graph.replay()
        else:
            self._step(seen)

    def _precision(self) -> torch.autocast:
        # Its cache of cast weights would outlive a recording; `_with_weights_in` makes up for it.
        reduced = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype, enabled=reduced, cache_enabled=False)

    def _compiling(self) -> AbstractContextManager[None]:
        # Given constant weights, a CPU's compiler lays them out for few rows.
        on_cpu = self.device.type == "cpu"
        return many_variants(constant_weights=on_cpu) if self.compile else nullcontext()

    @torch.no_grad()
    def _record(self) -> None:
        """Record a graph for each block of positions; where that fails, steps run one by one."""
        last = self.text_len + self.image_len - 2  # the last position that is an input
        blocks = range(_up_to_block(self.text_len + 1), _up_to_block(last + 1) + 1, BLOCK)
        graphs: dict[int, torch.cuda.CUDAGraph] = {}
        try:
            with self._precision(), self._compiling():
                stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
                stream.wait_stream(torch.cuda.current_stream(self.device))
                with torch.cuda.stream(stream):
                    for seen in blocks:  # libraries choose and allocate at their first calls
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
            log.warning("Drawing without CUDA graphs, slower at small batches: %s", reason)


def _up_to_block(positions: int) -> int:
    return -(-positions // BLOCK) * BLOCK


def _filled(rows: Tensor, count: int) -> Tensor:
    """The rows, followed by copies of the first, `count` in all."""
    return torch.cat([rows, rows[:1].expand(count - len(rows), *rows.shape[1:])])


def _with_weights_in(model: GPT, dtype: torch.dtype) -> GPT:
    """A model whose linear layers hold their weights in a precision, so that no step casts them."""
    if dtype == torch.float32:
        return model
    own = copy.deepcopy(model).requires_grad_(False)
    for layer in own.modules():
        if isinstance(layer, nn.Linear):
            layer.to(dtype)
    return own
