import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.server_acl import parse_server_acl

json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("content", "server", "allowed"),
    [
        # 5. Otherwise, deny: also what is missing, or broken.
        ({}, "a.org", False),
        ({"allow": "*"}, "a.org", False),
        ({"allow": [1, None, ["*"]]}, "a.org", False),
        ({"allow": ["*"]}, "a.org", True),
        # 3. before 4.
        ({"allow": ["*"], "deny": ["evil.com"]}, "evil.com", False),
        ({"allow": ["evil.com"], "deny": ["*.com"]}, "evil.com", False),
        ({"allow": ["*"], "deny": ["*.evil.com"]}, "evil.com", True),
        ({"allow": ["*"], "deny": ["*.evil.com"]}, "a.b.evil.com", False),
        ({"allow": ["*"], "deny": ["*.evil.com", 5]}, "x.evil.com", False),
        ({"allow": ["?.org"]}, "a.org", True),
        ({"allow": ["?.org"]}, "ab.org", False),
        ({"allow": ["*"], "deny": ["*evil*"]}, "notevil.org", False),
        # A dot is a dot.
        ({"allow": ["a.org"]}, "axorg", False),
        # Upper and lower case are the same (MSC4436).
        ({"allow": ["*"], "deny": ["EVIL.com"]}, "eViL.COM", False),
        # The port does not count.
        ({"allow": ["*"], "deny": ["evil.com"]}, "evil.com:8448", False),
        ({"allow": ["*"], "deny": ["evil.com:8448"]}, "evil.com:8448", True),
        # 2. IP literals, only if allow_ip_literals is false itself.
        ({"allow": ["*"], "allow_ip_literals": False}, "1.2.3.4", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "1.2.3.4:80", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "[::1]:80", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "[2001:DB8::1]", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "1.2.3.4.example.org", True),
        ({"allow": ["*"], "allow_ip_literals": True}, "1.2.3.4", True),
        ({"allow": ["*"], "allow_ip_literals": 0}, "1.2.3.4", True),
        ({"allow": ["*"]}, "[::1]", True),
        ({"allow": ["*"], "deny": ["[::1]"]}, "[::1]:8448", False),
    ],
)
def test_rules(content, server, allowed):
    assert parse_server_acl(content).allows(server) is allowed


@given(st.dictionaries(st.sampled_from(["allow", "deny", "allow_ip_literals"]), json), st.text(max_size=20))
@settings(max_examples=200)
def test_never_raises(content, server):
    assert parse_server_acl(content).allows(server) in (True, False)
