"""What relates to events, summed up for the events themselves: `unsigned.m.relations`.

Edits, references and threads are bundled; annotations are not. State events get none.

Spec: client-server API, "Aggregations of child events", "Server-side aggregation of m.replace", "… of
m.reference", "… of m.thread relationships".
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec
import orjson

from ranvier.core.identifiers import EventID
from ranvier.core.visibility import JOINED_NOW
from ranvier.services.rooms.showing import Frame, Showing
from ranvier.services.rooms.sight import Viewer
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events, relations
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.relations import REPLACE, Thread

MAX_REFERENCES: Final = 200
"""Named in the bundle of one event; all of them are had from /relations."""
MAX_EDITS: Final = 3
"""Of one event that are looked at: the newest that has new content counts."""

_ENCRYPTED: Final = "m.room.encrypted"


class _EditContent(msgspec.Struct, gc=False):
    new_content: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="m.new_content")


class _Edit(msgspec.Struct, gc=False):
    content: _EditContent


_EDIT: Final = msgspec.json.Decoder(_Edit)


class Aggregations:
    """Makes bundles. Its functions run in read transactions, on any thread."""

    def __init__(self, showing: Showing) -> None:
        self._showing = showing

    def bundle(
        self, txn: ReadTxn, viewer: Viewer, records: Collection[EventRecord], frame: Frame
    ) -> dict[int, bytes]:
        """`m.relations` of those events of the viewer's room that something visible relates to, by event_nid.

        `frame`: as for the events themselves; it is that of the events inside the bundles.
        Cost: 2 queries where nothing relates to the events, else up to 10, whatever their number.
        """
        parents = [record for record in records if record.state_key_nid is None]
        if not parents:
            return {}
        threads = _list_threads(txn, viewer, parents)
        latest = (
            events.list_events(txn, [thread.newest_nid for thread in threads.values()]) if threads else {}
        )
        plain = self._bundle_related(txn, viewer, [*parents, *latest.values()], frame)
        if not threads:
            return {nid: _encode_parts(parts) for nid, parts in plain.items()}
        inner = {nid: _encode_parts(plain[nid]) for nid in latest if nid in plain}
        replies = self._embed(txn, viewer, latest.values(), frame, inner)
        participated = _list_participated(txn, viewer, parents, threads)
        for record in parents:
            thread = threads.get(record.event_id)
            if thread is not None and thread.newest_nid in replies:
                takes_part = record.event_id in participated
                part = _encode_thread(thread, replies[thread.newest_nid], takes_part=takes_part)
                plain[record.event_nid] = [*plain.get(record.event_nid, ()), part]
        nids = {record.event_nid for record in parents}
        return {nid: _encode_parts(parts) for nid, parts in plain.items() if nid in nids}

    def _bundle_related(
        self, txn: ReadTxn, viewer: Viewer, parents: Sequence[EventRecord], frame: Frame
    ) -> dict[int, list[bytes]]:
        """The members of `m.relations` for edits and references, of those events that have any."""
        nids = {record.event_id: record.event_nid for record in parents}
        rows = relations.list_to_bundle(
            txn, viewer.room_nid, nids.keys(), edits=MAX_EDITS, references=MAX_REFERENCES
        )
        if not rows:
            return {}
        children = events.list_events(txn, {nid for _, _, nid in rows})
        visible = self._showing.visible(txn, viewer, children.values())
        edits: dict[int, EventRecord] = {}
        references: defaultdict[int, list[EventRecord]] = defaultdict(list)
        for target, rel_type, nid in rows:
            if nid not in visible:
                continue
            if rel_type != REPLACE:
                references[nids[target]].append(children[nid])
            elif nids[target] not in edits and _has_new_content(children[nid]):
                edits[nids[target]] = children[nid]
        embedded = self._embed(txn, viewer, edits.values(), frame, {})
        parts: defaultdict[int, list[bytes]] = defaultdict(list)
        for parent_nid, edit in edits.items():
            parts[parent_nid].append(b'"m.replace":' + embedded[edit.event_nid])
        for parent_nid, found in references.items():
            parts[parent_nid].append(_encode_references(found))
        return parts

    def _embed(
        self,
        txn: ReadTxn,
        viewer: Viewer,
        records: Collection[EventRecord],
        frame: Frame,
        bundles: Mapping[int, bytes],
    ) -> dict[int, bytes]:
        """Those of the events that are visible, as client events."""
        if not records:
            return {}
        visible = self._showing.visible(txn, viewer, records)
        shown = self._showing.client_events(txn, viewer, visible.values(), frame, bundles)
        return dict(zip(visible, shown, strict=True))


def _list_threads(txn: ReadTxn, viewer: Viewer, parents: Sequence[EventRecord]) -> dict[EventID, Thread]:
    """The threads below these events, as the viewer sees them: who left sees no later replies."""
    ids = [record.event_id for record in parents]
    until, ignored = viewer.standpoint.joined_until, viewer.ignored
    if until == JOINED_NOW and not ignored:
        threads = relations.list_threads_by_root(txn, viewer.room_nid, ids)
    else:
        threads = relations.list_threads_seen(txn, viewer.room_nid, ids, below=until, ignored=ignored)
    if not threads:
        return {}
    # There is no thread below what is itself a child of another event.
    roots = {record.event_nid: record.event_id for record in parents if record.event_id in threads}
    children = {roots[nid] for nid in relations.list_relations_of(txn, roots)}
    return {event_id: thread for event_id, thread in threads.items() if event_id not in children}


def _list_participated(
    txn: ReadTxn, viewer: Viewer, parents: Sequence[EventRecord], threads: Mapping[EventID, Thread]
) -> set[EventID]:
    """The threads that the viewer began or replied in."""
    user_nid = viewer.requester.user_nid
    began = {record.event_id for record in parents if record.sender_nid == user_nid}
    return began | relations.list_participated(txn, threads.keys() - began, user_nid)


def _has_new_content(edit: EventRecord) -> bool:
    """Of an encrypted edit only its readers can tell."""
    return edit.type == _ENCRYPTED or bytes(_EDIT.decode(edit.json).content.new_content).startswith(b"{")


def _encode_references(references: Sequence[EventRecord]) -> bytes:
    chunk = [{"event_id": one.event_id} for one in sorted(references, key=lambda one: one.event_nid)]
    return b'"m.reference":' + orjson.dumps({"chunk": chunk})


def _encode_thread(thread: Thread, latest: bytes, *, takes_part: bool) -> bytes:
    return b'"m.thread":{"count":%d,"current_user_participated":%b,"latest_event":%b}' % (
        thread.reply_count,
        b"true" if takes_part else b"false",
        latest,
    )


def _encode_parts(parts: Sequence[bytes]) -> bytes:
    return b"{%b}" % b",".join(parts)
