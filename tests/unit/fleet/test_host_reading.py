"""The answers of hosts as they print them, read into facts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.errors import HostError
from redisforge.fleet.host_reading import UNLIMITED, Travel, clock_sample, read_probe, read_reaches
from redisforge.model.host_facts import DockerFacts, ListeningSocket, Reach

TRAVEL = Travel(1000.0, 1003.0)
PROBE = """\
began=1001.500000000
system=Linux
kernel=6.1.0
architecture=aarch64
distribution=Debian GNU/Linux 12 (bookworm)
machine=web-1 0b1240ed
user=deploy
uid=1000
capabilities=0000000000000400
init=systemd
sudo=yes
python=3.11.2
missing=tar
missing=stat
docker.client=Docker version 20.10.24+dfsg1, build 297e128
docker.server=20.10.24+dfsg1
docker.driver=overlay2
folder.existing=/var/lib
folder.writable=yes
folder.free_kib=2048
folder.write_began=1001.600000000
folder.write_ended=1001.800000000
folder.written_mib=16
cores=4
memory_kib=4096
swap_kib=1024
open_files=unlimited
huge_pages=always
sysctl.vm.overcommit_memory=0
sysctl.net.core.somaxconn=4096
listener=0100007F:1B59\t42\t/srv/x\tredis-server 127.0.0.1:7001
listener=00000000000000000000000000000000:4269\t0\t\t
listener=0000000000000000FFFF00000101A8C0:1B5A\t7\t/\tx = y
file=/etc/sysctl.d/60-redisforge.conf
line=# a = b
line=
line=vm.swappiness = 1
file=/etc/empty
ended=1002.500000000
"""


def test_a_probe_in_full() -> None:
    facts = read_probe("web", "/var/lib/redisforge", PROBE, TRAVEL)
    assert (facts.host, facts.system, facts.architecture, facts.init) == ("web", "Linux", "aarch64", "systemd")
    assert (facts.user, facts.is_root, facts.can_sudo, facts.python) == ("deploy", False, True, "3.11.2")
    assert facts.is_privileged, "it is not root, but has the one capability"
    assert facts.missing_tools == ("tar", "stat")
    assert facts.docker == DockerFacts("20.10.24", "20.10.24+dfsg1", "overlay2")
    assert (facts.folder.path, facts.folder.existing) == ("/var/lib/redisforge", "/var/lib")
    assert (facts.folder.is_writable, facts.folder.free_bytes) == (True, 2 * 2**20)
    assert facts.folder.write_bytes_per_s == pytest.approx(80 * 2**20)
    assert (facts.cores, facts.memory_bytes, facts.swap_bytes) == (4, 4 * 2**20, 2**20)
    assert (facts.open_files, facts.huge_pages) == (UNLIMITED, "always")
    assert facts.sysctls == {"vm.overcommit_memory": 0, "net.core.somaxconn": 4096}
    assert facts.listeners == (
        ListeningSocket("127.0.0.1", 7001, 42, "/srv/x", "redis-server 127.0.0.1:7001"),
        ListeningSocket("::", 17001),
        ListeningSocket("192.168.1.1", 7002, 7, "/", "x = y"),
    )
    assert facts.files == {
        "/etc/sysctl.d/60-redisforge.conf": "# a = b\n\nvm.swappiness = 1\n",
        "/etc/empty": "",
    }


def test_ports_that_docker_publishes_for_the_cluster() -> None:
    """As one line for all containers; neighbours, and both families of addresses."""
    said = "10.0.0.1:7001-7002->7001-7002/tcp, 10.0.0.1:17001->17001/tcp [fd00::1]:7009->7009/tcp 6379/tcp"
    facts = read_probe("h1", "/srv", f"began=1.0\nsystem=Linux\ndocker.published={said}\nended=1.0\n", Travel(1, 1))
    ports = (("10.0.0.1", 7001), ("10.0.0.1", 7002), ("10.0.0.1", 17001), ("fd00::1", 7009))
    assert facts.docker.published == ports


def test_what_a_host_does_not_know_is_empty() -> None:
    facts = read_probe("h", "/x", "system=Linux\ndocker.problem=| Cannot connect\nended=1\n", TRAVEL)
    assert facts.docker == DockerFacts(problem="Cannot connect")
    assert facts.folder.write_bytes_per_s is None
    assert facts.folder.write_problem
    assert (facts.cores, facts.sysctls, facts.listeners, facts.files, facts.clock) == (0, {}, (), {}, None)


@pytest.mark.parametrize("cut", [0, 20, 200, len(PROBE) - 25])
def test_an_answer_that_was_cut_off_is_no_answer(cut: int) -> None:
    with pytest.raises(HostError, match="did not finish"):
        read_probe("h", "/x", PROBE[:cut], TRAVEL)


@given(
    st.floats(-1e5, 1e5), st.floats(0, 5), st.floats(0, 5), st.floats(0, 60)
)  # skew, way there, work, way back; seconds
def test_the_true_skew_lies_within_the_uncertainty(skew_s: float, there_s: float, back_s: float, work_s: float) -> None:
    began_s = TRAVEL.sent_s + there_s + skew_s
    travel = Travel(TRAVEL.sent_s, TRAVEL.sent_s + there_s + work_s + back_s)
    sample = clock_sample(f"{began_s:.9f}", f"{began_s + work_s:.9f}", travel)
    assert sample is not None
    assert abs(sample.offset_s - skew_s) <= sample.uncertainty_s + 1e-6
    assert sample.uncertainty_s == pytest.approx((there_s + back_s) / 2, abs=1e-6)


def test_a_clock_without_fractions_is_less_certain() -> None:
    whole = clock_sample("1001.%N", "1002.%N", TRAVEL)
    assert whole is not None
    assert whole.uncertainty_s == pytest.approx(2.0)
    assert clock_sample("", "1002", TRAVEL) is None


def test_reaches() -> None:
    text = (
        "began\t1001.0\ndeaf\t10.0.0.1\t7001\tAddress already in use\n"
        "reach\tb\t10.0.0.2\t7001\t0.000512\t\nreach\tb\t10.0.0.2\t17001\t\tConnection refused\nended\t1002.0\n"
    )
    answer = read_reaches("a", text, TRAVEL)
    assert answer.reaches == (
        Reach("a", "b", "10.0.0.2", 7001, "", 0.000512),
        Reach("a", "b", "10.0.0.2", 17001, "Connection refused"),
    )
    assert answer.deaf == {7001}
    with pytest.raises(HostError, match="did not finish"):
        read_reaches("a", text[:60], TRAVEL)
