// Two people of two servers verify each other and chat encrypted, while a server is killed.
// Usage: node federated.mjs URL_OF_ALICE URL_OF_BOB
// Prints "PAUSE" when alice's server is to be killed and started again, and "DONE" when all is well.
import assert from "node:assert/strict";
import { authorized, bodies, bootstrap, callbacks, logIn, say, signUp, until } from "./people.mjs";

const [, , urlOfAlice, urlOfBob] = process.argv;
const storage = { alice: {}, bob: {} };
const alice = await signUp(urlOfAlice, "alice", callbacks(storage.alice));
const bob = await signUp(urlOfBob, "bob", callbacks(storage.bob));
await bootstrap(alice, storage.alice);
await bootstrap(bob, storage.bob);

const { room_id } = await alice.createRoom({
    name: "Secret tea",
    invite: [bob.getUserId()],
    preset: "private_chat",
    initial_state: [
        { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } },
    ],
});
const is = (client, who, membership) => () =>
    client.getRoom(room_id)?.getMember(who.getUserId())?.membership === membership;
await until("bob is invited", () => bob.getRoom(room_id)?.getMyMembership() === "invite");
await bob.joinRoom(room_id);
await until("alice sees bob", is(alice, bob, "join"));
await until("bob sees alice", is(bob, alice, "join"));
await until("bob knows the room", () => bob.getRoom(room_id).hasEncryptionStateEvent());

const reads = (client, body) =>
    until(
        () => `${client.getUserId()} ${client.getDeviceId()} reads ${body} and not ${bodies(client, room_id)}`,
        () => bodies(client, room_id).includes(body),
    );
await say(alice, room_id, "hello, bob");
await reads(bob, "hello, bob");
await say(bob, room_id, "hello, alice");
await reads(alice, "hello, alice");

// They compare emojis.
const confirm = (verifier) => {
    verifier.on("show_sas", (sas) => sas.confirm());
    return verifier.verify();
};
const answered = new Promise((resolve, reject) => {
    bob.on("crypto.verificationRequestReceived", async (request) => {
        await request.accept();
        await until("the verification begins", () => request.verifier);
        confirm(request.verifier).then(resolve, reject);
    });
});
const request = await alice.getCrypto().requestVerificationDM(bob.getUserId(), room_id);
await until("bob is ready", () => request.otherPartySupportsMethod("m.sas.v1"));
await Promise.all([confirm(await request.startVerification("m.sas.v1")), answered]);
for (const [one, other] of [
    [alice, bob],
    [bob, alice],
]) {
    await until(`${one.getUserId()} has verified the other`, async () => {
        const status = await one.getCrypto().getUserVerificationStatus(other.getUserId());
        return status.isCrossSigningVerified();
    });
}

// A device that bob adds hears what is said from then on; when it is removed, it is shut out.
const knows = (count) => async () => {
    const devices = await alice.getCrypto().getUserDeviceInfo([bob.getUserId()]);
    return devices.get(bob.getUserId())?.size === count;
};
const tablet = await logIn(urlOfBob, "bob");
await until("alice knows of the tablet", knows(2));
await say(alice, room_id, "for both of your devices");
await Promise.all([reads(bob, "for both of your devices"), reads(tablet, "for both of your devices")]);
tablet.stopClient();
await authorized(bob.getUserId())((auth) => bob.deleteMultipleDevices([tablet.getDeviceId()], auth ?? undefined));
await until("alice knows that the tablet is gone", knows(1));

// Alice's server is killed while they talk; each message arrives, and can be read.
console.log("PAUSE");
const said = [];
for (let number = 0; number < 12; number++) {
    await Promise.all(
        [alice, bob].map(async (client) => {
            const body = `${client.getUserId()} says ${number}`;
            said.push(body);
            await say(client, room_id, body);
        }),
    );
    if (number === 5) {
        // New sessions, which need one-time keys and messages to devices.
        for (const client of [alice, bob]) await client.getCrypto().forceDiscardSession(room_id);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
}
for (const body of said) await Promise.all([reads(alice, body), reads(bob, body)]);

// A new device of alice's reads all of it from the backup: three sessions of hers (she began a new one when the tablet
// was removed, and another one later) and two of bob's.
await until("the keys are in the backup", async () => {
    const backup = await alice.http.authedRequest("GET", "/room_keys/version", undefined, undefined, {
        prefix: "/_matrix/client/v3",
    });
    return backup.count >= 5;
});
const laptop = await logIn(urlOfAlice, "alice", callbacks(storage.alice));
await laptop.getCrypto().loadSessionBackupPrivateKeyFromSecretStorage();
await laptop.getCrypto().restoreKeyBackup();
await laptop.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: authorized(alice.getUserId()) });
for (const body of said) await reads(laptop, body);
await until("bob trusts the laptop", async () => {
    await bob.getCrypto().getUserDeviceInfo([alice.getUserId()]);
    const status = await bob.getCrypto().getDeviceVerificationStatus(alice.getUserId(), laptop.getDeviceId());
    return status?.crossSigningVerified;
});
assert.equal(new Set(bodies(bob, room_id)).size, bodies(bob, room_id).length, "nothing came twice");

for (const client of [alice, bob, laptop]) client.stopClient();
console.log("DONE");
process.exit(0);
