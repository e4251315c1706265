import pytest

from bench.forecast.gpus import find_gpu, has_kernels, known_gpus, match_gpu


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("Tesla T4", "T4"), ("NVIDIA L4", "L4"), ("NVIDIA L40S", "L40S"), ("NVIDIA A10G", "A10G"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"), ("NVIDIA A100-SXM4-80GB", "A100"), ("NVIDIA A100 80GB PCIe", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100-PCIe"), ("NVIDIA H200", "H200"),
        ("Tesla V100-SXM2-16GB", "V100"), ("Tesla P100-PCIE-16GB", "P100"), ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA A10", "A10"),
    ],
)  # fmt: skip
def test_a_driver_s_name_finds_its_gpu(device, name):
    assert match_gpu(device).name == name


def test_an_unknown_gpu_is_not_guessed():
    assert match_gpu("NVIDIA GeForce GTX 1080") is None


def test_names_sizes_and_alternatives():
    assert find_gpu("t4").name == "T4"
    assert find_gpu("16GB").memory_bytes == 16 * 10**9
    assert find_gpu("14.5 GiB").memory_bytes == int(14.5 * 2**30)
    assert not find_gpu("16GB").tflops
    with pytest.raises(ValueError, match=r"no GPU 'h10'.*H100"):
        find_gpu("h10")


def test_peaks_are_dense_and_prices_have_a_source():
    for gpu in known_gpus().values():
        assert gpu.tflops["fp32"] <= gpu.tflops.get("tf32", gpu.tflops["fp16"]) <= gpu.tflops["fp16"]
        assert gpu.dollars_per_hour is None or gpu.dollars_per_hour > 0
    assert known_gpus()["H100"].tflops["bf16"] == 989.4


@pytest.mark.parametrize(
    ("capability", "compiled", "runs"),
    [
        ((7, 5), ["sm_75", "sm_80", "sm_90"], True),  # a T4
        ((6, 0), ["sm_75", "sm_80", "sm_90"], False),  # a P100 with today's wheels
        ((6, 0), ["sm_50", "sm_60", "sm_70"], True),
        ((8, 9), ["sm_80", "sm_90"], True),  # an L4 runs what was compiled for an A100
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_90", "compute_90"], True),  # compiled for it when it is first used
        ((7, 0), ["compute_75"], False),
        ((9, 0), ["sm_90a"], True),
        ((9, 0), [], False),
    ],
)
def test_a_gpu_that_torch_was_not_compiled_for_is_known_beforehand(capability, compiled, runs):
    assert has_kernels(capability, compiled) is runs
