"""Changes of hosts: what is proposed for what, that it suffices, and that a second run proposes nothing."""

from __future__ import annotations

import configparser
from typing import Any

import pytest
from host_world import FIRST, GIB, HERE, HOME, NEEDS, SYSCTLS, good_facts, look_of
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from redisforge.model.host_facts import HostFacts
from redisforge.model.host_report import FixKind, HostChange, Verdict
from redisforge.plan.host_checks import judge
from redisforge.plan.host_fixes import propose
from redisforge.render.host_files import (
    HUGE_PAGES_UNIT,
    HUGE_PAGES_UNIT_PATH,
    LIMITS_PATH,
    OWN_PATHS,
    SYSCTL_PATH,
    SYSTEMD_LIMITS_PATH,
)


def proposed(facts: HostFacts, *, lasting: bool = False) -> tuple[HostChange, ...]:
    look = look_of(facts)
    return propose(look, NEEDS, judge(look, NEEDS, HERE), lasting=lasting)


def after(facts: HostFacts, changes: tuple[HostChange, ...]) -> HostFacts:
    """The host when the changes have been made, and its user has logged in anew."""
    files = dict(facts.files)
    found: dict[str, Any] = {}
    for change in changes:
        for file in change.files:
            assert file.before == files.get(file.path)
            files[file.path] = file.after
        for command in change.commands:
            if command[:2] == ("sysctl", "-p"):
                lines = [line for line in files[command[2]].splitlines() if line and not line.startswith("#")]
                pairs = [line.split(" = ") for line in lines]
                found["sysctls"] = facts.sysctls | {name: int(value) for name, value in pairs}
            if "madvise" in " ".join(command) or command[-1] == HUGE_PAGES_UNIT:
                found["huge_pages"] = "madvise"
            if command[0] == "chown":
                found["folder"] = replace(facts.folder, is_writable=True, existing=command[-1])
    if LIMITS_PATH in files:
        found["open_files"] = int(files[LIMITS_PATH].split()[-1])
    return replace(facts, files=files, **found)


def files_of(changes: tuple[HostChange, ...]) -> dict[str, str]:
    return {file.path: file.after for change in changes for file in change.files}


NO_FOLDER = {"folder": replace(good_facts().folder, is_writable=False, existing="/srv")}
BAD: dict[FixKind, dict[str, Any]] = {
    "sysctl": {"sysctls": SYSCTLS | {"vm.overcommit_memory": 0, "net.core.somaxconn": 128}},
    "limits": {"open_files": 4096},
    "huge_pages": {"huge_pages": "always"},
    "folder": NO_FOLDER,
}


def test_a_good_host_is_left_alone() -> None:
    assert proposed(good_facts()) == ()


@given(st.sets(st.sampled_from(list(BAD))), st.sampled_from(["systemd", "init", ""]), st.booleans())
def test_changes_suffice_and_are_not_proposed_twice(kinds: set[FixKind], init: str, lasting: bool) -> None:
    changes: dict[str, Any] = {}
    for kind in kinds:
        changes |= BAD[kind]
    facts = replace(good_facts(), init=init, **changes)
    first = proposed(facts, lasting=lasting)
    assert bool(first) == (bool(kinds) or lasting)
    better = after(facts, first)
    checks = judge(look_of(better), NEEDS, HERE)
    assert {check.verdict for check in checks} == {Verdict.PASS}
    assert proposed(better, lasting=lasting) == ()


def test_kernel_parameters_of_a_host_with_swap() -> None:
    facts = replace(good_facts(), swap_bytes=GIB, sysctls=SYSCTLS | {"net.core.somaxconn": 65535})
    (change,) = proposed(facts)
    text = change.files[0].after
    assert change.commands == (("sysctl", "-p", SYSCTL_PATH),), "that file alone"
    assert "vm.swappiness = 1\n" in text
    assert "net.core.somaxconn = 65535\n" in text, "what is longer stays"
    assert "vm.overcommit_memory = 1\n" in text


def test_a_parameter_that_this_kernel_does_not_show_is_not_set() -> None:
    (change,) = proposed(replace(good_facts(), sysctls={"vm.overcommit_memory": 0}))
    assert "somaxconn" not in change.files[0].after


def test_a_file_that_is_right_but_was_overruled_is_only_loaded_again() -> None:
    bad = replace(good_facts(), **BAD["sysctl"])
    facts = replace(bad, files=after(bad, proposed(bad)).files)
    (change,) = proposed(facts)
    assert (change.files, change.commands) == ((), (("sysctl", "-p", SYSCTL_PATH),))


def test_limits_never_make_less_of_what_there_is() -> None:
    texts = files_of(proposed(replace(good_facts(), open_files=65536)))
    assert texts[LIMITS_PATH].splitlines()[1:] == ["*    hard nofile 100000", "root hard nofile 100000"]
    systemd = configparser.ConfigParser()
    systemd.read_string(texts[SYSTEMD_LIMITS_PATH])
    assert systemd["Manager"]["DefaultLimitNOFILE"] == "1024:524288"


def test_more_clients_need_more_files() -> None:
    needs = {FIRST: replace(NEEDS[FIRST], max_clients=600_000)}
    look = look_of(good_facts())
    (change,) = propose(look, needs, judge(look, needs, HERE))
    texts = files_of((change,))
    assert "600032" in texts[LIMITS_PATH]
    assert texts[SYSTEMD_LIMITS_PATH].endswith("1024:600032\n")


def test_huge_pages_with_systemd_and_without() -> None:
    bad = replace(good_facts(), **BAD["huge_pages"])
    (unit,) = proposed(bad)
    assert [file.path for file in unit.files] == [HUGE_PAGES_UNIT_PATH]
    assert ("systemctl", "enable", HUGE_PAGES_UNIT) in unit.commands
    (once,) = proposed(replace(bad, init="runit"))
    assert once.files == ()
    assert "transparent_hugepage=madvise" in once.note


def test_the_folder_is_made_for_the_user_who_logs_in() -> None:
    (change,) = proposed(replace(good_facts(), **NO_FOLDER))
    assert change.commands == (("mkdir", "-p", "--", HOME), ("chown", "--", "deploy", HOME))


@pytest.mark.parametrize("kind", list(BAD))
def test_only_files_of_its_own_are_written(kind: FixKind) -> None:
    assert set(files_of(proposed(replace(good_facts(), **BAD[kind]), lasting=True))) <= set(OWN_PATHS)
