// A person signs in by OAuth 2.0 through matrix-js-sdk, on two devices. Usage: node oauth.mjs BASE_URL
// Prints "PAUSE" and waits for a line on stdin in the middle; prints "DONE" when all is well.
import assert from "node:assert/strict";
import readline from "node:readline";
import * as sdk from "matrix-js-sdk";
import { OAuth2 } from "matrix-js-sdk/lib/oauth/index.js";
import { TokenRefresher } from "matrix-js-sdk/lib/oauth/tokenRefresher.js";
import { start, until } from "./people.mjs";

const baseUrl = process.argv[2];
const REDIRECT_URI = "http://127.0.0.1:4321/callback";
const password = "correct horse battery";

// A browser that keeps cookies, follows redirects of the server, and fills in forms.
class Browser {
    cookies = new Map();

    async open(url, fields) {
        const response = await fetch(url, {
            method: fields ? "POST" : "GET",
            body: fields && new URLSearchParams(fields),
            redirect: "manual",
            headers: { cookie: [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ") },
        });
        for (const cookie of response.headers.getSetCookie()) {
            const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie);
            this.cookies.set(name, value);
        }
        const location = response.headers.get("location");
        if (location?.startsWith(baseUrl)) return this.open(location);
        return { url, location, status: response.status, text: await response.text() };
    }

    // Sends the first form of a page.
    submit(page, fields) {
        const hidden = [...page.text.matchAll(/<input type="hidden" name="([^"]+)" value="([^"]*)"/g)];
        return this.open(page.url, { ...Object.fromEntries(hidden.map(([, name, value]) => [name, value])), ...fields });
    }
}

const anonymous = sdk.createClient({ baseUrl });
const metadata = await anonymous.getAuthMetadata();
const clientId = await OAuth2.registerClient(metadata, {
    client_name: "Test client",
    client_uri: "https://example.com/",
    application_type: "native",
    redirect_uris: ["http://127.0.0.1/callback"],
    response_types: ["code"],
    grant_types: ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
    token_endpoint_auth_method: "none",
});

// The person makes an account on the server's page, and agrees.
const browser = new Browser();
const oauth = new OAuth2(metadata, { clientId });
const grantUrl = await oauth.generateAuthorizationCodeGrantUrl("a state", REDIRECT_URI, "query", "create");
const signUp = await browser.open(grantUrl);
const consent = await browser.submit(signUp, { user: "alice", password, again: password });
assert.match(consent.text, /Allow Test client\?/);
const { location } = await browser.submit(consent, { decision: "allow" });
assert.ok(location.startsWith(`${REDIRECT_URI}?`), location);
const told = new URL(location).searchParams;
assert.equal(told.get("state"), "a state");
assert.equal(told.get("iss"), metadata.issuer);
const tokens = await oauth.completeAuthorizationCodeGrant(told.get("code"), REDIRECT_URI);

// The tokens are refreshed, also after a restart.
let current = tokens;
const refresher = new TokenRefresher(oauth, (refreshed) => {
    current = { access_token: refreshed.accessToken, refresh_token: refreshed.refreshToken };
});
await refresher.refreshTokens(current.refresh_token);
console.log("PAUSE");
const lines = readline.createInterface({ input: process.stdin });
await new Promise((resolve) => lines.once("line", resolve));
lines.close();
await refresher.refreshTokens(current.refresh_token);
assert.notEqual(current.access_token, tokens.access_token);

const session = (access_token, deviceId) => ({ access_token, user_id: "@alice:localhost", device_id: deviceId });
const phone = await start(baseUrl, session(current.access_token, oauth.context.deviceId), {
    oauthClientId: clientId,
    refreshToken: current.refresh_token,
});
assert.deepEqual(await phone.whoami(), {
    user_id: "@alice:localhost",
    device_id: oauth.context.deviceId,
    is_guest: false,
});

// The first keys of cross-signing need no proof; others are approved on the account page.
const crypto = phone.getCrypto();
const nobodyAsks = async (upload) => upload(null);
await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: nobodyAsks });
let isApproved = false;
const approve = async (upload) => {
    try {
        return await upload(null);
    } catch (asked) {
        assert.equal(asked.httpStatus, 401);
        assert.ok(asked.data.flows.some((flow) => flow.stages[0] === "m.oauth"));
        const auth = { session: asked.data.session };
        await assert.rejects(upload(auth));
        const page = await browser.open(asked.data.params["m.oauth"].url);
        assert.match((await browser.submit(page, {})).text, /go on now/);
        isApproved = true;
        return await upload(auth);
    }
};
await crypto.bootstrapCrossSigning({ setupNewCrossSigning: true, authUploadDeviceSigningKeys: approve });
assert.ok(isApproved);

// A television without a browser shows a code, which the person types.
const television = new OAuth2(metadata, { clientId });
const shown = await television.startDeviceAuthorizationGrant();
const waiting = television.waitForDeviceAuthorizationGrant(shown);
const link = await browser.open(shown.verification_uri_complete);
const ask = await browser.submit(link, { user_code: shown.user_code });
assert.match(ask.text, /Test client/);
assert.match((await browser.submit(ask, { decision: "allow" })).text, /Done/);
const second = await waiting;
assert.ok(second.access_token, JSON.stringify(second));
const devices = (await phone.getDevices()).devices.map((device) => device.device_id);
assert.deepEqual(devices.sort(), [oauth.context.deviceId, television.context.deviceId].sort());

// Other devices are signed out on the account page, this one by revoking its token.
await assert.rejects(phone.deleteDevice(television.context.deviceId), { errcode: "M_UNRECOGNIZED" });
const account = new URL(metadata.account_management_uri);
account.search = new URLSearchParams({
    action: "org.matrix.device_delete",
    device_id: television.context.deviceId,
});
await browser.submit(await browser.open(account.href), {});
await until("the television is signed out", async () => (await phone.getDevices()).devices.length === 1);
await phone.logout(true);
await assert.rejects(oauth.performRefreshTokenGrant(current.refresh_token));
console.log("DONE");
process.exit(0);
