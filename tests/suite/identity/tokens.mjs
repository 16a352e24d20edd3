// The part of tokens.py that is done by jose.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { SignJWT, importJWK } from "jose";

const { version } = createRequire(import.meta.url)("jose/package.json");
const { claims, keys } = JSON.parse(readFileSync(0, "utf8"));
const tokens = [];
for (const [alg, jwk] of Object.entries(keys)) {
  const signer = new SignJWT(claims).setProtectedHeader({ alg, kid: alg, typ: "JWT" });
  tokens.push({ by: `jose ${version}`, alg, token: await signer.sign(await importJWK(jwk, alg)) });
}
const ed25519 = await importJWK({ ...keys.EdDSA, alg: undefined }, "Ed25519");
const fresh = new SignJWT(claims).setProtectedHeader({ alg: "Ed25519", kid: "EdDSA" });
tokens.push({ by: `jose ${version}`, alg: "Ed25519", token: await fresh.sign(ed25519) });
process.stdout.write(JSON.stringify(tokens));
