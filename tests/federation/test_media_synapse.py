"""Media between this server and a running Synapse, over HTTPS on loopback. Skipped where Synapse is not installed."""

import io

from PIL import Image

from ..http.test_media import V1, V3, picture
from .test_synapse import Person, people, pytestmark

__all__ = ["people", "pytestmark"]


async def test_files_and_thumbnails_both_ways(people: tuple[Person, Person]) -> None:
    for owner, guest in (people, people[::-1]):
        url = f"http://127.0.0.1:{owner.server.client_port}{V3}/upload?filename=t%E2%98%95.png"
        headers = {"Authorization": f"Bearer {owner.token}", "Content-Type": "image/png"}
        async with owner.session.post(url, data=picture(900, 450), headers=headers) as response:
            place = (await response.json())["content_uri"].removeprefix("mxc://")
        status, disposition, body = await fetch(guest, f"{V1}/download/{place}")
        assert (status, body) == (200, picture(900, 450))
        assert "%E2%98%95" in disposition
        status, _, body = await fetch(guest, f"{V1}/thumbnail/{place}?width=320&height=240&method=scale")
        assert status == 200
        assert Image.open(io.BytesIO(body)).size == (320, 160)
        missing, _, _ = await fetch(guest, f"{V1}/download/{owner.server.name}/nothing")
        assert missing == 404


async def fetch(person: Person, path: str) -> tuple[int, str, bytes]:
    """Status, Content-Disposition and body."""
    url = f"http://127.0.0.1:{person.server.client_port}{path}"
    async with person.session.get(url, headers={"Authorization": f"Bearer {person.token}"}) as response:
        return response.status, response.headers.get("Content-Disposition", ""), await response.read()
