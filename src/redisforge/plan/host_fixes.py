"""From checks that did not pass to changes of the host: files of root's and the commands that make them effective.

Pure, and level-triggered: what lies there already is in the facts, so a second run proposes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from redisforge.model.host_facts import FleetLook, HostFacts
from redisforge.model.host_report import Check, FileChange, FixKind, HostChange
from redisforge.plan.host_kernel_checks import good_open_files, wanted_sysctls
from redisforge.plan.host_needs import HostNeeds
from redisforge.render.host_files import (
    HUGE_PAGES_SWITCH,
    HUGE_PAGES_UNIT,
    HUGE_PAGES_UNIT_PATH,
    LIMITS_PATH,
    SYSCTL_PATH,
    SYSTEMD_LIMITS_PATH,
    huge_pages_unit_text,
    limits_text,
    sysctl_text,
    systemd_limits_text,
)

LASTING: tuple[FixKind, ...] = ("sysctl",)
"""What `host prepare` writes down also where it happens to be right: it might not be after the next boot."""
_RELOAD = ("systemctl", "daemon-reload")


def propose(
    look: FleetLook, needs: Mapping[str, HostNeeds], checks: Iterable[Check], *, lasting: bool = False
) -> tuple[HostChange, ...]:
    """The changes that would make checks pass, host by host; with `lasting`, also those of LASTING."""
    wanted: dict[str, dict[FixKind, None]] = {}
    for check in checks:
        if check.fix:
            wanted.setdefault(check.host, {})[check.fix] = None
    found: list[HostChange] = []
    for host in look.hosts:
        if host.facts is not None:
            kinds = dict(wanted.get(host.host, {})) | (dict.fromkeys(LASTING) if lasting else {})
            found += (change for kind in kinds for change in _FIXES[kind](host.facts, needs[host.host]))
    return tuple(found)


def _differing(facts: HostFacts, texts: Mapping[str, str]) -> tuple[FileChange, ...]:
    return tuple(
        FileChange(path=path, before=facts.files.get(path), after=text)
        for path, text in texts.items()
        if facts.files.get(path) != text
    )


def _sysctl(facts: HostFacts, needs: HostNeeds) -> Iterator[HostChange]:
    values = wanted_sysctls(facts, needs)
    files = _differing(facts, {SYSCTL_PATH: sysctl_text(values)})
    if files or any(facts.sysctls[name] != value for name, value in values.items()):
        yield HostChange(
            host=facts.host,
            why="kernel parameters as Redis asks for them, also after a reboot",
            files=files,
            commands=(("sysctl", "-p", SYSCTL_PATH),),
        )


def _limits(facts: HostFacts, needs: HostNeeds) -> Iterator[HostChange]:
    limit = good_open_files(needs)
    texts = {LIMITS_PATH: limits_text(limit)}
    if facts.init == "systemd":
        texts[SYSTEMD_LIMITS_PATH] = systemd_limits_text(limit)
    if files := _differing(facts, texts):
        yield HostChange(
            host=facts.host,
            why=f"{limit} open files for each process",
            files=files,
            commands=(_RELOAD,) if facts.init == "systemd" else (),
            note="it holds for logins from now on; what runs keeps its limit until it is restarted",
        )


def _huge_pages(facts: HostFacts, needs: HostNeeds) -> Iterator[HostChange]:
    del needs
    why = "transparent huge pages only for programs that ask for them"
    if facts.init != "systemd":
        yield HostChange(
            host=facts.host,
            why=why,
            commands=(("sh", "-c", f"echo madvise > {HUGE_PAGES_SWITCH}"),),
            note=f"process 1 is {facts.init or 'unknown'}, not systemd: for the time after a reboot, add "
            "transparent_hugepage=madvise to the kernel's command line",
        )
        return
    yield HostChange(
        host=facts.host,
        why=f"{why}, also after a reboot",
        files=_differing(facts, {HUGE_PAGES_UNIT_PATH: huge_pages_unit_text()}),
        commands=(_RELOAD, ("systemctl", "enable", HUGE_PAGES_UNIT), ("systemctl", "restart", HUGE_PAGES_UNIT)),
        note="nodes that run keep the pages that they have until they are restarted",
    )


def _folder(facts: HostFacts, needs: HostNeeds) -> Iterator[HostChange]:
    yield HostChange(
        host=facts.host,
        why=f"a folder that {facts.user} may write",
        commands=(("mkdir", "-p", "--", needs.home), ("chown", "--", facts.user, needs.home)),
    )


_FIXES: dict[FixKind, Callable[[HostFacts, HostNeeds], Iterator[HostChange]]] = {
    "sysctl": _sysctl,
    "limits": _limits,
    "huge_pages": _huge_pages,
    "folder": _folder,
}
