"""Accounts: who may start jobs, with which key or password, and what a login's token is worth (FloydHub requirement F2)."""

import asyncio
import base64
import json
import stat
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.jobs.accounts import FILE, TOKEN_S, Accounts, claimed


def login(accounts: Accounts, name: str, password: str) -> str:
    return asyncio.run(accounts.login(name, password))


def refused(accounts: Accounts, name: str, password: str) -> Kind:
    with pytest.raises(ServingError) as error:
        login(accounts, name, password)
    return error.value.kind


class TestWithoutAccounts:
    def test_anybody_logs_in_with_any_password(self, tmp_path: Path) -> None:
        """Credentials name the user, and nothing is kept."""
        accounts = Accounts(tmp_path)
        token = login(accounts, "bob", "whatever")
        assert claimed(token) == "bob"
        assert not accounts.exist
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(("name", "password"), [("", "x"), ("bob", ""), ("a/b", "x"), ("-x", "x")])
    def test_empty_credentials_and_names_that_are_none(self, name: str, password: str, tmp_path: Path) -> None:
        """A name becomes part of paths."""
        assert refused(Accounts(tmp_path), name, password) is Kind.UNAUTHENTICATED

    @pytest.mark.parametrize(
        ("token", "name"),
        [("alice", "alice"), ("a b", "user"), ("../x", "user"), ("dg_secret", "user"), ("a.b.c", "a.b.c"), ("x" * 65, "user")],
    )
    def test_a_key_names_its_user(self, token: str, name: str) -> None:
        """One that is no name is anybody's."""
        assert claimed(token) == name

    def test_no_data_directory_has_no_accounts(self) -> None:
        """As in tests of dialects."""
        assert not Accounts().exist
        assert Accounts().verify("x") is None


class TestAccounts:
    def test_a_key_is_whose_it_is(self, tmp_path: Path) -> None:
        """Every process sees a new account at once."""
        accounts, other = Accounts(tmp_path), Accounts(tmp_path)
        assert not other.exist
        alice, bob = accounts.add("alice"), accounts.add("bob")
        assert other.exist
        assert [other.verify(key) for key in (alice, bob, "dg_wrong", "alice")] == ["alice", "bob", None, None]
        assert other.names() == ["alice", "bob"]

    def test_the_file_tells_no_secrets(self, tmp_path: Path) -> None:
        """Hashes only, for the owner of the server only."""
        key = Accounts(tmp_path).add("alice", "open sesame")
        content = (tmp_path / FILE).read_text("ascii")
        assert key not in content
        assert "sesame" not in content
        assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600

    def test_a_password_gives_a_token(self, tmp_path: Path) -> None:
        """Only the right one."""
        accounts = Accounts(tmp_path)
        accounts.add("alice", "open sesame")
        token = login(accounts, "alice", "open sesame")
        assert accounts.verify(token) == "alice"
        assert [refused(accounts, *each) for each in (("alice", "wrong"), ("bob", "open sesame"), ("alice", ""))] == [
            Kind.UNAUTHENTICATED
        ] * 3

    def test_an_account_without_a_password_has_a_key_only(self, tmp_path: Path) -> None:
        """No password opens it, the empty one neither."""
        accounts = Accounts(tmp_path)
        accounts.add("alice")
        assert refused(accounts, "alice", "") is Kind.UNAUTHENTICATED

    def test_a_token_is_one_that_the_client_can_read(self, tmp_path: Path) -> None:
        """It decodes the middle part with plain base64, and wants a number that lies in the future."""
        accounts = Accounts(tmp_path, clock=lambda: 1000.0)
        accounts.add("alice", "open sesame")
        payload = login(accounts, "alice", "open sesame").split(".")[1]
        assert not set(payload) & set("-_")
        assert json.loads(base64.b64decode(payload + "===")) == {"sub": "alice", "exp": 1000 + TOKEN_S}

    def test_tokens_end(self, tmp_path: Path) -> None:
        """With time, with a new password, and with the account."""
        now = [1000.0]
        accounts = Accounts(tmp_path, clock=lambda: now[0])
        accounts.add("alice", "one")
        token = login(accounts, "alice", "one")
        now[0] += TOKEN_S - 1
        assert accounts.verify(token) == "alice"
        now[0] += 1
        assert accounts.verify(token) is None
        now[0] = 1000.0
        accounts.change_password("alice", "two")
        assert accounts.verify(token) is None
        token = login(accounts, "alice", "two")
        accounts.remove("alice")
        assert accounts.verify(token) is None

    def test_a_token_cannot_be_made_up(self, tmp_path: Path) -> None:
        """Neither changed, nor taken from the time before there were accounts."""
        accounts = Accounts(tmp_path)
        open_token = login(accounts, "alice", "x")
        accounts.add("alice", "one")
        accounts.add("bob", "two")
        head, _, signature = login(accounts, "bob", "two").split(".")
        payload = base64.urlsafe_b64encode(b'{"sub":"alice","exp":99999999999}').rstrip(b"=").decode()
        assert [accounts.verify(each) for each in (open_token, f"{head}.{payload}.{signature}", f"{head}.{payload}.", "..", "a.b.c")] == [
            None
        ] * 5

    def test_without_its_last_account_a_server_is_not_open(self, tmp_path: Path) -> None:
        """Removing somebody never lets everybody in."""
        accounts = Accounts(tmp_path)
        key = accounts.add("alice")
        accounts.remove("alice")
        assert accounts.exist
        assert accounts.verify(key) is None
        assert refused(accounts, "bob", "x") is Kind.UNAUTHENTICATED

    def test_names_are_given_once(self, tmp_path: Path) -> None:
        """And can be names only."""
        accounts = Accounts(tmp_path)
        accounts.add("alice")
        for name, kind in (("alice", Kind.CONFLICT), ("a/b", Kind.INVALID_INPUT), ("", Kind.INVALID_INPUT)):
            with pytest.raises(ServingError) as error:
                accounts.add(name)
            assert error.value.kind is kind
        for change in (accounts.remove, lambda name: accounts.change_password(name, "x")):
            with pytest.raises(ServingError) as error:
                change("bob")
            assert error.value.kind is Kind.NOT_FOUND
        with pytest.raises(ServingError):
            accounts.change_password("alice", "x" * 513)

    @pytest.mark.parametrize("content", ["", "[]", '{"alice": {}}', '{"alice": 1}', "\udcff"])
    def test_a_damaged_file_lets_nobody_in(self, content: str, tmp_path: Path) -> None:
        """Nor does it count as having no accounts."""
        (tmp_path / FILE).write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises(ServingError) as error:
            Accounts(tmp_path).verify("x")
        assert error.value.kind is Kind.UNAVAILABLE
