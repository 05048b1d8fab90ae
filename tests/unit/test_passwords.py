"""Passwords are compared in the same time whoever asks, a few at a time."""

import asyncio

import pytest

from ranvier.core.errors import InvalidParam, LimitExceeded, WeakPassword
from ranvier.services.accounts import owners, passwords
from ranvier.services.accounts.owners import WRONG_AT_ONCE, WRONG_PER_SECOND, WrongPasswords
from ranvier.services.accounts.passwords import PasswordCost, Passwords

CHEAP = PasswordCost(memory_kib=8, iterations=1)


async def test_only_the_password_fits_its_hash():
    hasher = Passwords(CHEAP)
    stored = await hasher.hash("Zoe\u0308 \U0001f511 \udcff")
    assert stored.startswith("$argon2id$")
    assert await hasher.is_correct(stored, "Zo\u00eb \U0001f511 \udcff")
    assert not await hasher.is_correct(stored, "zo\u00eb \U0001f511 \udcff")
    assert not await hasher.is_correct(stored, "")
    assert not await hasher.is_correct(stored, "x" * 1_000_000)
    assert await hasher.hash("same") != await hasher.hash("same")


async def test_without_a_hash_the_same_work_is_done(monkeypatch):
    hasher = Passwords(CHEAP)
    verified = []
    verify = hasher._verify
    monkeypatch.setattr(
        hasher, "_verify", lambda stored, text: verified.append(stored) or verify(stored, text)
    )
    assert not await hasher.is_correct(None, "nobody's password")
    assert len(verified) == 1


async def test_a_hash_of_another_cost_is_outdated_but_good():
    stored = await Passwords(CHEAP).hash("password")
    dearer = Passwords(PasswordCost(memory_kib=16, iterations=2))
    assert await dearer.is_correct(stored, "password")
    renewed = await dearer.renew(stored, "password")
    assert renewed != stored
    assert await dearer.is_correct(renewed, "password")
    assert await dearer.renew(renewed, "password") is None
    assert await dearer.renew(None, "password") is None


async def test_who_comes_when_too_many_wait_is_sent_away(monkeypatch):
    monkeypatch.setattr(passwords, "MAX_WAITING", 3)
    hasher = Passwords(CHEAP)
    answers = await asyncio.gather(*(hasher.hash("x") for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers].count(LimitExceeded) == 2
    assert await hasher.hash("x")


@pytest.mark.parametrize(("text", "error"), [("1234567", WeakPassword), ("x" * 513, InvalidParam)])
def test_passwords_that_nobody_may_choose(text, error):
    with pytest.raises(error):
        Passwords(CHEAP).check_new(text)
    Passwords(CHEAP, min_chars=1).check_new("x")


def test_wrong_passwords_are_counted_by_account_and_forgotten_with_time():
    now = [1000.0]
    wrong = WrongPasswords(lambda: now[0])
    for name in ("@alice:test", "@ALICE:test") * WRONG_AT_ONCE:
        wrong.add(name)
    with pytest.raises(LimitExceeded) as caught:
        wrong.check("@alice:test")
    wrong.check("@bob:test")
    now[0] += caught.value.extra["retry_after_ms"] / 1000
    wrong.check("@alice:test")
    wrong.add("@alice:test")
    with pytest.raises(LimitExceeded):
        wrong.check("@alice:test")
    now[0] += 1 / WRONG_PER_SECOND
    wrong.check("@alice:test")


def test_only_so_many_names_are_remembered(monkeypatch):
    monkeypatch.setattr(owners, "MAX_REMEMBERED", 2)
    wrong = WrongPasswords(lambda: 0.0)
    for name in ("@a:test", "@b:test", "@c:test"):
        wrong.add(name)
    assert len(wrong._counts) == 2
