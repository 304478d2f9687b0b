"""X.509 as RedisForge uses it: a private CA, certificates of Units, and the checks of files from elsewhere.

Bytes and objects only; certificates.py knows where the files lie. Importing this module loads `cryptography`.

A Unit's certificate names every address by which it is reached (subjectAltName; the common name is only for
people) and is good for serving and for calling, since a Redis node does both on the cluster bus. Source:
RFC 5280 sections 4.2.1.1 (authority key identifier), 4.2.1.3 (key usage), 4.2.1.6 (subject alternative name),
4.2.1.9 (basic constraints), 4.2.1.12 (extended key usage).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
    CertificatePublicKeyTypes,
    PrivateKeyTypes,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_VALIDITY = timedelta(days=3650)
CLOCK_SKEW = timedelta(minutes=5)
"""Certificates are valid from so long before they are made, for hosts whose clock is behind."""

_COMMON_NAME_LIMIT = 64
"""ub-common-name of RFC 5280, appendix A."""


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key: known to every client, and its handshakes are fast."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as unencrypted PKCS #8; it belongs in a 0600 file only."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """The certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def load_key(pem: bytes) -> PrivateKeyTypes:
    """Read a private key. Raises ValueError with a reason for people."""
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError("the key is protected by a passphrase, which a server cannot type") from None
    except Exception as error:  # cryptography's own types differ by release, UnsupportedAlgorithm among them
        raise ValueError("it is not a private key in PEM form") from error


def load_certificates(pem: bytes) -> list[x509.Certificate]:
    """Read one certificate or a chain, the server's own first. Raises ValueError with a reason for people."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except Exception as error:
        raise ValueError("it is not a certificate in PEM form") from error


def make_ca(key: CertificateIssuerPrivateKeyTypes, now: datetime) -> x509.Certificate:
    """A CA certificate for `key`, valid for 10 years.

    Its name is derived from the key, so that it can be made again from ca.key alone, and so that the CAs of
    several clusters can lie in one trust store.
    """
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = _name(f"RedisForge CA {identifier.digest.hex()[:12]}")
    builder = (
        _builder(name, name, key.public_key(), (now - CLOCK_SKEW, now + CA_VALIDITY))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_ca=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    return builder.sign(key, _signature_hash(key))


def issue(
    ca: tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes],
    public_key: CertificatePublicKeyTypes,
    names: Sequence[str],
    validity: tuple[datetime, datetime],
) -> x509.Certificate:
    """A certificate for `names` (DNS names or IP addresses; the first is the common name too).

    It does not outlive the CA.

    Raises:
        ValueError: one of `names` is neither.
    """
    ca_certificate, ca_key = ca
    begin, end = validity
    end = min(end, ca_certificate.not_valid_after_utc)
    alternative_names = [_general_name(name) for name in dict.fromkeys(names)]
    builder = (
        _builder(_name(names[0]), ca_certificate.subject, public_key, (begin, end))
        .add_extension(x509.SubjectAlternativeName(alternative_names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_ca=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority_identifier(ca_certificate), critical=False)
    )
    return builder.sign(ca_key, _signature_hash(ca_key))


def covered_names(certificate: x509.Certificate) -> frozenset[str]:
    """The DNS names and IP addresses of the certificate, as `normal_name` writes them."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return frozenset(extension.value.get_values_for_type(x509.DNSName)) | {str(item) for item in addresses}


def normal_name(name: str) -> str:
    """The one spelling of an IP address or DNS name. Raises ValueError for what is neither."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        encoded = name.encode("idna").decode().lower()
    except UnicodeError:
        encoded = ""
    labels = encoded.removesuffix(".").removeprefix("*.").split(".")
    if len(encoded) > 253 or not all(label and _is_label(label) for label in labels):  # RFC 1035, 2.3.4
        raise ValueError(f"{name!r} is neither an IP address nor a DNS name")
    return encoded


def subject(certificate: x509.Certificate) -> str:
    """The common name, or the whole subject if it has none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def same_key(certificate: x509.Certificate, key: PrivateKeyTypes) -> bool:
    """Whether `key` belongs to `certificate`."""
    return _public_bytes(certificate.public_key()) == _public_bytes(key.public_key())  # type: ignore[arg-type]


def is_signed_by(certificate: x509.Certificate, issuers: Iterable[x509.Certificate]) -> bool:
    """Whether one of `issuers` signed `certificate` and bears the name that it gives for its issuer."""
    for issuer in issuers:
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


def chains_to(chain: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate]) -> bool:
    """Whether the first of `chain` leads, through the others, to one of `trusted`."""
    current, others = chain[0], list(chain[1:])
    while not is_signed_by(current, trusted):
        following = next((other for other in others if is_signed_by(current, [other])), None)
        if following is None:
            return False
        others.remove(following)
        current = following
    return True


def may_serve_and_call(certificate: x509.Certificate) -> bool:
    """Whether the extended key usage, if there is one, allows both TLS server and TLS client."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    wanted = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    return wanted <= set(usage) or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage


def _is_label(label: str) -> bool:
    return len(label) <= 63 and all(c.isascii() and (c.isalnum() or c in "-_") for c in label)


def _general_name(name: str) -> x509.GeneralName:
    normal = normal_name(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(normal))
    except ValueError:
        return x509.DNSName(normal)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_COMMON_NAME_LIMIT])])


def _builder(
    subject_name: x509.Name,
    issuer_name: x509.Name,
    public_key: CertificatePublicKeyTypes,
    validity: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject_name)
        .issuer_name(issuer_name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
    )


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,  # an EC key signs; it encrypts nothing
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _signature_hash(key: CertificateIssuerPrivateKeyTypes) -> hashes.SHA256 | None:
    is_edwards = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return None if is_edwards else hashes.SHA256()  # Ed25519 and Ed448 hash by themselves


def _authority_identifier(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _public_bytes(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
