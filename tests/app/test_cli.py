"""The command line, as a user types it."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

RANVIER = Path(sys.executable).parent / "ranvier"


def run(*args, cwd, typed="", **environment):
    return subprocess.run(
        [str(RANVIER), *args],
        cwd=cwd,
        env={**os.environ, **environment},
        input=typed,
        capture_output=True,
        text=True,
        timeout=30,
    )


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_init_writes_what_check_accepts(tmp_path):
    made = run("init", "--server-name", "example.org", cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    key = tmp_path / "data" / "signing.key"
    # Passwords may come to stand in the file, too.
    assert (
        stat.S_IMODE(key.stat().st_mode) == stat.S_IMODE((tmp_path / "ranvier.toml").stat().st_mode) == 0o600
    )
    checked = run("check", cwd=tmp_path)
    assert (checked.returncode, checked.stdout) == (0, "everything is fine\n")


def test_init_overwrites_nothing(tmp_path):
    (tmp_path / "ranvier.toml").write_text("mine")
    refused = run("init", cwd=tmp_path)
    assert refused.returncode == 1
    assert (tmp_path / "ranvier.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("serve", "--nonsense"), 2),
        (("nonsense",), 2),
        (("serve", "--server-name", "a b"), 1),
        (("check",), 1),
    ],
)
def test_exit_codes(args, code, tmp_path):
    ended = run(*args, cwd=tmp_path)
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr
    assert ended.stderr


def test_faults_are_one_line_each(tmp_path):
    (tmp_path / "ranvier.toml").write_text('server_nme = "x"')
    ended = run("serve", cwd=tmp_path)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "did you mean server_name?" in ended.stderr


def test_a_port_in_use_is_told_in_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run("serve", "--server-name", "a", "--bind", bind, cwd=tmp_path)
    assert ended.returncode == 1
    assert bind in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_damaged_key_is_told_in_one_line(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "signing.key").write_text("ed25519 a nonsense")
    ended = run("serve", "--server-name", "a", "--bind", "127.0.0.1:0", cwd=tmp_path)
    assert ended.returncode == 1
    assert "signing.key" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_password_may_be_piped_in(tmp_path):
    made = run("user", "add", "bob", cwd=tmp_path, typed="correct horse\nrest", RANVIER__SERVER_NAME="test")
    assert (made.stdout, made.stderr) == ("@bob:test\n", "")
    made = run("user", "add", "eve", cwd=tmp_path, RANVIER__SERVER_NAME="test")
    assert (made.returncode, made.stderr) == (1, "ranvier: A password has at least 8 characters.\n")


def test_accounts_are_administered_without_a_server(tmp_path):
    def user(*args):
        return run("user", *args, cwd=tmp_path, RANVIER__SERVER_NAME="test")

    assert user("add", "alice", "--password", "correct horse").stdout == "@alice:test\n"
    taken = user("add", "alice", "--password", "correct horse")
    assert (taken.returncode, len(taken.stderr.splitlines())) == (1, 1)
    assert user("add", "bob", "--password", "short").returncode == 1
    assert user("promote", "alice").returncode == 0
    assert user("reset-password", "@alice:test", "--password", "another horse").returncode == 0
    assert user("list").stdout == "@alice:test\tadmin\t\n"
    assert user("deactivate", "alice").returncode == 0
    assert user("list").stdout == "@alice:test\tadmin\tdeactivated\n"
    assert user("promote", "nobody").returncode == 1


def test_a_backup_is_a_database_with_the_same_accounts(tmp_path):
    environment = {"RANVIER__SERVER_NAME": "test"}
    run("user", "add", "alice", "--password", "correct horse", cwd=tmp_path, **environment)
    made = run("backup", "copy.db", cwd=tmp_path, **environment)
    assert (made.returncode, made.stdout) == (0, "wrote copy.db\n")
    environment["RANVIER__DATABASE__URL"] = f"sqlite:{tmp_path}/copy.db"
    assert run("user", "list", cwd=tmp_path, **environment).stdout == "@alice:test\tuser\t\n"
    nothing = run("backup", "x.db", cwd=tmp_path, RANVIER__SERVER_NAME="test", RANVIER__DATA_DIR="elsewhere")
    assert (nothing.returncode, len(nothing.stderr.splitlines())) == (1, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_answers_until_it_is_told_to_stop(number, tmp_path):
    port = free_port()
    process = subprocess.Popen(
        [str(RANVIER), "serve", "--server-name", "localhost", "--bind", f"127.0.0.1:{port}"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    )
    try:
        assert b'"versions"' in wait_for(f"http://127.0.0.1:{port}/_matrix/client/versions")
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 0
    assert b"Traceback" not in errors


def wait_for(url):
    deadline = time.monotonic() + 15
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
