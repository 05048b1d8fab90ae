"""The federation of August 2014: contexts, PDUs, EDUs and queries, without signatures. docs/federation-2014.md
tells the protocol, docs/adr/0009-federation-2014.md how it is bridged to the rooms of today.
"""
