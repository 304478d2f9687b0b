"""Certificates of a cluster on disk: made when missing, renewed in time, copied if they come from elsewhere.

    tls/ca.crt  what clients trust            tls/NAME.crt  a Unit's certificate
    tls/ca.key  0600; needed to issue only    tls/NAME.key  0600

Every crash heals by running again: a key is written before its certificate, and a renewal keeps the key and
replaces only the certificate, in one step. An existing CA is never replaced, because every client that trusts
it would be locked out.

`cryptography` is imported inside the functions: the CLI starts without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from redisforge.disk import PRIVATE_MODE, PUBLIC_MODE, tighten, write_file
from redisforge.errors import CertificateError
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import TlsSettings
from redisforge.security.certificate_checks import (
    check_certificates,
    exists,
    load_chain,
    load_key,
    read_pem,
    require_valid,
    uncovered,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
    from cryptography.x509 import Certificate

RENEW_BEFORE = timedelta(days=30)
"""A certificate is renewed this long before it expires; a short-lived one in the last third of its life."""

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
"""Every certificate covers these, so that an operator on the host can connect."""

_CA_NAME = "ca"


class _Folder(NamedTuple):
    """The file names of a tls folder."""

    path: Path

    def certificate(self, name: str) -> Path:
        return self.path / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.path / f"{name}.key"


def ensure_certificates(
    layout: ClusterLayout, names: Mapping[str, Sequence[str]], tls: TlsSettings, now: datetime
) -> tuple[str, ...]:
    """Make the cluster's tls folder what `names` and `tls` ask for, and return the files that were written.

    Args:
        layout: where the cluster's files lie.
        names: the addresses and names of each Unit, by Unit name.
        tls: with its three paths set, those files are checked and copied for every Unit.
        now: the time, with its zone.

    Raises:
        CertificateError: a file is unusable, or something must be issued and the CA's key is missing.
        HostError: a file cannot be written.
    """
    folder = Path(layout.tls)
    if tls.ca_path or tls.certificate_path or tls.key_path:
        return _copy_provided(folder, tuple(names), tls, now)
    wanted = {name: (*sans, *tls.extra_names) for name, sans in names.items()}
    return ensure_issued(folder, wanted, tls.validity_days, now)


def ensure_issued(
    folder: Path, names: Mapping[str, Sequence[str]], validity_days: int, now: datetime
) -> tuple[str, ...]:
    """Keep a CA in `folder`, and for each of `names` a certificate that covers its names and lasts.

    Every certificate also covers its own name and LOCAL_NAMES. Returns the paths of the files written.

    Raises:
        CertificateError: the CA is unusable, or its key is missing and something must be issued.
        HostError: a file cannot be written.
    """
    written = list(create_ca(folder, now))
    ca = load_ca(folder, now)
    for name, sans in names.items():
        wanted = all_names(name, sans)
        if not _is_good(folder, name, wanted, ca, now):
            written += issue_certificate(folder, name, wanted, validity_days, now)
        elif tighten(_Folder(folder).key(name)):
            written.append(f"{_Folder(folder).key(name)} (now closed to other users)")
    return tuple(written)


def create_ca(folder: Path, now: datetime) -> tuple[str, ...]:
    """Make ca.key and ca.crt if there is no ca.crt; return the files written.

    A ca.key that stands alone (a crash, a lost ca.crt) gets the certificate of the same CA again.

    Raises:
        CertificateError: ca.key cannot be used.
        HostError: a file cannot be written.
    """
    from redisforge.security import x509

    files = _Folder(folder)
    certificate_path, key_path = files.certificate(_CA_NAME), files.key(_CA_NAME)
    if exists(certificate_path):
        return ()
    written: list[str] = []
    if write_file(key_path, x509.key_pem(x509.new_key()), PRIVATE_MODE, replace=False):
        written.append(str(key_path))
    certificate = x509.make_ca(load_key(key_path), now)
    if write_file(certificate_path, x509.certificate_pem(certificate), PUBLIC_MODE, replace=False):
        written.append(str(certificate_path))
    return tuple(written)


def load_ca(folder: Path, now: datetime) -> Certificate:
    """Read ca.crt of `folder`. Raises CertificateError when it is no CA, unreadable or not valid now."""
    path = _Folder(folder).certificate(_CA_NAME)
    certificate = load_chain(path)[0]
    next_step = (
        "Make a new CA in another folder (redisforge generate-certs) and give it to the clients first.\n"
        f"Or move {path} and ca.key away and run again:\n"
        "all certificates are issued anew, and every client needs the new ca.crt."
    )
    require_valid(certificate, path, now, next_step)
    return certificate


def issue_certificate(
    folder: Path, name: str, names: Sequence[str], validity_days: int, now: datetime
) -> tuple[str, ...]:
    """Issue NAME.crt for `names` with the CA of `folder`; NAME.key is made if it is missing or damaged.

    Raises:
        CertificateError: the CA or its key is missing or unusable, or a name is no IP address or DNS name.
        HostError: a file cannot be written.
    """
    from redisforge.security import x509

    files = _Folder(folder)
    ca = (load_ca(folder, now), _load_ca_key(folder))
    written: list[str] = []
    if not _has_usable_key(files.key(name)):
        write_file(files.key(name), x509.key_pem(x509.new_key()), PRIVATE_MODE)
        written.append(str(files.key(name)))
    tighten(files.key(name))
    validity = (now - x509.CLOCK_SKEW, now + timedelta(days=validity_days))
    try:
        certificate = x509.issue(ca, load_key(files.key(name)).public_key(), names, validity)
    except ValueError as error:
        raise CertificateError(
            f"no certificate can be issued for {name}",
            where=str(files.certificate(name)),
            why=str(error),
            next_step="Give IP addresses or DNS names.",
        ) from error
    write_file(files.certificate(name), x509.certificate_pem(certificate), PUBLIC_MODE)
    return (*written, str(files.certificate(name)))


def all_names(name: str, sans: Sequence[str]) -> tuple[str, ...]:
    """What the certificate of `name` covers: its name, the names asked for, and LOCAL_NAMES; each once."""
    return tuple(dict.fromkeys((name, *sans, *LOCAL_NAMES)))


def _is_good(folder: Path, name: str, wanted: Sequence[str], ca: Certificate, now: datetime) -> bool:
    from redisforge.security import x509

    files = _Folder(folder)
    if not exists(files.certificate(name)) or not _has_usable_key(files.key(name)):
        return False
    try:
        certificate = x509.load_certificates(read_pem(files.certificate(name), "certificate"))[0]
    except ValueError:
        return False  # damaged: issued anew
    end = certificate.not_valid_after_utc
    lifetime = end - certificate.not_valid_before_utc
    # A certificate that ends with its CA cannot be made to last longer by issuing it again.
    lasts = now < end - min(RENEW_BEFORE, lifetime / 3) or end >= ca.not_valid_after_utc > now
    return (
        lasts
        and certificate.not_valid_before_utc <= now
        and x509.same_key(certificate, load_key(files.key(name)))
        and x509.is_signed_by(certificate, [ca])
        and not uncovered(certificate, wanted)
    )


def _has_usable_key(path: Path) -> bool:
    from redisforge.security import x509

    if not exists(path):
        return False
    try:
        x509.load_key(read_pem(path, "private key"))
    except ValueError:
        return False
    return True


def _load_ca_key(folder: Path) -> CertificateIssuerPrivateKeyTypes:
    from redisforge.security import x509

    files = _Folder(folder)
    path = files.key(_CA_NAME)
    if not exists(path):
        raise CertificateError(
            "a certificate must be issued, and the key of the CA is missing",
            where=str(path),
            why="only the holder of this key can issue certificates that the clients trust",
            next_step=f"Put ca.key back, or place certificates of that CA in\n{folder} yourself,\n"
            "or name your own files in redisforge.yaml (tls: ca_file, cert_file, key_file).",
        )
    key = load_key(path)
    if not x509.same_key(load_chain(files.certificate(_CA_NAME))[0], key):
        raise CertificateError(
            "the key of the CA does not belong to its certificate",
            where=str(path),
            why=f"its public half differs from the one in {files.certificate(_CA_NAME)}",
            next_step="Put back the ca.key that belongs to ca.crt.",
        )
    return key


def _copy_provided(folder: Path, names: Sequence[str], tls: TlsSettings, now: datetime) -> tuple[str, ...]:
    files = _Folder(folder)
    sources = check_provided(folder, tls, now)
    ca, certificate, key = (read_pem(source, "file") for source in sources)
    copies = [(files.certificate(_CA_NAME), ca, PUBLIC_MODE)]
    for name in names:
        copies.append((files.key(name), key, PRIVATE_MODE))
        copies.append((files.certificate(name), certificate, PUBLIC_MODE))
    written: list[str] = []
    for path, content, mode in copies:
        if not exists(path) or read_pem(path, "file") != content:
            write_file(path, content, mode)
            written.append(str(path))
    return tuple(written)


def check_provided(folder: Path, tls: TlsSettings, now: datetime) -> tuple[Path, Path, Path]:
    """The operator's own CA, certificate and key, which can be used for a cluster whose tls folder is `folder`.

    Raises:
        CertificateError: one of them is missing or unusable, or the cluster has a CA of its own already.
    """
    files = _Folder(folder)
    if not (tls.ca_path and tls.certificate_path and tls.key_path):
        raise CertificateError(
            "certificates of your own need three files",
            why="one or two of CA, certificate and key are not set",
            next_step="Set all of tls: ca_file, cert_file and key_file in redisforge.yaml, or none.",
        )
    if exists(files.key(_CA_NAME)):
        raise CertificateError(
            "the cluster already has a CA of its own",
            where=str(files.certificate(_CA_NAME)),
            why="nodes and clients that trust it would refuse certificates of another CA",
            next_step="Remove the tls paths from redisforge.yaml; or stop the cluster, move ca.crt and\n"
            "ca.key away and start it again.",
        )
    sources = (Path(tls.ca_path), Path(tls.certificate_path), Path(tls.key_path))
    check_certificates(*sources, now)
    return sources
