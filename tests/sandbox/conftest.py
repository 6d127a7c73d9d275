"""One sandbox for all tests. Where programs cannot be isolated, the attacks are not run."""

import pytest

from pellucid.sandbox import Limits, Sandbox, why_missing


@pytest.fixture(scope="session")
def jailed():
    if why := why_missing():
        pytest.skip(f"not run: {why}")


@pytest.fixture(scope="session")
def sandbox(jailed):
    limits = Limits(timeout_s=1.0, memory_mib=256, output_kib=64, processes=8, disk_mib=4)
    with Sandbox(limits=limits, num_jails=1) as sandbox:
        yield sandbox
