// A person signs in through another identity provider, and two devices meet by QR code, through matrix-js-sdk.
// Usage: node sso.mjs BASE_URL PORT. The provider is this script, on that port of loopback. Prints "DONE" when all is well.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import * as sdk from "matrix-js-sdk";
import { initAsync, QrCodeData, QrCodeIntent } from "@matrix-org/matrix-sdk-crypto-wasm";
import { MSC4108RendezvousSession } from "matrix-js-sdk/lib/rendezvous/transports/index.js";
import { MSC4108SecureChannel } from "matrix-js-sdk/lib/rendezvous/channels/index.js";
import { start } from "./people.mjs";

const [baseUrl, port] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const back = "https://app.test/";

// The provider: whoever comes is Dan.
let nonce;
const endpoints = {
    "/.well-known/openid-configuration": () => ({
        issuer,
        authorization_endpoint: `${issuer}/authorize`,
        token_endpoint: `${issuer}/token`,
    }),
    "/token": () => {
        const now = Math.floor(Date.now() / 1000);
        const claims = { iss: issuer, aud: "matrix", sub: "1", exp: now + 60, iat: now, nonce, preferred_username: "dan" };
        const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
        return { access_token: "a", token_type: "Bearer", id_token: `${part({ alg: "RS256" })}.${part(claims)}.x` };
    },
};
const provider = createServer((request, response) => {
    const url = new URL(request.url, issuer);
    if (url.pathname === "/authorize") {
        nonce = url.searchParams.get("nonce");
        const query = new URLSearchParams({ code: "c", state: url.searchParams.get("state") });
        response.writeHead(302, { location: `${url.searchParams.get("redirect_uri")}?${query}` }).end();
    } else {
        response.end(JSON.stringify(endpoints[url.pathname]()));
    }
});
await new Promise((resolve) => provider.listen(port, "127.0.0.1", resolve));

// A browser: it keeps cookies and follows redirects and the one link of each page, until it would leave for the app.
async function browse(url) {
    const cookies = new Map();
    for (let steps = 0; steps < 10; steps++) {
        const cookie = [...cookies].map((pair) => pair.join("=")).join("; ");
        const answer = await fetch(url, { redirect: "manual", headers: cookie ? { cookie } : {} });
        for (const line of answer.headers.getSetCookie()) {
            const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
            cookies.set(name, value);
        }
        const page = await answer.text();
        const next = answer.headers.get("location") ?? /<a [^>]*href="([^"]+)"/.exec(page)?.[1];
        assert(next, page);
        if (next.startsWith(back)) return new URL(next);
        url = new URL(next.replaceAll("&amp;", "&"), url);
    }
    throw new Error("the browser goes round in circles");
}

// Signing in.
const stranger = sdk.createClient({ baseUrl });
const { flows } = await stranger.loginFlows();
const flow = flows.find(({ type }) => type === "m.login.sso");
assert.deepEqual(flow.identity_providers, [{ id: "idp", name: "IdP" }]);
const there = stranger.getSsoLoginUrl(back, "sso", "idp", sdk.SSOAction.LOGIN);
const arrived = await browse(there);
const session = await stranger.loginRequest({ type: "m.login.token", token: arrived.searchParams.get("loginToken") });
assert.equal(session.user_id, "@dan:localhost");
const dan = await start(baseUrl, session);

// Two devices meet.
await initAsync();
assert(await dan.doesServerSupportUnstableFeature("org.matrix.msc4108"));
const failed = (reason) => assert.fail(`the rendezvous failed: ${reason}`);
const shown = new MSC4108RendezvousSession({ client: dan, onFailure: failed });
await shown.send("");
const showing = new MSC4108SecureChannel(shown, undefined, failed);
const code = QrCodeData.fromBytes(await showing.generateCode(QrCodeIntent.Login));
const scanned = new MSC4108RendezvousSession({ url: code.rendezvousUrl, onFailure: failed });
const scanning = new MSC4108SecureChannel(scanned, code.publicKey, failed);
await Promise.all([showing.connect(), scanning.connect()]);
assert.equal(showing.getCheckCode(), scanning.getCheckCode());
await scanning.secureSend({ type: "hello" });
assert.deepEqual(await showing.secureReceive(), { type: "hello" });
await shown.close();
assert.equal((await fetch(code.rendezvousUrl)).status, 404);

dan.stopClient();
provider.close();
provider.closeAllConnections();
console.log("DONE");
process.exit(0);
