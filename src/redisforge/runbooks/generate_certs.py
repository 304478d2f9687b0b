"""generate-certs: a private CA and certificates in a folder, for clusters and clients that run elsewhere.

1. Check every name before anything is written.  2. Make the CA if there is none.  3. Keep each certificate
that is valid, covers the names asked for and lasts; issue the others.  4. Report what lies in the folder now.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from redisforge.errors import UsageError
from redisforge.security.certificate_checks import load_chain
from redisforge.security.certificates import ensure_issued

DEFAULT_NAMES = ("server", "client")
MAX_DAYS = 3650
"""The lifetime of the CA: no certificate outlives it."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class CertificateEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate in the folder. `written` is false when it is kept as it was. `expires_at` is ISO 8601."""

    file: str
    key_file: str
    subject: str
    names: tuple[str, ...]
    expires_at: str
    written: bool


class CertificatesReport(msgspec.Struct, frozen=True, kw_only=True):
    """`redisforge generate-certs --json`: the CA first, then the certificates in the order asked for."""

    folder: str
    certificates: tuple[CertificateEntry, ...]


def generate_certs(
    folder: Path, names: Sequence[str], sans: Sequence[str], days: int, now: datetime
) -> CertificatesReport:
    """Make `folder` hold a CA and a certificate for each of `names` (file NAME.crt and NAME.key).

    Args:
        folder: created if it is missing.
        names: DEFAULT_NAMES when empty.
        sans: DNS names and IP addresses that every certificate covers, besides its own name and localhost.
        days: how long new certificates are valid, 1 to MAX_DAYS.
        now: the time, with its zone.

    Raises:
        UsageError: a name or number that cannot be used; nothing is written.
        CertificateError: the CA in the folder cannot be used.
        HostError: the folder cannot be written.
    """
    names = tuple(dict.fromkeys(names)) or DEFAULT_NAMES
    _check(names, sans, days)
    folder = folder.absolute()
    written = ensure_issued(folder, {name: tuple(sans) for name in names}, days, now)
    entries = tuple(_entry(folder, name, written) for name in ("ca", *names))
    return CertificatesReport(folder=str(folder), certificates=entries)


def _check(names: Sequence[str], sans: Sequence[str], days: int) -> None:
    from redisforge.security.x509 import normal_name

    if not 1 <= days <= MAX_DAYS:
        raise UsageError(f"--days must be 1 to {MAX_DAYS} (got {days})", next_step="825 is a good value.")
    for name in names:
        if not _FILE_NAME.fullmatch(name) or name == "ca":
            raise UsageError(
                f"--name {name!r} cannot be the name of a certificate",
                why="ca is the CA's own" if name == "ca" else "it becomes a file name and a DNS name",
                next_step="Use letters, digits, '-', '_' and '.', at most 63, a letter or digit first.",
            )
    for option, value in (*(("--name", name) for name in names), *(("--san", san) for san in sans)):
        try:
            normal_name(value)
        except ValueError as error:
            raise UsageError(
                f"{option} {value!r} cannot be in a certificate",
                why=str(error),
                next_step="Give an IP address such as 10.0.0.1 or a DNS name such as redis.example.org.",
            ) from error


def _entry(folder: Path, name: str, written: Sequence[str]) -> CertificateEntry:
    from redisforge.security import x509

    path, key_path = folder / f"{name}.crt", folder / f"{name}.key"
    certificate = load_chain(path)[0]
    return CertificateEntry(
        file=str(path),
        key_file=str(key_path),
        subject=x509.subject(certificate),
        names=tuple(sorted(x509.covered_names(certificate))),
        expires_at=certificate.not_valid_after_utc.isoformat(),
        written=str(path) in written,
    )
