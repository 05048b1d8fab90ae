"""Sessions, tokens and devices: what is revoked stays revoked, and nothing of a deleted device remains."""

from ranvier.core.identifiers import DeviceID, ServerName, UserID
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import accounts, devices, one_time_keys, to_device, tokens
from ranvier.store.tables.interned import Interner, intern_users

ALICE = UserID("@alice:one")
PHONE = DeviceID("PHONE")


def make_device(txn: WriteTxn) -> tuple[int, int]:
    user_nid = intern_users(txn, Interner(ServerName("one")), [ALICE])[ALICE]
    accounts.insert_account(txn, user_nid, accounts.AccountKind.USER, "hash", None, 1)
    return user_nid, devices.insert_device(txn, user_nid, PHONE, None, 1)


def pair(name: str, refresh_expires_ms: int | None = None) -> tokens.NewToken:
    return tokens.NewToken(
        access_hash=tokens.hash_token(f"{name}-access"),
        refresh_hash=tokens.hash_token(f"{name}-refresh"),
        created_ms=10,
        refresh_expires_ms=refresh_expires_ms,
    )


def live(txn: ReadTxn, *names: str) -> list[bool]:
    return [tokens.find_session(txn, tokens.hash_token(f"{name}-access")) is not None for name in names]


async def test_the_old_pair_lives_until_the_new_one_is_used(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        user_nid, device_nid = make_device(txn)
        tokens.insert_token(txn, user_nid, device_nid, pair("a"))
        assert tokens.refresh_token(txn, tokens.hash_token("a-refresh"), pair("lost")) is not None
        assert tokens.refresh_token(txn, tokens.hash_token("a-refresh"), pair("b")) is not None
        assert live(txn, "a", "lost", "b") == [True, False, True]
        session = tokens.find_session(txn, tokens.hash_token("b-access"))
        assert session is not None
        assert (session.user_id, session.device_id, session.is_confirmed) == (ALICE, PHONE, False)
        tokens.confirm_token(txn, session.token_nid)
        assert live(txn, "a", "b") == [False, True]
        assert tokens.refresh_token(txn, tokens.hash_token("a-refresh"), pair("c")) is None

    await db.write(run)


async def test_an_expired_refresh_token_is_refused(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        user_nid, device_nid = make_device(txn)
        tokens.insert_token(txn, user_nid, device_nid, pair("a", refresh_expires_ms=10))
        assert tokens.refresh_token(txn, tokens.hash_token("a-refresh"), pair("b")) is None

    await db.write(run)


async def test_nothing_of_a_deleted_device_remains(db: Database) -> None:
    def run(txn: WriteTxn) -> None:
        user_nid, device_nid = make_device(txn)
        tokens.insert_token(txn, user_nid, device_nid, pair("a"))
        holder = one_time_keys.Holder(user_nid, device_nid)
        one_time_keys.insert_one_time_keys(txn, holder, {("x", "1"): b"{}"})
        to = to_device.Addressee(user_nid, device_nid)
        for _ in range(5):
            to_device.insert_messages(txn, ALICE, "t", {to: b"{}"})
        device = devices.find_device(txn, user_nid, PHONE)
        assert device is not None
        devices.delete_devices(txn, [device])
        assert live(txn, "a") == [False]
        assert one_time_keys.claim_keys(txn, [(holder, "x")]) == {}
        assert to_device.insert_messages(txn, ALICE, "t", {to: b"{}"}) is not None
        while devices.sweep_deleted_devices(txn, limit=2):
            pass
        assert to_device.list_messages(txn, device_nid, 0, 2**62, 10) == []

    await db.write(run)
