// Two people chat encrypted through matrix-js-sdk and its Rust crypto. Usage: node encrypted.mjs BASE_URL
// Prints "DONE" when all is well.
import assert from "node:assert/strict";
import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";

logger.setLevel("error");
// Node has it from version 22 on.
Promise.withResolvers ??= () => {
    const made = {};
    made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
    return made;
};
const baseUrl = process.argv[2];
const password = "correct horse battery";

async function start(session, options = {}) {
    const client = sdk.createClient({
        baseUrl,
        accessToken: session.access_token,
        userId: session.user_id,
        deviceId: session.device_id,
        timelineSupport: true,
        ...options,
    });
    await client.initRustCrypto({ useIndexedDB: false });
    await client.startClient({ initialSyncLimit: 20 });
    await until(client, "sync", () => client.isInitialSyncComplete());
    return client;
}

async function signUp(name, options) {
    const session = await sdk.createClient({ baseUrl }).registerRequest({
        username: name,
        password,
        auth: { type: "m.login.dummy" },
    });
    return start(session, options);
}

// Resolves when the condition holds, looking again at each event of the kind and now and then.
function until(client, kind, condition, seconds = 40) {
    return new Promise((resolve, reject) => {
        const look = async () => {
            if (!(await condition())) return;
            end();
            resolve();
        };
        const again = setInterval(look, 100);
        const give_up = setTimeout(() => {
            end();
            reject(new Error(`waited in vain for ${condition}`));
        }, seconds * 1000);
        const end = () => {
            clearInterval(again);
            clearTimeout(give_up);
            client.off(kind, look);
        };
        client.on(kind, look);
        look();
    });
}

const bodies = (client, roomId) =>
    (client.getRoom(roomId)?.getLiveTimeline().getEvents() ?? [])
        .filter((event) => event.getType() === "m.room.message")
        .map((event) => event.getContent().body);

// What is kept in secret storage is unlocked by one key, which a person would write down.
const storage = {};
const callbacks = {
    getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], storage.key],
    cacheSecretStorageKey: () => {},
};
const authorize = (userId) => async (request) => {
    try {
        return await request(null);
    } catch (error) {
        const session = error.data?.session;
        return request({
            type: "m.login.password",
            session,
            identifier: { type: "m.id.user", user: userId },
            password,
        });
    }
};

const alice = await signUp("alice", { cryptoCallbacks: callbacks });
const bob = await signUp("bob");

// Alice sets up cross-signing, secret storage and a key backup.
await alice.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: authorize(alice.getUserId()) });
await alice.getCrypto().bootstrapSecretStorage({
    createSecretStorageKey: async () => {
        const made = await alice.getCrypto().createRecoveryKeyFromPassphrase();
        storage.key = made.privateKey;
        return made;
    },
    setupNewKeyBackup: true,
});
assert.ok(await alice.getCrypto().isCrossSigningReady(), "alice's identity is published and signed");
const own = await alice.getCrypto().getDeviceVerificationStatus(alice.getUserId(), alice.getDeviceId());
assert.ok(own.crossSigningVerified, "alice's device is signed by her self-signing key");

const { room_id } = await alice.createRoom({
    name: "Secret tea",
    invite: [bob.getUserId()],
    preset: "private_chat",
    initial_state: [
        { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } },
    ],
});
await until(bob, "Room", () => bob.getRoom(room_id)?.getMyMembership() === "invite");
await bob.joinRoom(room_id);
await until(alice, "RoomState.members", () => alice.getRoom(room_id)?.getMember(bob.getUserId())?.membership === "join");
await until(bob, "Room.myMembership", () => bob.getRoom(room_id)?.getMyMembership() === "join");

// Both ways, and the server sees nothing of it.
const { event_id } = await alice.sendTextMessage(room_id, "hello, encrypted");
await until(bob, "Event.decrypted", () => bodies(bob, room_id).includes("hello, encrypted"));
const raw = await bob.fetchRoomEvent(room_id, event_id);
assert.equal(raw.type, "m.room.encrypted");
await bob.sendTextMessage(room_id, "hello, alice");
await until(alice, "Event.decrypted", () => bodies(alice, room_id).includes("hello, alice"));

// A device that bob adds later hears what is said from then on.
const login = (user) =>
    sdk.createClient({ baseUrl }).loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user },
        password,
    });
const tablet = await start(await login("bob"));
await until(alice, "crypto.devicesUpdated", async () => {
    const devices = await alice.getCrypto().getUserDeviceInfo([bob.getUserId()], true);
    return devices.get(bob.getUserId())?.size === 2;
});
await alice.sendTextMessage(room_id, "for both of your devices");
await until(tablet, "Event.decrypted", () => bodies(tablet, room_id).includes("for both of your devices"));
await until(bob, "Event.decrypted", () => bodies(bob, room_id).includes("for both of your devices"));

// Alice's client gets to know the identity that bob sets up.
await bob.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: authorize(bob.getUserId()) });
await until(alice, "userTrustStatusChanged", async () => {
    await alice.getCrypto().getUserDeviceInfo([bob.getUserId()], true);
    return alice.getCrypto().userHasCrossSigningKeys(bob.getUserId(), true);
});

// A new device of alice's reads the past out of the backup.
const versionOf = { prefix: "/_matrix/client/v3" };
const backup = () =>
    alice.http.authedRequest(sdk.Method.Get, "/room_keys/version", undefined, undefined, versionOf);
await until(alice, "crypto.keyBackupSessionsRemaining", async () => (await backup()).count >= 2);
const laptop = await start(await login("alice"), { cryptoCallbacks: callbacks });
await laptop.getCrypto().loadSessionBackupPrivateKeyFromSecretStorage();
const restored = await laptop.getCrypto().restoreKeyBackup();
assert.ok(restored.imported >= 2, `${restored.imported} keys came back`);
await until(laptop, "Event.decrypted", () => bodies(laptop, room_id).includes("hello, encrypted"));
await laptop.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: authorize(alice.getUserId()) });
await until(laptop, "crypto.devicesUpdated", async () => {
    const status = await laptop.getCrypto().getDeviceVerificationStatus(alice.getUserId(), laptop.getDeviceId());
    return status.crossSigningVerified;
});

for (const client of [alice, bob, tablet, laptop]) client.stopClient();
console.log("DONE");
process.exit(0);
