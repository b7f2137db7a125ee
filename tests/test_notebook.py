"""The notebook in the documents: whole, small, and each of its cells runs on what a night publishes."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import LAST

from jobs.nightly import nightly
from jobs.settings import Settings

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebook" / "lists.ipynb"


def outputs(cell: Any) -> list[Any]:
    return [output for output in cell.get("outputs", []) if output["output_type"] != "stream"]


def test_the_notebook_is_stored_with_its_outputs_and_names_no_place() -> None:
    text = NOTEBOOK.read_text()
    code = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    kinds = [output["output_type"] for cell in code for output in cell["outputs"]]
    assert set(kinds) == {"execute_result", "display_data"}
    assert text.count('"image/png"') >= 4
    assert all(outputs(cell) for cell in code)
    assert len(text) < 300_000
    assert "/tmp/" not in text
    assert "/home/" not in text


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    why = "THE NOTEBOOK WAS NOT RUN: pip install recjob[notebook]"
    nbclient, nbformat = (pytest.importorskip(name, reason=why) for name in ("nbclient", "nbformat"))
    for name in ("ipykernel", "polars"):
        pytest.importorskip(name, reason=why)
    for days in (1, 0):
        nightly(settings, LAST - timedelta(days=days))
    monkeypatch.setenv("RECJOB_DATABASE", str(settings.database))
    document = nbformat.read(NOTEBOOK, as_version=4)
    for cell in document.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbclient.NotebookClient(document, kernel_name="python3", timeout=200).execute()  # a cell that fails raises
    assert all(outputs(cell) for cell in document.cells if cell.cell_type == "code")
