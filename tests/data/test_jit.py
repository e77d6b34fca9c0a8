import numpy as np

from data.jit import fnv1a, jit


@jit
def total(numbers):
    sum_ = 0
    for number in numbers:
        sum_ += number
    return sum_


def test_a_compiled_loop_gives_what_numpy_gives():
    numbers = np.arange(1000)
    assert total(numbers) == numbers.sum()


def test_the_hash_is_fnv_1a_folded():
    # The published vector of the 64-bit hash of "foobar" is 0x85944171f73967e8.
    values = np.frombuffer(b"<foobar>", np.uint8)
    assert fnv1a(values, 1, 7) == 0x85944171F73967E8 ^ 0x85944171
