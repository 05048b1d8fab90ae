// Two people chat through matrix-js-sdk. Usage: node chat.mjs BASE_URL
// Prints "PAUSE" and waits for a line on stdin in the middle; prints "DONE" when all is well.
import assert from "node:assert/strict";
import readline from "node:readline";
import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";

// The SDK uses what Node has from version 22 on; 20 is common still.
Promise.withResolvers ??= function () {
    let resolve, reject;
    const promise = new Promise((...callbacks) => ([resolve, reject] = callbacks));
    return { promise, resolve, reject };
};

logger.setLevel("error");
const baseUrl = process.argv[2];
const MESSAGES = 500;

async function signUp(name) {
    const anonymous = sdk.createClient({ baseUrl });
    const session = await anonymous.registerRequest({
        username: name,
        password: "correct horse battery",
        auth: { type: "m.login.dummy" },
    });
    const client = sdk.createClient({
        baseUrl,
        accessToken: session.access_token,
        userId: session.user_id,
        deviceId: session.device_id,
        timelineSupport: true,
    });
    await client.startClient({ initialSyncLimit: 20, lazyLoadMembers: true });
    await until(client, "sync", () => client.isInitialSyncComplete());
    return client;
}

// Resolves when the condition holds, looking again at each event of the kind.
function until(client, kind, condition, seconds = 30) {
    return new Promise((resolve, reject) => {
        const give_up = setTimeout(() => {
            client.off(kind, look);
            reject(new Error(`waited in vain for ${condition}`));
        }, seconds * 1000);
        function look() {
            if (!condition()) return;
            clearTimeout(give_up);
            client.off(kind, look);
            resolve();
        }
        client.on(kind, look);
        look();
    });
}

const texts = (room) =>
    room
        .getLiveTimeline()
        .getEvents()
        .filter((event) => event.getType() === "m.room.message")
        .map((event) => event.getContent().body);

const alice = await signUp("alice");
const bob = await signUp("bob");

const { room_id } = await alice.createRoom({ name: "Tea", invite: [bob.getUserId()], preset: "private_chat" });
await until(bob, "Room", () => bob.getRoom(room_id)?.getMyMembership() === "invite");
await bob.joinRoom(room_id);
await until(bob, "Room.myMembership", () => bob.getRoom(room_id)?.getMyMembership() === "join");
await until(alice, "RoomState.members", () => alice.getRoom(room_id)?.getMember(bob.getUserId())?.membership === "join");
await until(bob, "Room.name", () => bob.getRoom(room_id).name === "Tea");

// Typing and receipts reach the other one.
await bob.sendTyping(room_id, true, 10000);
await until(alice, "RoomMember.typing", () => alice.getRoom(room_id).getMember(bob.getUserId())?.typing);
const { event_id } = await alice.sendTextMessage(room_id, "hello");
await until(bob, "Room.timeline", () => texts(bob.getRoom(room_id)).includes("hello"));
await bob.sendReadReceipt(bob.getRoom(room_id).findEventById(event_id));
await until(alice, "Room.receipt", () => alice.getRoom(room_id).hasUserReadEvent(bob.getUserId(), event_id));

for (let start = 0; start < MESSAGES; start += 25) {
    await Promise.all(
        Array.from({ length: 25 }, (_, n) => alice.sendTextMessage(room_id, `message ${start + n}`)),
    );
}
await until(bob, "Room.timeline", () => texts(bob.getRoom(room_id)).includes(`message ${MESSAGES - 1}`));

console.log("PAUSE");
const lines = readline.createInterface({ input: process.stdin });
await new Promise((resolve) => lines.once("line", resolve));
lines.close();

await bob.sendTextMessage(room_id, "after the restart");
await until(alice, "Room.timeline", () => texts(alice.getRoom(room_id)).includes("after the restart"));

// Someone new on the same account reads everything back, once each.
const login = await sdk.createClient({ baseUrl }).loginRequest({
    type: "m.login.password",
    identifier: { type: "m.id.user", user: "bob" },
    password: "correct horse battery",
});
const again = sdk.createClient({
    baseUrl,
    accessToken: login.access_token,
    userId: login.user_id,
    deviceId: login.device_id,
    timelineSupport: true,
});
await again.startClient({ initialSyncLimit: 7, lazyLoadMembers: true });
await until(again, "sync", () => again.isInitialSyncComplete() && again.getRoom(room_id));
const room = again.getRoom(room_id);
while (room.oldState.paginationToken) await again.scrollback(room, 41);
const expected = ["hello", "after the restart", ...Array.from({ length: MESSAGES }, (_, n) => `message ${n}`)];
assert.deepEqual(texts(room).sort(), expected.sort());

// The filter that the SDK uploaded is the one it gets back.
const filter_id = await alice.getOrCreateFilter("FILTER", new sdk.Filter(alice.getUserId()));
assert.equal(await alice.getOrCreateFilter("FILTER", new sdk.Filter(alice.getUserId())), filter_id);

for (const client of [alice, bob, again]) client.stopClient();
console.log("DONE");
process.exit(0);
