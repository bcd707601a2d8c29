from __future__ import annotations

from pathlib import Path

import pytest

from headstart.backbone.device import cpu_flags, has_bfloat16, pick_device
from headstart.errors import HeadstartError


def test_flags_are_read_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 sse\n")
    assert has_bfloat16(cpu_flags(cpuinfo))
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx512f sse\n")
    assert not has_bfloat16(cpu_flags(cpuinfo))


def test_no_cpuinfo_means_no_flags(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path / "absent") == frozenset()


@pytest.mark.parametrize("name", ["", "cuda", "gpu", "gpu:", "gpu:-1", "cpu:0"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(HeadstartError, match="Expected auto, cpu or gpu:N"):
        pick_device(name)
