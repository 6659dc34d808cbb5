"""The notebook of the quickstart runs from its first cell to its last, on few images."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
FEW = """
iterations, images, labeled = 2, (9, 1, 1), 8
output = {output!r}
"""


def test_the_notebook_runs(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "projects" / "KDDETR"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    parameters.source = FEW.format(output=str(tmp_path / "output"))
    NotebookClient(notebook, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    for picture in ("teacher", "points", "curves", "students"):
        assert (tmp_path / "output" / f"{picture}.png").stat().st_size > 1000
    weights = [tmp_path / "output" / name / "model_final.pth" for name in ("alone", "distilled")]
    assert all(file.is_file() for file in weights)


def test_the_notebook_has_no_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)
