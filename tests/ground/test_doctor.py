"""Doctor finds what is there, and says what to do about what is not."""

import platform
from importlib import metadata

import pytest

from pellucid import doctor
from pellucid.doctor import Status, check, reference_versions


@pytest.fixture
def declared(monkeypatch):
    """Sets what the package claims to need."""

    def declare(*requirements):
        monkeypatch.setattr(doctor.metadata, "requires", lambda _: list(requirements))

    return declare


def _by_name(findings):
    return {finding.name: finding for finding in findings}


def test_this_machine_can_run_the_suite(tmp_path):
    calls = []
    findings = _by_name(check(tmp_path, lambda done, total: calls.append((done, total))))
    assert findings["python"].found == platform.python_version()
    assert "cores usable" in findings["cpu"].found
    assert findings["graders"].status is Status.OK, findings["graders"].line()
    assert findings["disk"].status is not Status.FAIL
    total = calls[0][1]
    assert calls == [(done, total) for done in range(1, total + 1)]


def test_packages_are_checked_against_the_declared_range(declared):
    declared("pydantic>=2", "rich>=999", "no-such-package>=1", "pytest>=999; extra == 'test'")
    findings = _by_name(doctor._packages())
    assert findings["pydantic"].found.startswith(metadata.version("pydantic"))
    assert findings["pydantic"].status is Status.OK
    assert findings["rich"].status is Status.FAIL
    assert findings["rich"].remedy == "pip install 'rich>=999'"
    assert findings["no-such-package"].found == "not installed"
    assert "pytest" not in findings


def test_a_version_other_than_the_tested_one_is_named(declared, monkeypatch, tmp_path):
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("# tested\nPydantic_Core==0.0.1  # old\n")
    assert reference_versions(constraints) == {"pydantic-core": "0.0.1"}
    assert reference_versions(tmp_path / "none.txt") == {}
    monkeypatch.setattr(doctor, "reference_versions", lambda: {"pydantic-core": "0.0.1"})
    declared("pydantic-core")
    [finding] = doctor._packages()
    assert finding.found == f"{metadata.version('pydantic-core')} (tested with 0.0.1)"
    assert finding.status is Status.OK


def test_little_memory_and_no_compiler_are_warnings_with_remedies(monkeypatch):
    monkeypatch.setattr(doctor, "MIN_MEMORY_GIB", 1e6)
    [memory] = doctor._memory()
    assert (memory.status, memory.remedy != "") == (Status.WARN, True)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    [compiler] = doctor._compiler()
    assert compiler.line() == "none; compiled GPU kernels need one: install gcc"


def test_a_folder_that_cannot_be_written_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    [disk] = doctor._disk(tmp_path)
    assert disk.status is Status.FAIL
