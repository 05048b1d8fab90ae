"""Which relations between events a server does not let its clients make.

Spec: client-server API, "Avoiding duplicate annotations", "Validation of m.thread relationships".
"""

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import DuplicateAnnotation, MatrixError
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events, relations
from ranvier.store.tables.relations import ANNOTATION, THREAD


def check_relation(
    txn: ReadTxn, room_nid: int, sender_nid: int, event_type: str, content: JsonObject
) -> None:
    """Whether a user may send an event with this content, for what it relates to.

    Raises: DuplicateAnnotation; MatrixError (M_UNKNOWN) for a thread below what is itself a child.
    """
    relation = relations.relation_in(content)
    if relation is None:
        return
    if relation.rel_type == ANNOTATION and relation.aggregation_key is not None:
        if relations.is_annotated(txn, room_nid, relation, event_type, sender_nid):
            raise DuplicateAnnotation("You have annotated this event in this way already.")
    elif relation.rel_type == THREAD:
        known = events.list_known(txn, (relation.target_event_id,)).get(relation.target_event_id)
        if known is not None and relations.list_relations_of(txn, (known.event_nid,)):
            raise MatrixError("A thread cannot begin at an event that relates to another one.")
