from __future__ import annotations

from pathlib import Path

import pytest

from headstart.backbones import precision
from headstart.backbones.precision import Device, cpu_family, cpu_flags, has_bfloat16, pick_device
from headstart.errors import HeadstartError


def test_flags_are_read_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 sse\n")
    assert has_bfloat16(cpu_flags(cpuinfo))
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx512f sse\n")
    assert not has_bfloat16(cpu_flags(cpuinfo))


def test_no_cpuinfo_means_no_flags(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path / "absent") == frozenset()
    assert cpu_family(tmp_path / "absent") == ("", 0)


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n", ("AuthenticAMD", 25)),
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\n", ("GenuineIntel", 6)),
        ("CPU implementer\t: 0x41\n", ("", 0)),
        ("cpu family\t: ?\n", ("", 0)),
    ],
)
def test_the_family_is_read_from_cpuinfo(text: str, family: tuple[str, int], tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    assert cpu_family(cpuinfo) == family


@pytest.mark.parametrize(("family", "winograd"), [(("AuthenticAMD", 25), True), (("AuthenticAMD", 26), False)])
def test_a_processor_whose_bfloat16_is_slower_says_so(
    family: tuple[str, int], winograd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    monkeypatch.setattr(precision, "cpu_family", lambda: family)
    assert pick_device("cpu") == Device("cpu", "/CPU:0", 32, "bfloat16", winograd)


@pytest.mark.parametrize("name", ["", "cuda", "gpu", "gpu:", "gpu:-1", "cpu:0"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(HeadstartError, match="Expected auto, cpu or gpu:N"):
        pick_device(name)
