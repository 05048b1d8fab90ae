"""What mails say, and what the administrator's templates may make of it."""

from pathlib import Path
from typing import Any

import pytest

from ranvier.app.config_load import ConfigFaults, load_config
from ranvier.core.identifiers import ServerName
from ranvier.services.mail_texts import (
    CONFIRM_ADDRESS,
    NEW_PASSWORD,
    UNKNOWN_ADDRESS,
    UNREAD,
    MailTexts,
    find_template_faults,
)

SERVER = ServerName("example.org")
LINK = "https://matrix.example.org/?a=1&b=2"
VALUES: dict[str, dict[str, Any]] = {
    CONFIRM_ADDRESS: {"link": LINK},
    NEW_PASSWORD: {"link": LINK},
    UNKNOWN_ADDRESS: {},
    UNREAD: {
        "new": 2,
        "unread": 3,
        "rooms": [
            {"name": "R & <b>D", "lines": [{"sender": "Al", "text": ": {{ 1 + 1 }} <i>"}]},
            {"name": "Two", "lines": []},
        ],
        "link": LINK,
    },
}


def write(directory: Path | None, name: str) -> Any:
    return MailTexts(SERVER, directory).write(name, "al@example.org", VALUES[name])


@pytest.mark.parametrize("name", VALUES)
def test_every_mail_says_of_which_server_it_is_in_both_forms(name: str) -> None:
    mail = write(None, name)
    assert SERVER in mail.subject
    assert SERVER in mail.text
    assert SERVER in mail.html
    if "link" in VALUES[name]:
        assert LINK in mail.text.splitlines()
        assert f'href="{LINK.replace("&", "&amp;")}"' in mail.html


def test_others_words_are_text() -> None:
    mail = write(None, UNREAD)
    assert mail.text == (
        "2 new messages on example.org; 3 messages unread in all.\n\nR & <b>D\n  Al: {{ 1 + 1 }} <i>\n\nTwo\n\n"
        f"No more mails like this one:\n{LINK}\n"
    )
    assert "R &amp; &lt;b&gt;D" in mail.html
    assert "<b>Al</b>: {{ 1 + 1 }} &lt;i&gt;" in mail.html


def test_the_administrators_templates_come_first(tmp_path: Path) -> None:
    (tmp_path / "confirm_address.txt").write_text("Subject:  Bitte  bestätigen: {{ server }}\n\n{{ link }}\n")
    (tmp_path / "confirm_address.html").write_text("<p>{{ link }} ä</p>")
    (tmp_path / "new_password.txt").write_text("Subject: Neues Kennwort\n{{ link }}")
    assert list(find_template_faults(tmp_path)) == []
    mail = write(tmp_path, CONFIRM_ADDRESS)
    assert (mail.subject, mail.text) == ("Bitte bestätigen: example.org", f"{LINK}\n")
    assert mail.html == f"<p>{LINK.replace('&', '&amp;')} ä</p>"
    # Plain text alone, not beside HTML in another language.
    assert write(tmp_path, NEW_PASSWORD).html is None
    assert "no account there" in write(tmp_path, UNKNOWN_ADDRESS).html


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("confirm_address.txt", "No subject\n{{ link }}", "first line"),
        ("confirm_address.txt", "Subject: \n{{ link }}", "first line"),
        ("confirm_address.txt", "", "first line"),
        ("confirm_address.txt", "Subject: a\n{{ nothing }}", "'nothing' is undefined"),
        ("confirm_address.txt", "Subject: a\n{% if %}", "line 2"),
        ("confirm_address.txt", "Subject: a\n{{ link / 0 }}", "unsupported operand"),
        ("confirm_address.html", "<p>", "needs confirm_address.txt"),
        ("confirm.txt", "Subject: a", "the template of no mail"),
    ],
)
def test_mistakes_in_them_are_found_before_a_mail_is_sent(
    tmp_path: Path, file: str, text: str, words: str
) -> None:
    (tmp_path / file).write_text(text)
    (fault,) = find_template_faults(tmp_path)
    assert words in fault
    settings = {"server_name": "example.org", "mail": {"templates": str(tmp_path)}}
    with pytest.raises(ConfigFaults) as error:
        load_config(None, {}, settings, directory=tmp_path)
    assert error.value.faults == [f"mail.templates: {fault}"]


def test_a_file_that_is_no_text_and_a_directory_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "unread.txt").write_bytes(b"Subject: \xff")
    assert len(list(find_template_faults(tmp_path))) == 1
    assert list(find_template_faults(tmp_path / "none")) == [f"there is no directory {tmp_path / 'none'}"]


def test_a_template_that_fails_on_some_values_costs_nobody_a_mail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "unread.txt").write_text("Subject: News\n{{ 1 // (new - 2) }}")
    assert list(find_template_faults(tmp_path)) == []
    assert write(tmp_path, UNREAD).subject == "3 unread messages on example.org"
    assert "mail.templates: unread" in caplog.text
