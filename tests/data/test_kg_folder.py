"""KG folders that are opened: every name has its vector, whoever wrote the pair."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from data.errors import InputError
from data.kg_folder import VECTORS, VECTORS_KEY, map_vectors, read_vectors

NAMES = "2\n北京\t0\n故宫\t1\n"


@pytest.fixture(params=["easynlp", "safetensors"])
def write(request, tmp_path):
    """Writes a pair with a number of vectors; the folder."""

    def write_pair(num_vectors: int):
        (tmp_path / "entity2id.txt").write_text(NAMES, encoding="utf-8")
        vectors = np.random.default_rng(0).normal(size=(num_vectors, 100)).astype(np.float32)
        if request.param == "easynlp":
            torch.save(torch.from_numpy(vectors), tmp_path / "entity2vec.pt")
        else:
            save_file({VECTORS_KEY: vectors}, tmp_path / VECTORS)
        return tmp_path, vectors

    return write_pair


def test_a_pair_that_fits_is_read(write):
    folder, vectors = write(2)
    np.testing.assert_array_equal(read_vectors(folder), vectors)


@pytest.mark.parametrize("num_vectors", [1, 3])
@pytest.mark.parametrize("read", [read_vectors, map_vectors])
def test_a_pair_of_other_lengths_is_refused_where_it_is_opened(write, read, num_vectors):
    folder, _ = write(num_vectors)
    with pytest.raises(InputError, match=f"contains 2 names but {num_vectors} vectors"):
        read(folder)


@pytest.mark.parametrize("num_vectors", [1, 3])
def test_the_command_refuses_such_a_pair_in_one_line(write, command, num_vectors):
    folder, _ = write(num_vectors)
    captions, out = folder / "c.tsv", folder / "t.parquet"
    captions.write_text("1\t北京的故宫\n", encoding="utf-8")
    code, _, err = command("lattice", "build", captions, "--kg", folder, "--out", out)
    assert (code, err.count("\n"), f"2 names but {num_vectors} vectors" in err) == (2, 1, True)
    assert not out.exists()
