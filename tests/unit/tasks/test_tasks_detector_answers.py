"""How large the images of a batch are, however they are handed over."""

import torch

from prunus.core.batch import Batch
from prunus.tasks.boxes.detector_answers import image_sizes


def sizes(inputs, n=2):
    return image_sizes(Batch(torch.arange(n), inputs, None)).tolist()


def test_the_sizes_of_images_are_those_of_a_batch_or_of_each_in_a_list_and_ones_of_nothing_that_looks_like_images():
    assert sizes(torch.zeros(2, 3, 8, 6)) == [[8, 6], [8, 6]]
    assert sizes({"mask": torch.zeros(2, 9), "pixels": torch.zeros(2, 3, 8, 6)}) == [[8, 6], [8, 6]]
    assert sizes([torch.zeros(3, 8, 6), torch.zeros(3, 5, 7)]) == [[8, 6], [5, 7]]
    assert sizes(torch.zeros(2, 4)) == [[1, 1], [1, 1]]
