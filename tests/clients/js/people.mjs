// People who chat encrypted through matrix-js-sdk and its Rust crypto: what the scripts have in common.
import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";

logger.setLevel("error");
// Node has it from version 22 on.
Promise.withResolvers ??= () => {
    const made = {};
    made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
    return made;
};
const password = "correct horse battery";

// Resolves when the condition holds, looking again and again.
export async function until(what, condition, seconds = 60) {
    for (const end = Date.now() + seconds * 1000; Date.now() < end; ) {
        if (await condition()) return;
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(`waited in vain: ${what instanceof Function ? what() : what}`);
}

export async function start(baseUrl, session, { threadSupport = false, ...options } = {}) {
    const client = sdk.createClient({
        baseUrl,
        accessToken: session.access_token,
        userId: session.user_id,
        deviceId: session.device_id,
        timelineSupport: true,
        ...options,
    });
    await client.initRustCrypto({ useIndexedDB: false });
    // At a gap the SDK throws messages away that come before one of its own: let there be none.
    const filter = new sdk.Filter(session.user_id);
    filter.setTimelineLimit(200);
    if (threadSupport) filter.setUnreadThreadNotifications(true);
    await client.startClient({ initialSyncLimit: 200, filter, threadSupport });
    await until("the first sync", () => client.isInitialSyncComplete());
    return client;
}

export async function signUp(baseUrl, username, options) {
    const auth = { type: "m.login.dummy" };
    const session = await sdk.createClient({ baseUrl }).registerRequest({ username, password, auth });
    return start(baseUrl, session, options);
}

export async function logIn(baseUrl, user, options) {
    const identifier = { type: "m.id.user", user };
    const request = { type: "m.login.password", identifier, password };
    return start(baseUrl, await sdk.createClient({ baseUrl }).loginRequest(request), options);
}

// Does what needs the user's password.
export const authorized = (userId) => async (request) => {
    try {
        return await request(null);
    } catch (error) {
        if (!error.data?.session) throw error;
        const identifier = { type: "m.id.user", user: userId };
        return request({ type: "m.login.password", session: error.data.session, identifier, password });
    }
};

// Cross-signing keys, secret storage and a key backup. `storage.key` is what a person would write down.
export async function bootstrap(client, storage) {
    const crypto = client.getCrypto();
    await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: authorized(client.getUserId()) });
    await crypto.bootstrapSecretStorage({
        createSecretStorageKey: async () => {
            const made = await crypto.createRecoveryKeyFromPassphrase();
            storage.key = made.privateKey;
            return made;
        },
        setupNewKeyBackup: true,
    });
}

export const callbacks = (storage) => ({
    cryptoCallbacks: {
        getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], storage.key],
        cacheSecretStorageKey: () => {},
    },
});

export const bodies = (client, roomId) =>
    (client.getRoom(roomId)?.getLiveTimeline().getEvents() ?? [])
        .filter((event) => event.getType() === "m.room.message")
        .map((event) => event.getContent().body);

// Says something, as often as it takes.
export async function say(client, roomId, body) {
    try {
        return await client.sendTextMessage(roomId, body);
    } catch {
        const room = client.getRoom(roomId);
        for (;;) {
            await new Promise((resolve) => setTimeout(resolve, 300));
            const unsent = room
                .getLiveTimeline()
                .getEvents()
                .find((event) => event.getContent().body === body && event.status === "not_sent");
            if (!unsent) return;
            try {
                return await client.resendEvent(unsent, room);
            } catch {
                // Once more.
            }
        }
    }
}
