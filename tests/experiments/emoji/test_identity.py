"""Does an image show the named thing: the rank of its name by nearest training image."""

import numpy as np

from experiments.emoji.identity import NameJudge

RNG = np.random.default_rng(0)
NAMES = np.array([7, 2, 7, 5, 2, 5, 9])
IMAGES = list(RNG.integers(0, 256, (7, 64, 64, 3)).astype(np.uint8))


def test_a_training_image_is_nearest_to_its_own_name():
    assert NameJudge(IMAGES, NAMES).ranks(IMAGES, NAMES).tolist() == [1] * 7


def test_ranks_equal_a_count_over_all_names():
    judged = list(RNG.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8))
    small = [i.reshape(32, 2, 32, 2, 3).mean((1, 3)) for i in IMAGES]
    for name in (2, 9):
        found = NameJudge(IMAGES, NAMES).ranks(judged, np.full(4, name))
        for image, rank in zip(judged, found, strict=True):
            distances = {
                other: min(
                    np.square(s - image.astype(float)).sum()
                    for s, n in zip(small, NAMES, strict=True)
                    if n == other
                )
                for other in set(NAMES.tolist())
            }
            assert rank == 1 + sum(d < distances[name] for d in distances.values())


def test_a_left_out_image_is_not_compared_with_itself():
    images = [IMAGES[0], IMAGES[0] // 2, IMAGES[1]]
    judge = NameJudge(images, np.array([0, 1, 1]))
    alone, paired = judge.ranks(images[:2], np.array([0, 1]), leave_out=np.array([0, 1]))
    assert alone == 2  # its name has no other image
    assert paired == 2
    assert judge.ranks(images[:1], np.array([0])).tolist() == [1]
