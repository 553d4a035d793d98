"""The name in a certificate."""

from __future__ import annotations

from pathlib import Path

import pytest

from jens.delivery.certname import certname

#: Signed by ``CN=Puppet CA, O=Example``; its subject is ``O=Example, CN=jens.example.org``.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBTDCB9AIUFfqgf1kvT2tZv7+Rm9V5EF9xMcwwCgYIKoZIzj0EAwIwJjESMBAG
A1UEAwwJUHVwcGV0IENBMRAwDgYDVQQKDAdFeGFtcGxlMB4XDTI2MTEyOTA1MTI0
NFoXDTI2MTEzMDA1MTI0NFowLTEQMA4GA1UECgwHRXhhbXBsZTEZMBcGA1UEAwwQ
amVucy5leGFtcGxlLm9yZzBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABP7yMwdV
YxVLKP/lwwyajTpva1nauiaGhIbtsit8OPshd9JSudmOLFHqxVgiRwomPXeAJNb6
272L9nb8HLspD+0wCgYIKoZIzj0EAwIDRwAwRAIgRBvv0MSLrW+1j6RQmA6e/6ht
dV9PnvvNeaI5EXqh4csCIBTMTpyZ95TI9ECKaOzKQ40xV8gZ4TcErKk6/otzUv6Z
-----END CERTIFICATE-----
"""
LINES = CERTIFICATE.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (CERTIFICATE, "jens.example.org"),
        (f"Certificate:\n    Version: 3\n{CERTIFICATE}more\n", "jens.example.org"),
        ("", ""),
        ("no certificate\n", ""),
        (CERTIFICATE.replace("END", "EN"), ""),
        ("".join([*LINES[:2], LINES[-1]]), ""),
        ("".join([LINES[0], "!!!!\n", LINES[-1]]), ""),
        ("".join([LINES[0], LINES[-1]]), ""),
    ],
)
def test_the_common_name_of_the_subject_is_found(tmp_path: Path, text: str, name: str) -> None:
    path = tmp_path / "cert.pem"
    path.write_text(text)
    assert certname(str(path)) == name


def test_what_cannot_be_read_has_no_name(tmp_path: Path) -> None:
    assert certname(str(tmp_path)) == ""
    assert certname(str(tmp_path / "nothing")) == ""
