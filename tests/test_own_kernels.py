"""Kernels that came with the program, and the cache that all places of the same sources share: what serves, what never does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest

from procs.kernels import choice, keys, packs

ROOT = Path(__file__).resolve().parents[1]
LEVEL = "x86-64-v3"
PROGRAM = """
import json, os
from procs.kernels.choice import use
found = use()
from numba.core import event
from procs.one_more import seventh
from shm import histogram
with event.install_recorder("numba:compile") as compiled:
    answer = [int(histogram.bucket_of(1234)), int(seventh(3))]
said = {"answer": answer, "compiled": len(compiled.buffer), "folder": str(found.folder)}
print(json.dumps(said | {"level": found.level, "ours": found.ours, "why": found.why}))
"""
NOT_HERE = pytest.mark.skipif(LEVEL not in keys.levels_of(keys.cpu()), reason=f"this CPU has less than {LEVEL}")


def project(place: Path) -> Path:
    """The packages, copied, without what they do not need to compile one kernel; one more module, with a kernel of its own."""
    for name in keys.PACKAGES:
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", "*.zip", "*.json"))
    (place / "procs" / "one_more.py").write_text("from shm.jit import kernel\n\n@kernel\ndef seventh(n):\n    return n * 7\n")
    return place


def environment(place: Path, cache: Path, **more: str) -> dict[str, str]:
    """For a process of that copy with a cache of its own."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("NUMBA_", "SCALPER_", "CACHE_DIRECTORY"))}
    return {**clean, "PYTHONPATH": str(place), "XDG_CACHE_HOME": str(cache), **more}


def said_by(place: Path, cache: Path, **more: str) -> dict[str, Any]:
    """What the program says in a process of its own."""
    command = [sys.executable, "-P", "-c", PROGRAM]
    told = environment(place, cache, **more)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=told, cwd=cache.parent)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def level_of(name: str = LEVEL) -> dict[str, str]:
    """The environment that compiles for a level."""
    return {keys.CPU_NAME: name, keys.CPU_FEATURES: ""}


@pytest.mark.slow
def test_places_of_the_same_sources_share_kernels_and_an_edit_shares_none(tmp_path: Path) -> None:
    """A second place loads what the first compiled; an edited kernel source, or numba told otherwise, compiles anew."""
    first, second = project(tmp_path / "first"), project(tmp_path / "second")
    cold = said_by(first, tmp_path / "cache")
    warm = said_by(second, tmp_path / "cache")
    assert cold["compiled"] > 0 and warm["compiled"] == 0 and warm["folder"] == cold["folder"]
    assert cold["answer"] == warm["answer"] and cold["answer"][1] == 21
    source = second / "shm" / "layout.py"  # no kernel stands in it, one takes a constant from such a file
    source.write_text(source.read_text() + "\nONE_MORE = 1\n")
    edited = said_by(second, tmp_path / "cache")
    assert edited["compiled"] > 0 and edited["folder"] != cold["folder"] and edited["answer"] == cold["answer"]


def test_the_key_changes_with_all_that_changes_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """numba's settings, its own file of settings and the level count; where its cache lies does not."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("NUMBA_")]:
        monkeypatch.delenv(name)
    plain, level = keys.kernel_key("s"), keys.kernel_key("s", LEVEL)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/elsewhere")
    assert keys.kernel_key("s") == plain != level
    found = {plain, level, keys.kernel_key("t")}
    for name, value in (("NUMBA_OPT", "1"), ("NUMBA_BOUNDSCHECK", "1"), ("NUMBA_CPU_NAME", "generic")):
        with monkeypatch.context() as one:
            one.setenv(name, value)
            found.add(keys.kernel_key("s"))
    Path(".numba_config.yaml").write_text("opt: 0\n")
    assert len(found | {keys.kernel_key("s")}) == 7


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project that carries its (few) kernels for LEVEL."""
    folder = tmp_path_factory.mktemp("packed")
    place = project(folder / "place")
    cold = said_by(place, folder / "cache", **level_of())
    assert cold["level"] == LEVEL and not cold["ours"]
    command = [sys.executable, "-P", "-m", "procs.kernels.packs", cold["folder"], LEVEL, str(place / "procs/kernels")]
    subprocess.run(command, check=True, env=environment(place, folder / "cache"), capture_output=True, timeout=60)
    return place


@NOT_HERE
def test_own_kernels_serve_from_an_empty_cache_and_answer_alike(packed: Path, tmp_path: Path) -> None:
    """Nothing is compiled, the answers are those of kernels compiled for this CPU; SCALPER_KERNELS=compile leaves them aside."""
    own = said_by(packed, tmp_path / "own")
    assert (own["compiled"], own["level"], own["ours"], own["why"]) == (0, LEVEL, True, "")
    native = said_by(packed, tmp_path / "native", SCALPER_KERNELS="compile")
    assert native["compiled"] > 0 and native["level"] == "" and native["folder"] != own["folder"]
    assert native["answer"] == own["answer"]


@NOT_HERE
def test_altered_kernels_are_not_taken(packed: Path, tmp_path: Path) -> None:
    """One changed byte: nothing of the file reaches the cache, all is compiled, and the reason is one sentence."""
    place = tmp_path / "place"
    shutil.copytree(packed, place)
    archive = next((place / "procs/kernels").glob("*.zip"))
    raw = bytearray(archive.read_bytes())
    raw[len(raw) // 2] ^= 1
    archive.write_bytes(raw)
    found = said_by(place, tmp_path / "cache")
    assert found["compiled"] > 0 and not found["ours"] and found["level"] == ""
    assert "SHA-256 is not its manifest's" in found["why"] and "compiled here" in found["why"]
    assert len(list((tmp_path / "cache" / "scalper" / "kernels").iterdir())) == 1


@NOT_HERE
def test_kernels_of_another_compiler_or_of_other_sources_do_not_serve(packed: Path, tmp_path: Path) -> None:
    """The manifest's versions, sources and level are compared, and what differs is named."""
    for path in (packed / "procs/kernels").glob(f"{LEVEL}*"):
        shutil.copy(path, tmp_path)
    manifest = next(tmp_path.glob("*.json"))
    true = msgspec.json.decode(manifest.read_bytes(), type=packs.Manifest)
    assert packs.fit(tmp_path, true.sources, [LEVEL]) == (LEVEL, "")
    assert packs.fit(tmp_path, true.sources, ["x86-64-v4", LEVEL]) == (LEVEL, "")
    assert packs.fit(tmp_path, "others", [LEVEL]) == ("", "they were compiled from other sources")
    assert packs.fit(tmp_path, true.sources, [])[1] == "they are for other CPUs (x86-64-v3 and better)"
    assert packs.fit(tmp_path / "none", true.sources, [LEVEL]) == ("", "")
    manifest.write_bytes(msgspec.json.encode(msgspec.structs.replace(true, compilers={**true.compilers, "numba": "0.1"})))
    assert packs.fit(tmp_path, true.sources, [LEVEL])[1].startswith("they were compiled with numba 0.1, here is ")
    manifest.write_text("{")
    assert packs.fit(tmp_path, true.sources, [LEVEL]) == ("", "their manifest cannot be read")


@pytest.mark.slow
@NOT_HERE
def test_kernels_for_a_level_that_is_not_here_are_compiled_and_not_run(packed: Path, tmp_path: Path) -> None:
    """For every kernel and types that one cache holds, another level's holds code as well, found by its own key."""
    place = packed.parent
    model = next((place / "cache" / "scalper" / "kernels").iterdir())
    told = environment(packed, tmp_path, **choice.numba_variables(tmp_path / "v4", "x86-64-v4"))
    command = [sys.executable, "-P", "-m", "procs.kernels.crossing", str(model)]
    subprocess.run(command, check=True, env=told, capture_output=True, timeout=120)
    assert all(file.stat().st_size > 0 for file in (tmp_path / "v4").rglob("*.nbc"))
    names = {file.relative_to(model) for file in model.rglob("*.nb[ic]")}
    assert names and names == {file.relative_to(tmp_path / "v4") for file in (tmp_path / "v4").rglob("*.nb[ic]")}


@NOT_HERE
def test_settings_of_numbas_leave_own_kernels_aside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Own kernels are taken once for all; with numba told otherwise, or asked for another CPU, the folder is an empty one."""
    for name in [name for name in os.environ if name.startswith(("NUMBA_", "SCALPER_KERNELS", "CACHE_DIRECTORY"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    code = tmp_path / "code" / "shm" / "a.b-1.py311.1.nbc"
    code.parent.mkdir(parents=True)
    code.write_bytes(b"code")
    packs.make(tmp_path / "code", LEVEL, tmp_path)
    own = choice.chosen(kernel_packs=tmp_path)
    assert own.ours and own.level == LEVEL and choice.compiled(own.folder)
    assert (own.folder / "shm" / code.name).read_bytes() == b"code"
    assert choice.chosen(kernel_packs=tmp_path) == own and own.variables()[keys.CPU_NAME] == LEVEL
    for name, value in (("NUMBA_BOUNDSCHECK", "1"), ("NUMBA_CPU_NAME", "generic"), ("SCALPER_KERNELS", "compile")):
        with monkeypatch.context() as one:
            one.setenv(name, value)
            found = choice.chosen(kernel_packs=tmp_path)
            assert not found.ours and not found.why and not list(found.folder.iterdir())
    for name, value in own.variables().items():  # as a child of a process that uses them sees it
        monkeypatch.setenv(name, value)
    assert choice.chosen(kernel_packs=tmp_path) == own


def test_levels_are_known_by_the_features_of_the_cpu() -> None:
    """All of a level's features make it, the best comes first; a CPU that lacks one has it not."""
    v3 = " ".join(sorted(keys.LEVELS[LEVEL]))
    v4 = " ".join(sorted(keys.LEVELS["x86-64-v4"]))
    assert keys.levels_of(f"model name\t: X\nflags\t\t: fpu {v4} zz\n".encode()) == ["x86-64-v4", LEVEL]
    assert keys.levels_of(f"flags\t\t: {v3}\n".encode()) == [LEVEL]
    assert keys.levels_of(f"flags\t\t: {v3.replace('movbe', '')}\n".encode()) == []


def test_versions_are_those_that_are_installed() -> None:
    """The versions in the key are those that the packages' own metadata states."""
    assert {name: metadata.version(name) for name in keys.COMPILERS}.items() <= keys.compilers().items()
