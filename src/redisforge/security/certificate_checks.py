"""Reading certificates and keys from disk, and saying exactly what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from redisforge.errors import CertificateError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
    from cryptography.x509 import Certificate


def check_certificates(ca: Path, certificate: Path, key: Path, now: datetime) -> None:
    """Check that three PEM files work together as a node's TLS identity at `now`.

    Raises:
        CertificateError: one is unreadable, not PEM, expired or not yet valid; the key is another's; the
            certificate does not lead to the CA; or it may not be used by servers and clients both.
    """
    from redisforge.security import x509

    replace = "Provide a certificate that is valid now."
    chain, trusted = load_chain(certificate), load_chain(ca)
    require_valid(chain[0], certificate, now, replace)
    still_trusted = [one for one in trusted if one.not_valid_before_utc <= now < one.not_valid_after_utc]
    if not still_trusted:
        require_valid(trusted[0], ca, now, "Provide a CA certificate that is valid now.")
    if not x509.same_key(chain[0], load_key(key)):
        raise CertificateError(
            "the key does not belong to the certificate",
            where=str(key),
            why=f"its public half differs from the one in {certificate}",
            next_step="Provide the key from which this certificate was requested.",
        )
    if not x509.chains_to(chain, still_trusted):
        raise CertificateError(
            "the certificate is not signed by the CA",
            where=str(certificate),
            why=f"issued by {chain[0].issuer.rfc4514_string()}, which {ca} does not hold",
            next_step="Provide the CA that issued it; put intermediate certificates behind it in its file.",
        )
    if not x509.may_serve_and_call(chain[0]):
        raise CertificateError(
            "the certificate may not be used as both server and client",
            where=str(certificate),
            why="its extended key usage lacks serverAuth or clientAuth; nodes call each other with it",
            next_step="Have it issued with both usages.",
        )


def expiry(path: Path) -> datetime:
    """When the certificate at `path` expires (UTC). Raises CertificateError when it cannot be read."""
    return load_chain(path)[0].not_valid_after_utc


def missing_names(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Which of `names` the certificate at `path` does not cover; a client that checks names refuses it there.

    Raises:
        CertificateError: it cannot be read.
    """
    return uncovered(load_chain(path)[0], names)


def load_chain(path: Path) -> list[Certificate]:
    """The certificates of a PEM file, at least one. Raises CertificateError."""
    from redisforge.security import x509

    try:
        return x509.load_certificates(read_pem(path, "certificate"))
    except ValueError as error:
        raise CertificateError(
            "the certificate cannot be used",
            where=str(path),
            why=str(error),
            next_step="Provide the file again, in PEM form (-----BEGIN CERTIFICATE-----).",
        ) from error


def load_key(path: Path) -> CertificateIssuerPrivateKeyTypes:
    """The private key in the file at `path`. Raises CertificateError."""
    from redisforge.security import x509

    try:
        return x509.load_key(read_pem(path, "private key"))  # type: ignore[return-value]
    except ValueError as error:
        raise CertificateError(
            "the private key cannot be used",
            where=str(path),
            why=str(error),
            next_step="Provide the file again, in PEM form and without a passphrase.",
        ) from error


def read_pem(path: Path, what: str) -> bytes:
    """Read a file of certificates or a key. Raises CertificateError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"the {what} cannot be read",
            where=str(path),
            why=error.strerror or str(error),
            next_step="Check the path and the permissions of the file.",
        ) from error


def exists(path: Path) -> bool:
    """Whether there is a file at `path`. Raises CertificateError when its folder cannot be searched."""
    try:
        return path.exists()
    except OSError as error:
        raise CertificateError(
            "a folder of certificates cannot be read",
            where=str(path.parent),
            why=error.strerror or str(error),
            next_step="Check the path and the permissions of the folder.",
        ) from error


def require_valid(certificate: Certificate, path: Path, now: datetime, next_step: str) -> None:
    """Raise CertificateError unless `certificate`, read from `path`, is valid at `now`."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= end:
        what, why = "the certificate has expired", f"it was valid until {end:%Y-%m-%d %H:%M} UTC"
    elif now < begin:
        what = "the certificate is not valid yet"
        why = f"it is valid from {begin:%Y-%m-%d %H:%M} UTC; this machine's clock says {now:%Y-%m-%d %H:%M} UTC"
        next_step = f"Check the clock. {next_step}"
    else:
        return
    raise CertificateError(what, where=str(path), why=why, next_step=next_step)


def uncovered(certificate: Certificate, names: Sequence[str]) -> tuple[str, ...]:
    """Which of `names` are not among the subject alternative names of `certificate`."""
    from redisforge.security import x509

    covered = x509.covered_names(certificate)

    def is_covered(name: str) -> bool:
        try:
            return x509.normal_name(name) in covered
        except ValueError:
            return False

    return tuple(name for name in names if not is_covered(name))
