import pytest

from bench.forecast.utilisation import utilisation

FULL, LORA, GROUPED = [{"name": "full"}], [{"name": "lora"}], [{"name": "group_by_image"}]


def row(**changes):
    return {
        "gpu_name": "NVIDIA H100 80GB HBM3", "precision": "bf16", "samples_per_second": 2000.0, "ttt_seconds": 3600.0,
        "model_flops_per_sample": 1e11, "trainable_parameters": 5, "total_parameters": 5, **changes,
    }  # fmt: skip


def test_the_share_of_the_dense_peak_and_the_price_by_hand():
    found = utilisation(row(), FULL)
    assert utilisation(row(), [{"name": "amp"}, {"name": "compile"}])["mfu"] == found["mfu"]
    assert found["mfu"] == pytest.approx(2000 * 1e11 / 989.4e12)
    assert found["cost_dollars"] == pytest.approx(4.76)


@pytest.mark.parametrize(
    ("changes", "members"),
    [
        ({"trainable_parameters": 4}, LORA), ({}, GROUPED), ({"model_flops_per_sample": None}, FULL),
        ({}, [{"name": "tf32"}]), ({}, [{"name": "fp8"}, {"name": "amp"}]),
        ({"precision": "fp64"}, FULL), ({"samples_per_second": None}, FULL),
    ],
)  # fmt: skip
def test_where_it_means_nothing_it_is_empty(changes, members):
    assert "mfu" not in utilisation(row(**changes), members)


def test_nothing_is_known_of_a_cpu_or_of_a_strange_gpu():
    assert utilisation(row(gpu_name=""), FULL) == utilisation(row(gpu_name="GTX 1080"), FULL) == {}
    assert "cost_dollars" not in utilisation(row(gpu_name="Tesla P100-PCIE-16GB"), FULL), "no price is known"
