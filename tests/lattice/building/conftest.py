"""Build a table with the real command."""

import pytest


@pytest.fixture
def build(command, names, write, tmp_path):
    """Build a table from the content of a corpus; return exit code, stdout, stderr, path.

    `entities` is the content of an id file, instead of the module's `NAMES`.
    """

    def run(content, *options, entities=None):
        out, source = tmp_path / "out.parquet", write("corpus.tsv", content)
        file = names if entities is None else write("names.txt", entities)
        result = command("lattice", "build", source, "--entities", file, "--out", out, *options)
        return *result, out

    return run
