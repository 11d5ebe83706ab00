"""How many CPU threads a model works on."""

import pytest

from mlops_assets.threads import ONE_THREAD_BELOW, fitting_threads


@pytest.mark.parametrize(("parameters", "threads"), [(10**6, 1), (ONE_THREAD_BELOW, 2)])
def test_a_small_model_works_on_one_and_they_are_put_back(parameters: int, threads: int) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with fitting_threads(parameters) as side_by_side:
            assert torch.get_num_threads() == threads
            assert threads * side_by_side == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
