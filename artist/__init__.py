"""Stages 3 and 4: from lattice tables to models, and from prompts to images.

- `artist.models`: tensors only. `artist.formats`: model folders and files of other projects.
- `artist.tables`: batches of lattice tables; encoding images.
- `artist.generation`: sampling, predictions, galleries.
- `artist.training`: the Trainer and its tasks.
- `artist.evaluation`: likelihood, image metrics, ablations, reports.

Each package may import those named before it.
"""

__all__ = ["evaluation", "formats", "generation", "models", "tables", "training"]
