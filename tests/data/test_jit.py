import numpy as np

from data.jit import jit


@jit
def total(numbers):
    sum_ = 0
    for number in numbers:
        sum_ += number
    return sum_


def test_a_compiled_loop_gives_what_numpy_gives():
    numbers = np.arange(1000)
    assert total(numbers) == numbers.sum()
