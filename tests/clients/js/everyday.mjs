// What two people do all day, through matrix-js-sdk; no request may get an answer that its author did not expect.
// Usage: node everyday.mjs BASE_URL. Prints "DONE" when all is well.
import assert from "node:assert/strict";
import { deflateSync } from "node:zlib";
import { until, bodies, signUp, authorized } from "./people.mjs";

const baseUrl = process.argv[2];

// Refusals that are answers: there is no backup yet; ending a session takes the password.
const EXPECTED = [
    ["GET", "/room_keys/version", 404],
    ["DELETE", "/devices/", 401],
];
const requests = [];
const fetchIt = globalThis.fetch;
globalThis.fetch = async (resource, options) => {
    const answer = await fetchIt(resource, options);
    const { pathname } = new URL(resource);
    requests.push({ method: options?.method ?? "GET", path: pathname, status: answer.status });
    return answer;
};
const surprises = () =>
    requests.filter(
        ({ method, path, status }) =>
            status >= 400 &&
            !EXPECTED.some(([verb, part, code]) => verb === method && path.includes(part) && code === status),
    );

const CRCS = Uint32Array.from({ length: 256 }, (_, n) => {
    for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
    return n;
});
const crc = (bytes) => ~bytes.reduce((sum, byte) => CRCS[(sum ^ byte) & 0xff] ^ (sum >>> 8), ~0) >>> 0;

// A picture of one color, as a PNG.
function picture(width, height, color) {
    const chunk = (type, data) => {
        const body = Buffer.concat([Buffer.from(type), data]);
        const numbers = Buffer.alloc(8);
        numbers.writeUInt32BE(data.length, 0);
        numbers.writeUInt32BE(crc(body), 4);
        return Buffer.concat([numbers.subarray(0, 4), body, numbers.subarray(4)]);
    };
    const header = Buffer.alloc(13);
    header.writeUInt32BE(width, 0);
    header.writeUInt32BE(height, 4);
    header.set([8, 2, 0, 0, 0], 8);
    const row = Buffer.concat([Buffer.from([0]), Buffer.concat(Array(width).fill(Buffer.from(color)))]);
    const pixels = deflateSync(Buffer.concat(Array(height).fill(row)));
    return Buffer.concat([
        Buffer.from("\x89PNG\r\n\x1a\n", "latin1"),
        ...[chunk("IHDR", header), chunk("IDAT", pixels), chunk("IEND", Buffer.alloc(0))],
    ]);
}

async function download(client, url) {
    const answer = await fetch(url, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
    assert.equal(answer.status, 200, url);
    return { type: answer.headers.get("content-type"), bytes: Buffer.from(await answer.arrayBuffer()) };
}

const message = (body) => ({ msgtype: "m.text", body, "m.mentions": {} });
const heard = (client, roomId, body) =>
    until(`${client.getUserId()} hears ${body}`, () => bodies(client, roomId).includes(body));
const event = (client, roomId, eventId) => client.getRoom(roomId)?.findEventById(eventId);

const alice = await signUp(baseUrl, "alice", { threadSupport: true });
const bob = await signUp(baseUrl, "bob", { threadSupport: true });
const [ALICE, BOB] = [alice.getUserId(), bob.getUserId()];

// A room in the directory, an invitation, a chat both ways.
const { room_id: tea } = await alice.createRoom({
    name: "Tea house",
    topic: "Leaves and water",
    room_alias_name: "tea",
    visibility: "public",
    preset: "public_chat",
    invite: [BOB],
});
await until("the invitation", () => bob.getRoom(tea)?.getMyMembership() === "invite");
assert.equal(bob.getRoom(tea).name, "Tea house");
await bob.joinRoom(tea);
await until("both are in", () =>
    [alice, bob].every((client) => client.getRoom(tea)?.getJoinedMemberCount() === 2),
);
const { event_id: hello } = await alice.sendEvent(tea, "m.room.message", message("good morning"));
await heard(bob, tea, "good morning");
await bob.sendEvent(tea, "m.room.message", message("and to you"));
await heard(alice, tea, "and to you");

// What is unread is counted, a mention more loudly, until it is read.
const mention = { ...message("bob, milk?"), "m.mentions": { user_ids: [BOB] } };
const { event_id: milk } = await alice.sendEvent(tea, "m.room.message", mention);
const unread = (kind) => bob.getRoom(tea).getUnreadNotificationCount(kind);
await until("two are unread", () => unread("total") >= 1 && unread("highlight") === 1);
await until("the mention is there", () => event(bob, tea, milk));
await bob.sendReadReceipt(event(bob, tea, milk));
await until("none is unread", () => unread("total") === 0 && unread("highlight") === 0);
await until("alice sees that", () => alice.getRoom(tea).hasUserReadEvent(BOB, milk));
await bob.sendTyping(tea, true, 20000);
await until("bob types", () => alice.getRoom(tea).getMember(BOB)?.typing);
await bob.sendTyping(tea, false, 0);
await until("bob types no more", () => !alice.getRoom(tea).getMember(BOB).typing);

// A picture, whole and small; nobody without an account gets it.
const png = picture(640, 480, [30, 120, 90]);
const { content_uri } = await alice.uploadContent(png, { type: "image/png", name: "leaf.png" });
const info = { w: 640, h: 480, mimetype: "image/png", size: png.length };
await alice.sendEvent(tea, "m.room.message", { msgtype: "m.image", body: "leaf.png", url: content_uri, info });
await heard(bob, tea, "leaf.png");
const url = (...size) => bob.mxcUrlToHttp(content_uri, ...size, ...Array(3 - size.length), false, true, true);
const whole = await download(bob, url());
assert.equal(whole.type, "image/png");
assert.ok(whole.bytes.equals(png), "the picture comes back as it was sent");
for (const [width, height, method] of [
    [32, 32, "crop"],
    [320, 240, "scale"],
]) {
    const small = await download(bob, url(width, height, method));
    assert.match(small.type, /^image\//);
    assert.ok(small.bytes.length > 0);
}
assert.equal((await fetchIt(url())).status, 401);

// Reaction, edit, redaction.
const annotation = { rel_type: "m.annotation", event_id: hello, key: "🍵" };
const { event_id: cup } = await bob.sendEvent(tea, "m.reaction", { "m.relates_to": annotation });
const cups = (client) =>
    client.getRoom(tea).relations.getChildEventsForEvent(hello, "m.annotation", "m.reaction")?.getRelations() ?? [];
await until("alice sees the reaction", () => cups(alice).length === 1);
const edit = {
    ...message("* good evening"),
    "m.new_content": message("good evening"),
    "m.relates_to": { rel_type: "m.replace", event_id: hello },
};
await alice.sendEvent(tea, "m.room.message", edit);
await until("bob sees the edit", () => event(bob, tea, hello)?.replacingEvent());
assert.equal(event(bob, tea, hello).getContent().body, "good evening");
const { event_id: slip } = await alice.sendEvent(tea, "m.room.message", message("a slip"));
await heard(bob, tea, "a slip");
await alice.redactEvent(tea, slip, undefined, { reason: "never said" });
await until("it is gone", () => event(bob, tea, slip)?.isRedacted());
await bob.redactEvent(tea, cup);
await until("the reaction is gone", () => cups(alice).length === 0);

// A thread with counts and receipts of its own.
const replies = ["oat", "soy", "neither"];
const root = event(alice, tea, milk);
alice.getRoom(tea).createThread(milk, root, [root], true); // as a person who opens it does
let last;
for (const body of replies) ({ event_id: last } = await alice.sendEvent(tea, milk, "m.room.message", message(body)));
const thread = () => bob.getRoom(tea).getThread(milk);
await until("the thread is there", () => thread()?.length === 3 && thread().findEventById(last));
const inThreadUnread = () => bob.getRoom(tea).getThreadUnreadNotificationCount(milk, "total");
await until("three are unread in the thread", () => inThreadUnread() === 3);
assert.equal(unread("total"), 3, "and in the room as a whole");
await bob.sendReadReceipt(thread().findEventById(last));
await until("the thread is read", () => inThreadUnread() === 0);
await until("alice sees that, too", () => alice.getRoom(tea).getThread(milk)?.hasUserReadEvent(BOB, last));
const related = await bob.relations(tea, milk, "m.thread", "m.room.message", { limit: 10 });
assert.deepEqual(related.events.map((found) => found.getContent().body).sort(), [...replies].sort());
await bob.getRoom(tea).createThreadsTimelineSets();
await bob.getRoom(tea).fetchRoomThreads();
assert.deepEqual(bob.getRoom(tea).getThreads().map((found) => found.id), [milk]);

// Alice changes her name and her picture; bob sees both, and finds her by the new name.
await alice.setDisplayName("Alice of the Teas");
await alice.setAvatarUrl(content_uri);
const member = () => bob.getRoom(tea).getMember(ALICE);
await until("the profile", () => member().name === "Alice of the Teas" && member().getMxcAvatarUrl() === content_uri);
assert.deepEqual(await bob.getProfileInfo(ALICE), { displayname: "Alice of the Teas", avatar_url: content_uri });
const people = async () => (await bob.searchUserDirectory({ term: "teas" })).results.map((found) => found.user_id);
await until("she is found", async () => (await people()).includes(ALICE));

// The directory of rooms, messages that are searched for, a day that is jumped to.
const listed = await bob.publicRooms({ limit: 10, filter: { generic_search_term: "house" } });
assert.deepEqual(
    listed.chunk.map((room) => [room.room_id, room.canonical_alias, room.num_joined_members]),
    [[tea, "#tea:localhost", 2]],
);
assert.equal((await bob.getRoomSummary("#tea:localhost")).membership, "join");
const search = { term: "neither", filter: { rooms: [tea] } };
const results = async () => (await bob.searchRoomEvents(search)).results;
await until("it is found", async () => (await results()).length === 1);
assert.equal((await bob.timestampToEvent(tea, Date.now(), "b")).event_id !== undefined, true);

// A space and what is in it.
const { room_id: house } = await alice.createRoom({
    name: "House",
    preset: "public_chat",
    creation_content: { type: "m.space" },
    invite: [BOB],
});
await alice.sendStateEvent(house, "m.space.child", { via: ["localhost"], suggested: true }, tea);
await alice.sendStateEvent(tea, "m.space.parent", { via: ["localhost"], canonical: true }, house);
await until("the space is there", () => bob.getRoom(house)?.isSpaceRoom());
await bob.joinRoom(house);
const { rooms } = await bob.getRoomHierarchy(house, 20);
assert.deepEqual(
    rooms.map((room) => [room.room_id, room.name, room.children_state.length]),
    [
        [house, "House", 1],
        [tea, "Tea house", 0],
    ],
);

// The room is upgraded: the alias, the space and the people follow.
const { replacement_room: salon } = await alice.upgradeRoom(tea, "12");
await until("bob is shown the way", () => {
    const tombstone = bob.getRoom(tea).currentState.getStateEvents("m.room.tombstone", "");
    return tombstone?.getContent().replacement_room === salon;
});
await bob.joinRoom(salon);
await until("bob is in", () => bob.getRoom(salon)?.getMyMembership() === "join" && bob.getRoom(salon).getVersion() === "12");
assert.equal(bob.getRoom(salon).name, "Tea house");
assert.equal((await bob.getRoomIdForAlias("#tea:localhost")).room_id, salon);
await bob.sendEvent(salon, "m.room.message", message("nice here"));
await heard(alice, salon, "nice here");

// Settings: tags, rules, ignored people, sessions, a password.
await bob.setRoomTag(salon, "m.favourite", { order: 0.5 });
await until("the tag", () => bob.getRoom(salon).tags["m.favourite"]);
await bob.setRoomMutePushRule("global", salon, true);
await until("the rule", () => bob.getRoomPushRule("global", salon) ?? bob.pushRules?.global.override?.some((rule) => rule.rule_id === salon));
await bob.setIgnoredUsers([ALICE]);
await until("alice is ignored", () => bob.isUserIgnored(ALICE));
await bob.setIgnoredUsers([]);
await bob.setPresence({ presence: "unavailable", status_msg: "brewing" });
await until("the presence", () => alice.getUser(BOB)?.presenceStatusMsg === "brewing");
const phone = await signUp(baseUrl, "carol");
await phone.setDisplayName("Carol");
const { devices } = await bob.getDevices();
assert.deepEqual(devices.map((device) => device.device_id), [bob.getDeviceId()]);
const tablet = await bob.loginRequest({
    type: "m.login.password",
    identifier: { type: "m.id.user", user: "bob" },
    password: "correct horse battery",
    initial_device_display_name: "Tablet",
});
assert.equal((await bob.getDevices()).devices.length, 2);
await authorized(BOB)((auth) => bob.deleteDevice(tablet.device_id, auth));
assert.equal((await bob.getDevices()).devices.length, 1);
await bob.getThreePids();
await bob.turnServer();
await bob.getMediaConfig(true);

// Leaving, forgetting, logging out.
await bob.leave(tea);
await until("bob has left", () => alice.getRoom(tea).getMember(BOB)?.membership === "leave");
await bob.forget(tea);
for (const client of [alice, bob, phone]) {
    client.stopClient();
    await client.logout(true);
}
assert.deepEqual(surprises(), []);
assert.ok(requests.length > 100, `${requests.length} requests were watched`);
console.log("DONE");
process.exit(0);
