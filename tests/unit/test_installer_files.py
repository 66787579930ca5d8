"""What a confined installer may read of the machine besides programs: its settings, certificates, folders that are indexes."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from dragoman.engines.installer_files import needs_of


def readable_for(environ: Mapping[str, str]) -> tuple[Path, ...]:
    return needs_of(environ).readable


def test_nothing_of_ours(tmp_path: Path) -> None:
    """Without settings only those of the whole machine, if any."""
    assert all(
        path.is_relative_to("/etc")
        for path in readable_for({"HOME": str(tmp_path), "PATH": "/usr/bin", "DRAGOMAN_KEY": "/"})
        if path.is_file()
    )


def test_settings_of_the_user(tmp_path: Path) -> None:
    """Where pip and uv look for them, and the folders that they name."""
    shop, more = tmp_path / "shop", tmp_path / "more"
    shop.mkdir()
    more.mkdir()
    pip = tmp_path / ".config" / "pip" / "pip.conf"
    uv = tmp_path / ".config" / "uv" / "uv.toml"
    for path, text in (
        (pip, f"[global]\nfind-links =\n    {shop}\n    {tmp_path}/missing\nlog = {tmp_path}\nindex-url = https://example.com{tmp_path}\n"),
        (uv, f'[[index]]\nurl = "file://{more}"\n'),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    found = readable_for({"HOME": str(tmp_path)})
    assert {pip, uv, shop, more} <= {*found}
    assert tmp_path not in found
    elsewhere = readable_for({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "none")})
    assert not {pip, uv, shop, more} & {*elsewhere}


def test_variables(tmp_path: Path) -> None:
    """Files and folders that variables name, if they are there; addresses and relative paths are none."""
    shop = tmp_path / "shop"
    shop.mkdir()
    certificates = tmp_path / "ca.pem"
    certificates.write_text("")
    conf = tmp_path / "own.conf"
    conf.write_text(f"[global]\nextra-index-url = file://{shop}/simple https://u:p@example.com/a\n")
    (shop / "simple").mkdir()
    found = readable_for(
        {
            "PIP_CONFIG_FILE": str(conf),
            "SSL_CERT_FILE": str(certificates),
            "REQUESTS_CA_BUNDLE": str(tmp_path / "missing.pem"),
            "UV_FIND_LINKS": f"https://example.com/x,{shop}",
            "PIP_INDEX_URL": f"https://example.com{tmp_path}",
            "UV_CONFIG_FILE": "relative.toml",
            "PIP_CERT": "/dev/null",
            "HTTPS_PROXY": str(tmp_path),
        }
    )
    assert {conf, certificates, shop, shop / "simple"} <= {*found}
    assert not {tmp_path, Path("/dev/null"), tmp_path / "missing.pem"} & {*found}
    assert len(found) == len({*found})


def test_an_index_of_files(tmp_path: Path) -> None:
    """Has its files beside its pages."""
    (tmp_path / "index" / "simple").mkdir(parents=True)
    assert {tmp_path / "index", tmp_path / "index" / "simple"} <= {*readable_for({"UV_INDEX_URL": f"file://{tmp_path}/index/simple"})}


@pytest.mark.parametrize(
    ("name", "value", "local"),
    [
        ("https_proxy", "http://localhost:3128", True),
        ("HTTP_PROXY", "127.0.0.1:3128", True),
        ("ALL_PROXY", "socks5://u:p@[::1]:1080", True),
        ("PIP_INDEX_URL", "http://127.0.0.1/simple", True),
        ("UV_INDEX", "https://example.com http://LOCALHOST:3141/root", True),
        ("NO_PROXY", "localhost,127.0.0.1", False),
        ("HTTPS_PROXY", "http://proxy.example.com:3128/localhost", False),
        ("PIP_INDEX_URL", "https://localhost.example.com/simple", False),
        ("DRAGOMAN_URL", "http://localhost", False),
    ],
)
def test_programs_on_this_machine(name: str, value: str, local: bool) -> None:
    """An index or a proxy of the operator's on this machine; what they do not use does not count."""
    assert needs_of({name: value}).local is local


def test_a_proxy_in_the_settings(tmp_path: Path) -> None:
    """Counts as well."""
    (tmp_path / "pip.conf").write_text("[global]\nproxy = http://localhost:3128\n")
    assert needs_of({"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}).local
