"""The architecture in a page: imports run one way, and each heavy library has one home."""

import ast
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("jobs", "recommender", "storage")
MAY_IMPORT = {
    "jobs": {"jobs", "recommender", "storage", "scheduler"},
    "recommender": {"recommender"},
    "storage": {"storage"},
}
HOMES = {
    "tensorflow": ["recommender/tensorflow.py"],
    "tensorflow_recommenders": ["recommender/tensorflow.py"],
    "tensorflow_datasets": ["storage/tfds.py"],
    "duckdb": [
        "storage/answers.py",
        "storage/attached.py",
        "storage/audit.py",
        "storage/lists.py",
        "storage/rebuild.py",
        "storage/warehouse.py",
    ],
    "apscheduler": ["scheduler.py"],
    "click": [
        *(
            "jobs/cli.py",
            "jobs/commands.py",
            "jobs/experiments.py",
            "jobs/lookups.py",
            "jobs/options.py",
            "jobs/upkeep.py",
        ),
    ],
    "optuna": ["jobs/tune.py"],
    "ray": ["jobs/engine.py"],
    "pyiceberg": ["storage/iceberg.py"],
    "matplotlib": ["jobs/plots.py", "jobs/report_plots.py"],
    "jinja2": ["jobs/report.py"],
    "prometheus_client": ["jobs/metrics.py"],
    "rich": ["jobs/progress.py", "jobs/show.py"],
    "filelock": ["storage/atomic.py"],
}


def sources() -> list[Path]:
    return [ROOT / "scheduler.py", *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_run_one_way(folder: str) -> None:
    own = {*FOLDERS, "scheduler", "tests", "benchmarks"}
    found = {name for path in (ROOT / folder).rglob("*.py") for name in imports(path)} & own
    assert found <= MAY_IMPORT[folder]


@pytest.mark.parametrize("library", HOMES)
def test_each_heavy_library_is_imported_in_one_place(library: str) -> None:
    found = {str(path.relative_to(ROOT)) for path in sources() if library in set(imports(path))}
    assert found <= set(HOMES[library])
    assert found


def test_object_stores_are_asked_in_one_place() -> None:
    found = [
        str(path.relative_to(ROOT)) for path in sources() if re.search(r"pyarrow(\.| import )fs\b", path.read_text())
    ]
    assert found == ["storage/objects.py"]


def test_files_and_functions_stay_short() -> None:
    for path in sources():
        text = path.read_text()
        assert text.count("\n") <= 320, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"


def test_public_functions_and_classes_are_documented() -> None:
    for path in sources():
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"


@pytest.mark.faults("B6.8")
def test_help_is_quick_and_loads_nothing_heavy() -> None:
    script = (
        "import sys\nfrom jobs.commands import recjob\n"
        "recjob.main(['--help'], standalone_mode=False)\n"
        "heavy = {'tensorflow', 'duckdb', 'pyarrow', 'numpy', 'apscheduler', 'matplotlib', 'optuna', 'rich', 'pyiceberg'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
        times.append(time.perf_counter() - began)
        assert done.returncode == 0, done.stderr
    assert min(times) < 0.6  # 0.2 s on a quiet machine; the benchmark measures, this guards


def test_numpy_is_told_its_threads_before_it_is_imported() -> None:
    script = (
        "import os, sys, recommender.config\n"
        "sys.exit('numpy' in sys.modules or os.environ['OPENBLAS_NUM_THREADS'] != '1')\n"
    )
    bare = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    subprocess.run([sys.executable, "-c", script], env=bare, cwd=ROOT, check=True)


@pytest.mark.faults("B5.13")
def test_wheel_has_sql_and_no_tests(tmp_path: Path) -> None:
    import zipfile

    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops - {"jobs", "recommender", "storage", "scheduler.py"} == {
        name for name in tops if name.endswith(".dist-info")
    }
    assert "storage/_sql/views/current_recommendations.sql" in names
