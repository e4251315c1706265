"""The notebooks run from top to bottom on the embedded default, and nothing of a run is left in them."""

import json
import os

import nbclient
import nbformat
import pandas as pd
import pytest

NOTEBOOKS = ("01_data", "02_train", "03_inference_and_evaluation")


def read(root, name):
    return nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)


def run(root, cache, name, **parameters):
    """Execute a notebook with other parameters; gives all that it printed."""
    notebook = read(root, name)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    known = {line.split(" = ")[0] for line in cell.source.splitlines() if " = " in line}
    assert set(parameters) <= known
    cell.source += "\n" + "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    environment = {**os.environ, "TUNEMATRIX_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    client = nbclient.NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(root / "notebooks")}}
    )
    client.execute(env=environment)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    texts = [output.get("text", "") + str(output.get("data", {}).get("text/plain", "")) for output in outputs]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    return "\n".join(texts), pictures


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_nothing_of_a_run_is_committed(root, name):
    notebook = read(root, name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
    assert notebook.metadata.kernelspec.name == "python3"
    text = json.dumps(notebook)
    assert "/root/" not in text
    assert "multiprocessing" not in text, "processes are started, never forked from a notebook"


@pytest.mark.slow
def test_the_data_notebook(root, cache, tmp_path):
    text, pictures = run(root, cache, "01_data", OUT=str(tmp_path / "inspection"))
    assert "questions on" in text
    assert pictures >= 5
    assert list((tmp_path / "inspection").glob("*.png"))


@pytest.mark.slow
def test_training_then_inference_from_the_weights_alone(root, cache, tmp_path):
    options = ["--max-steps", "12", "--batch-size", "32", "--no-baseline"]
    text, pictures = run(
        root,
        cache,
        "02_train",
        STRATEGIES=["lora"],
        OPTIONS=options,
        TIME_LIMIT="30m",
        OUT=str(tmp_path / "runs"),
    )
    runs = pd.read_csv(tmp_path / "runs" / "all" / "runs.csv")
    assert set(runs.status) == {"ok"}
    assert "f1_macro" in text
    assert pictures >= 3
    assert (tmp_path / "runs" / "models" / "lora" / "model.safetensors").is_file()

    text, pictures = run(
        root, cache, "03_inference_and_evaluation",
        MODEL=str(tmp_path / "runs" / "models" / "lora"), LIMIT=0, DEVICE="cpu", OUT=str(tmp_path / "results.json"),
    )  # fmt: skip
    assert pictures == 6
    recorded = runs[runs.strategy == "lora"].iloc[0]
    (line,) = [line for line in text.splitlines() if line.startswith("vqa_accuracy ")]
    assert float(line.split()[1]) == pytest.approx(100 * recorded.vqa_accuracy, abs=0.3)
    assert len(json.loads((tmp_path / "results.json").read_text())) > 100
