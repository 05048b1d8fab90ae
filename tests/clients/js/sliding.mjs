// Two people chat; one of them looks at it through matrix-js-sdk's sliding sync. Usage: node sliding.mjs BASE_URL
// Prints "DONE" when all is well.
import assert from "node:assert/strict";
import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";
import { SlidingSync } from "matrix-js-sdk/lib/sliding-sync.js";

// The SDK uses what Node has from version 22 on; 20 is common still.
Promise.withResolvers ??= function () {
    let resolve, reject;
    const promise = new Promise((...callbacks) => ([resolve, reject] = callbacks));
    return { promise, resolve, reject };
};

logger.setLevel("error");
const baseUrl = process.argv[2];
const ROOMS = 30;
const MESSAGES = 60;

async function signUp(name) {
    const session = await sdk.createClient({ baseUrl }).registerRequest({
        username: name,
        password: "correct horse battery",
        auth: { type: "m.login.dummy" },
    });
    return sdk.createClient({
        baseUrl,
        accessToken: session.access_token,
        userId: session.user_id,
        deviceId: session.device_id,
        timelineSupport: true,
    });
}

async function until(condition, seconds = 30) {
    const deadline = Date.now() + seconds * 1000;
    while (!condition()) {
        if (Date.now() > deadline) throw new Error(`waited in vain for ${condition}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}

const texts = (room) =>
    room
        .getLiveTimeline()
        .getEvents()
        .filter((event) => event.getType() === "m.room.message")
        .map((event) => event.getContent().body);

const alice = await signUp("alice");
const bob = await signUp("bob");
const rooms = [];
for (let n = 0; n < ROOMS; n++) {
    const { room_id } = await alice.createRoom({ name: `Room ${n}`, preset: "public_chat" });
    rooms.push(room_id);
}
const [oldest] = rooms;
await bob.joinRoom(oldest);

const state = [
    ["m.room.create", ""],
    ["m.room.name", ""],
    ["m.room.member", "$LAZY"],
    ["m.room.member", "$ME"],
];
const lists = new Map([["all", { ranges: [[0, 9]], required_state: state, timeline_limit: 1 }]]);
const subscription = { required_state: [["*", "*"]], timeline_limit: 20 };
const sliding = new SlidingSync(baseUrl, lists, subscription, alice, 5000);
await alice.startClient({ slidingSync: sliding });

// The first window, then all of the list.
await until(() => alice.getRooms().length === 10 + 1 || alice.getRooms().length === 10);
assert.equal(sliding.getListData("all").joinedCount, ROOMS);
sliding.setListRanges("all", [[0, ROOMS - 1]]);
await until(() => alice.getRooms().length === ROOMS);
for (const [n, room_id] of rooms.entries()) {
    assert.equal(alice.getRoom(room_id).name, `Room ${n}`);
    assert.equal(alice.getRoom(room_id).getMyMembership(), "join");
}

// A room that is opened gets its state and history.
sliding.modifyRoomSubscriptions(new Set([oldest]));
const room = alice.getRoom(oldest);
await until(() => room.currentState.getStateEvents("m.room.power_levels", ""));

// Messages, typing and receipts of the other one arrive while the SDK waits.
for (let n = 0; n < MESSAGES; n++) await bob.sendTextMessage(oldest, `message ${n}`);
await until(() => texts(room).at(-1) === `message ${MESSAGES - 1}`);
const { event_id } = await alice.sendTextMessage(oldest, "hello");
await until(() => texts(room).at(-1) === "hello");
assert.equal(new Set(texts(room)).size, texts(room).length, "nothing is shown twice");
await bob.sendTyping(oldest, true, 10000);
await until(() => room.getMember(bob.getUserId())?.typing);
await bob.setRoomReadMarkers(oldest, event_id);
await bob.http.authedRequest(
    "POST",
    `/rooms/${encodeURIComponent(oldest)}/receipt/m.read/${encodeURIComponent(event_id)}`,
    undefined,
    {},
);
await until(() => room.hasUserReadEvent(bob.getUserId(), event_id));

// Account data and messages to the device.
await alice.setAccountData("test.thing", { n: 1 });
await until(() => alice.getAccountData("test.thing")?.getContent().n === 1);
let received = null;
alice.on("toDeviceEvent", (event) => (received = event));
const content = new Map([[alice.getUserId(), new Map([[alice.getDeviceId(), { hello: "you" }]])]]);
await bob.sendToDevice("test.message", content);
await until(() => received?.getType() === "test.message");

// Being invited, and coming in.
const { room_id: invited } = await bob.createRoom({ name: "Den", invite: [alice.getUserId()] });
await until(() => alice.getRoom(invited)?.getMyMembership() === "invite");
await alice.joinRoom(invited);
await until(() => alice.getRoom(invited)?.getMyMembership() === "join");
await bob.sendTextMessage(invited, "welcome");
await until(() => texts(alice.getRoom(invited)).includes("welcome"));

alice.stopClient();
console.log("DONE");
process.exit(0);
