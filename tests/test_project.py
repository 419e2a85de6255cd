"""House rules that no linter knows: who may import what, where randomness and printing live, how long a file may be."""

import ast
import io
import re
import tomllib
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
from flwr.cli.build import build_fab_from_files
from flwr.common.config import validate_config
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SHIPPED = ("nerv_fl", "datagen", "simulations")
EVERYTHING = (*SHIPPED, "tests", "benchmarks")
MAX_LINES = 500
NUMPY_GENERATORS = "BitGenerator|Generator|MT19937|PCG64|PCG64DXSM|Philox|SFC64|SeedSequence|default_rng"
TORCH_DRAWS = "bernoulli|multinomial|normal|rand|randint|randn|randperm"


class Rule(NamedTuple):
    """Dotted names (a regular expression) that only some files (glob patterns) of some folders may use."""

    names: str
    allowed: tuple[str, ...]
    folders: tuple[str, ...]


FAULTY = "tests/client/faulty_tasks.py"
"""Tasks that a node must refuse; some draw from global generators."""

RULES = {
    "the random module is not used": Rule(r"random(\..*)?", ("nerv_fl/rng.py", FAULTY), EVERYTHING),
    "torch's global generator is not seeded": Rule(
        r"torch\.((cuda|mps|random)\.)?(manual_)?seed(_all)?", ("nerv_fl/rng.py", FAULTY), EVERYTHING
    ),
    "torch's global generator is not drawn from": Rule(rf"torch\.({TORCH_DRAWS}|rand_like|randn_like)", (), SHIPPED),
    "NumPy's global generator is not used": Rule(
        rf"numpy\.random\.(?!({NUMPY_GENERATORS})\b).+", ("nerv_fl/rng.py", FAULTY), EVERYTHING
    ),
    "NumPy generators come from rng.py": Rule(
        rf"numpy\.random\.(?!(Bit)?Generator$)({NUMPY_GENERATORS})", ("nerv_fl/rng.py",), SHIPPED
    ),
    "only logs, the registry, TLS and the facts about a start read a calendar": Rule(
        r"time\.(time|time_ns|localtime|gmtime|ctime)|datetime\.(datetime|date)\.(now|utcnow|today)",
        # sessions.py: when and how long a run was executed, for its manifest; no result depends on it.
        ("nerv_fl/io/logging.py", "nerv_fl/registry/store.py", "nerv_fl/server/sessions.py", "nerv_fl/deploy/*"),
        SHIPPED,
    ),
    "only the command line prints": Rule(r"print", ("nerv_fl/cli*", "*/__main__.py"), SHIPPED),
    "only the store reads HDF5": Rule(r"h5py(\..*)?", ("nerv_fl/data/*", "datagen/export.py"), SHIPPED),
    "only the apps, the strategy and the engine know Flower": Rule(
        r"flwr(\..*)?",
        (
            "nerv_fl/client/app.py",
            "nerv_fl/strategy/nerv.py",
            "nerv_fl/deploy/*_app.py",
            "nerv_fl/deploy/super*.py",
            "nerv_fl/deploy/fleet_guard.py",
            "nerv_fl/deploy/waiting.py",
            "nerv_fl/server/app.py",
            "simulations/engine.py",
            "simulations/flower.py",
        ),
        SHIPPED,
    ),
    "only the engine and the clusters know Ray": Rule(
        r"ray(\..*)?",
        ("simulations/engine.py", "datagen/cluster.py", "nerv_fl/bootstrap/cluster.py", "nerv_fl/ray_cluster.py"),
        SHIPPED,
    ),
    "worker processes start without the main script": Rule(
        r"multiprocessing\.(get_context|Process|Pool|set_start_method|pool.*|context.*)",
        ("nerv_fl/processes.py",),
        SHIPPED,
    ),
    "only privacy, clients and the bootstrap know Opacus": Rule(
        r"opacus(\..*)?", ("nerv_fl/privacy/*", "nerv_fl/client/*", "nerv_fl/bootstrap/*"), SHIPPED
    ),
}

OFFENCES = {
    "the random module is not used": ["import random", "from random import shuffle"],
    "torch's global generator is not seeded": ["import torch\ntorch.manual_seed(0)", "from torch.cuda import seed_all"],
    "torch's global generator is not drawn from": ["import torch as t\nt.randn(3)", "import torch\ntorch.rand_like(x)"],
    "NumPy's global generator is not used": ["import numpy as np\nnp.random.seed(0)", "from numpy.random import rand"],
    "NumPy generators come from rng.py": ["import numpy as np\nnp.random.default_rng(0).random()"],
    "only logs, the registry, TLS and the facts about a start read a calendar": [
        "import time\ntime.time()",
        "from datetime import datetime, UTC\ndatetime.now(UTC)",
    ],
    "only the command line prints": ["print('hello')"],
    "only the store reads HDF5": ["import h5py", "def f():\n    import h5py"],
    "only the apps, the strategy and the engine know Flower": ["from flwr.app import Message"],
    "only the engine and the clusters know Ray": ["import ray"],
    "worker processes start without the main script": ["import multiprocessing as m\nm.get_context('spawn')"],
    "only privacy, clients and the bootstrap know Opacus": ["from opacus.optimizers import DPOptimizer"],
}

INNOCENT = """
import numpy as np
import torch
from nerv_fl import rng
generator = torch.Generator().manual_seed(3)
noise = torch.randn(3, generator=generator)
def draw(stream: np.random.Generator) -> float:
    return stream.random()
"""


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def used_names(source: str) -> Iterator[str]:
    """Yield the dotted name of each import, and of each use of an imported or builtin name, whatever its alias.

    A draw that is given its generator is nobody's global state, and is left out.
    """
    tree = ast.parse(source)
    full_names = {"print": "print"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full_names |= {alias.asname or alias.name.split(".")[0]: _bound(alias) for alias in node.names}
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            full_names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
    seeded = {
        id(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and any(keyword.arg == "generator" for keyword in node.keywords)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in seeded:
            head, *rest = ast.unparse(node).split(".")
            if head in full_names and all(part.isidentifier() for part in rest):
                yield ".".join([full_names[head], *rest])


def _bound(alias: ast.alias) -> str:
    """Return what an import statement binds: `import a.b` binds a, `import a.b as c` binds a.b."""
    return alias.name if alias.asname else alias.name.split(".")[0]


def offences(rule: Rule, source: str) -> list[str]:
    return sorted({name for name in used_names(source) if re.fullmatch(rule.names, name)})


@pytest.mark.parametrize("title", RULES)
def test_rule_is_kept(title: str) -> None:
    rule = RULES[title]
    found = {
        relative(path): names
        for path in python_files(*rule.folders)
        if not any(fnmatch(relative(path), pattern) for pattern in rule.allowed)
        if (names := offences(rule, path.read_text()))
    }
    assert found == {}, title


@pytest.mark.parametrize(("title", "source"), [(title, source) for title in RULES for source in OFFENCES[title]])
def test_rule_catches_an_offence(title: str, source: str) -> None:
    assert offences(RULES[title], source)


@pytest.mark.parametrize("title", RULES)
def test_rule_lets_innocent_code_pass(title: str) -> None:
    assert offences(RULES[title], INNOCENT) == []


def test_files_are_short() -> None:
    lines = {relative(path): len(path.read_text().splitlines()) for path in python_files(*EVERYTHING)}
    assert {path: num_lines for path, num_lines in lines.items() if num_lines > MAX_LINES} == {}


@pytest.fixture(scope="module")
def pyproject() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def project_table(pyproject: dict[str, object], *keys: str) -> dict[str, object]:
    table: object = pyproject
    for key in keys:
        assert isinstance(table, dict)
        table = table[key]
    assert isinstance(table, dict)
    return table


def test_constraints_pin_every_dependency_within_its_bounds(pyproject: dict[str, object]) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = project_table(pyproject, "project")
    groups = [project["dependencies"], *project_table(pyproject, "project", "optional-dependencies").values()]
    wanted = [Requirement(line) for group in groups if isinstance(group, list) for line in group]
    assert [str(need) for need in wanted if not need.specifier.contains(pins.get(need.name, "0"))] == []
    assert not [name for name in pins if re.match(r"nvidia|cuda|triton", name)], (
        "what a CUDA build brings is torch's to pin"
    )


@pytest.mark.parametrize(
    "name", ["torch", "flwr", "opacus", "shap", "cryptography", "numpy", "ray", "typer", "click", "rich"]
)
def test_tested_versions_are_the_pinned_ones(name: str) -> None:
    assert f"{name}=={version(name).partition('+')[0]}\n" in (ROOT / "constraints.txt").read_text()


@pytest.mark.parametrize("package", SHIPPED)
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").read_bytes() == b""


def test_the_changelog_describes_this_version(pyproject: dict[str, object]) -> None:
    sections = re.findall(r"^## \[(.+?)\]( - \d{4}-\d\d-\d\d)?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == ("Unreleased", "")
    assert sections[1][0] == project_table(pyproject, "project")["version"]
    assert all(date for _, date in sections[1:])


def test_an_array_type_has_one_home() -> None:
    lines = [line for path in python_files(*SHIPPED) for line in path.read_text().splitlines()]
    homes = [line.split()[0].rstrip(":") for line in lines if re.match(r"\w+Array(: TypeAlias)? = ", line)]
    assert "IntArray" in homes
    assert sorted(homes) == sorted(set(homes))


def test_every_module_has_a_layer(pyproject: dict[str, object]) -> None:
    contracts = project_table(pyproject, "tool", "importlinter")["contracts"]
    assert isinstance(contracts, list)
    placed = re.findall(r"[\w.]+", " ".join(contracts[0]["layers"]))
    modules = {f"nerv_fl.{path.stem}" for path in (ROOT / "nerv_fl").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert modules - set(placed) - {"nerv_fl.__init__", "nerv_fl.__pycache__"} == set()


def test_flower_accepts_the_app_and_bundles_all_of_it(pyproject: dict[str, object]) -> None:
    assert validate_config(pyproject, check_module=False) == (True, [], [])
    files = {
        relative(path): path
        for name in SHIPPED
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    shipped = {name: path for name, path in files.items() if not name.endswith((".pyc", "py.typed"))}
    bundle, _ = build_fab_from_files(shipped | {name: ROOT / name for name in ("pyproject.toml", "LICENSE")})
    assert set(shipped) <= set(zipfile.ZipFile(io.BytesIO(bundle)).namelist())
