"""Mail addresses and phone numbers of users.

Table: threepids. Owner: services.accounts. Growth: one row an address.
Index -> query: primary key -> find the owner; threepids_by_user -> list and delete those of a user.

Addresses are in canonical form. Spec: client-server API, "Adding Account Administrative Contact Information".
"""

from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn


class Threepid(msgspec.Struct, frozen=True):
    medium: str  # email or msisdn
    address: str
    validated_ms: int
    added_ms: int


_LIST: Final = """
    SELECT medium, address, validated_ms, added_ms FROM threepids
    WHERE user_nid = :user_nid ORDER BY medium, address
"""
_OWNER: Final = "SELECT user_nid FROM threepids WHERE medium = :medium AND address = :address"
_INSERT: Final = """
    INSERT INTO threepids (medium, address, user_nid, validated_ms, added_ms)
    VALUES (:medium, :address, :user_nid, :validated_ms, :added_ms)
    ON CONFLICT (medium, address) DO NOTHING
"""
_DELETE: Final = """
    DELETE FROM threepids WHERE medium = :medium AND address = :address AND user_nid = :user_nid
"""
_DELETE_OF_USER: Final = "DELETE FROM threepids WHERE user_nid = :user_nid"


def list_threepids(txn: ReadTxn, user_nid: int) -> list[Threepid]:
    return [Threepid(*row) for row in txn.all(_LIST, user_nid=user_nid)]


def find_threepid_owner(txn: ReadTxn, medium: str, address: str) -> int | None:
    """The user_nid whose address it is."""
    value: int | None = txn.value(_OWNER, medium=medium, address=address)
    return value


def insert_threepid(txn: WriteTxn, user_nid: int, threepid: Threepid) -> bool:
    """False if the address is somebody's already."""
    return txn.execute(_INSERT, user_nid=user_nid, **msgspec.structs.asdict(threepid)) == 1


def delete_threepid(txn: WriteTxn, user_nid: int, medium: str, address: str) -> bool:
    """False if the user has no such address."""
    return txn.execute(_DELETE, user_nid=user_nid, medium=medium, address=address) == 1


def delete_threepids_of_user(txn: WriteTxn, user_nid: int) -> None:
    """The account is closed: forget its addresses."""
    txn.execute(_DELETE_OF_USER, user_nid=user_nid)
