import pytest
import torch

from pathopan.network.precision import fast_autocast, fast_precision


@pytest.fixture(params=[True, False], ids=["hardware has it", "hardware has it not"])
def hardware(request, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: request.param)
    return request.param


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_bfloat16_is_for_hardware_that_multiplies_it(hardware, device):
    assert fast_precision(device) == ("bfloat16" if hardware else "float32")


def test_a_block_computes_in_it(hardware):
    with fast_autocast(torch.device("cpu")):
        found = torch.ones(2, 2) @ torch.ones(2, 2)
    assert found.dtype == (torch.bfloat16 if hardware else torch.float32)
