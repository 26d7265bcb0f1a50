"""The checks of doctor, each with a machine that is well and one that is not."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from appliance.cli.doctor import check_peer, without_secrets
from appliance.host import checkup
from appliance.host.checkup import Finding, Harm
from appliance.limits import CLOCK_EARLIEST_UNIX_NANO

MOUNTS = """\
/dev/root / ext4 rw 0 0
tmpfs /run tmpfs rw 0 0
//nas/share /mnt/my\\040nas cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("place", "harm", "words"),
    [
        ("/var/lib/raftberry", Harm.NONE, "is on ext4, mounted at /"),
        ("/run/raftberry", Harm.LOSES_DATA, "is on tmpfs, mounted at /run"),
        ("/mnt/my nas/data", Harm.LOSES_DATA, "is on cifs, mounted at /mnt/my nas"),
        ("/running", Harm.NONE, "is on ext4"),
    ],
)
def test_the_filesystem_is_that_of_the_nearest_mount(place: str, harm: Harm, words: str) -> None:
    finding = checkup.check_filesystem(Path(place), MOUNTS)
    assert finding.harm is harm
    assert words in finding.found


@pytest.mark.parametrize(
    ("latencies_s", "harm"), [([0.001, 0.4], Harm.NONE), ([0.05, 0.06], Harm.SLOWS), ([0.5, 0.5], Harm.STOPS)]
)
def test_a_slow_disk_is_told_from_a_bad_one_by_its_median(
    latencies_s: list[float], harm: Harm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checkup, "sync_latencies_s", lambda *_, **__: [*latencies_s[:1] * 10, *latencies_s])
    assert checkup.check_sync(tmp_path).harm is harm


def test_the_real_disk_is_timed_and_left_as_it_was(tmp_path: Path) -> None:
    assert "median" in checkup.check_sync(tmp_path).found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("now", "synchronised", "harm"),
    [
        (CLOCK_EARLIEST_UNIX_NANO, True, Harm.NONE),
        (CLOCK_EARLIEST_UNIX_NANO, False, Harm.SLOWS),
        (CLOCK_EARLIEST_UNIX_NANO, None, Harm.UNKNOWN),
        (CLOCK_EARLIEST_UNIX_NANO - 1, True, Harm.STOPS),
    ],
)
def test_a_clock_that_was_never_set_is_worse_than_one_that_is_not_synchronised(
    now: int, synchronised: bool | None, harm: Harm
) -> None:
    assert checkup.check_clock(now, synchronised).harm is harm


def test_a_clock_that_is_not_synchronised_is_not_said_to_hold_retention() -> None:
    advice = checkup.check_clock(CLOCK_EARLIEST_UNIX_NANO, False).advice
    assert "retention is held back" not in advice
    assert "retention goes by them" in advice


@pytest.mark.parametrize(
    ("bits", "harm", "words"),
    [
        ("0x0", Harm.NONE, "good since the start"),
        ("0x50005", Harm.LOSES_DATA, "voltage is too low now"),
        ("0x10000", Harm.LOSES_DATA, "voltage was too low since the start"),
    ],
)
def test_a_pis_firmware_is_believed_about_its_supply(
    tmp_path: Path, bits: str, harm: Harm, words: str
) -> None:
    path = tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled"
    path.parent.mkdir(parents=True)
    path.write_text(bits + "\n")
    finding = checkup.check_supply(tmp_path)
    assert finding.harm is harm
    assert words in finding.found


def test_a_machine_without_that_firmware_is_not_called_well_fed(tmp_path: Path) -> None:
    assert checkup.check_supply(tmp_path).found == "this machine does not report it"


def test_a_data_directory_that_others_can_read_is_found(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    finding = checkup.check_owner(tmp_path)
    assert (finding.harm, finding.advice[-len(str(tmp_path)) :]) == (Harm.LOSES_DATA, str(tmp_path))
    tmp_path.chmod(0o700)
    assert checkup.check_owner(tmp_path).harm is Harm.NONE


def test_every_harm_comes_with_what_to_do(tmp_path: Path) -> None:
    findings = list(checkup.check_machine(tmp_path / "not" / "there"))
    assert [one for one in findings if one.harm is not Harm.NONE and not one.advice] == list[Finding]()
    assert {one.what for one in findings} >= {"filesystem", "disk", "space", "memory", "clock", "page size"}


def test_a_peer_that_does_not_answer_is_named_with_its_address() -> None:
    finding = check_peer("pi-2", "127.0.0.1:1")
    assert finding.harm is Harm.STOPS
    assert "pi-2 at 127.0.0.1:1" in finding.found


def test_a_port_that_another_program_holds_is_named_with_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        held = checkup.check_port("web", port, is_served=False)
        assert held.harm is Harm.STOPS
        assert f"process {os.getpid()}) listens" in held.found
        assert "web.address" in held.advice
        assert checkup.check_port("web", port, is_served=True).harm is Harm.NONE
    assert checkup.check_port("web", port, is_served=False).harm is Harm.NONE
    assert checkup.check_port("web", port, is_served=True).harm is Harm.UNKNOWN


@pytest.mark.parametrize(
    ("days", "harm", "words"),
    [
        (1_000, Harm.NONE, "ends in 1000 days, and is renewed"),
        (29, Harm.STOPS, "ends in 29"),
        (-2, Harm.STOPS, "ended 2"),
    ],
)
def test_a_certificate_that_was_not_renewed_is_found(days: int, harm: Harm, words: str) -> None:
    finding = checkup.check_certificate(1 + days * checkup.DAY_NS, 1)
    assert finding.harm is harm
    assert words in finding.found


def test_a_key_that_the_log_shows_from_its_middle_goes_as_well_and_a_checksum_stays() -> None:
    line, checksum = "Mx" * 32, "0f" * 32
    text = f"{line}\nMxMx=\n-----END PRIVATE KEY-----\nauthorization: bearer abc\nraftberry_session=a-b_c\n{checksum}"
    cleaned = "[removed]\n[removed]\nauthorization: [removed]\n[removed]\n"
    assert without_secrets(text) == cleaned + checksum


def test_nothing_that_opens_a_door_goes_into_a_bundle() -> None:
    text = (
        "token=rbt1_AAAAAAAAAAAAAAAAAAAAAAbCdEf-_9 Authorization: Bearer abc.def join pi rbj1_BBBBBBBB\n"
        "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\nkept"
    )
    cleaned = without_secrets(text)
    assert cleaned == "token=[removed] Authorization: [removed] join pi [removed]\n[removed]\nkept"
