"""What a confined installer may read of the machine besides programs: its settings, certificates, folders that are indexes."""

from pathlib import Path

from dragoman.engines.installer_files import readable_for


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
