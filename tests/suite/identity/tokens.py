"""Makes tokens.json: tokens of every family by libraries that have nothing to do with cloakroom.

    pip install pyjwt cryptography jwcrypto joserfc; npm install jose
    python3 tokens.py > tokens.json

The House's clock stands still, so that the tokens never expire.
"""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import jwt
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import import_key
from jwcrypto.jwk import JWK
from jwcrypto.jwt import JWT

BEGIN = 1_795_421_702
CLAIMS = {"iss": "https://login.example", "sub": "u-456", "aud": "agents", "iat": BEGIN, "exp": BEGIN + 600}
FAMILIES = {
    "RS256": {"kty": "RSA", "size": 2048},
    "RS384": {"kty": "RSA", "size": 2048},
    "RS512": {"kty": "RSA", "size": 3072},
    "PS256": {"kty": "RSA", "size": 2048},
    "PS384": {"kty": "RSA", "size": 3072},
    "PS512": {"kty": "RSA", "size": 4096},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "ES384": {"kty": "EC", "crv": "P-384"},
    "ES512": {"kty": "EC", "crv": "P-521"},
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
}


def version(package):
    return f"{package} {importlib.metadata.version(package)}"


def by_pyjwt(alg, key):
    return jwt.encode(CLAIMS, key.export_to_pem(private_key=True, password=None), alg, {"kid": alg})


def by_jwcrypto(alg, key):
    token = JWT(header={"alg": alg, "kid": alg, "typ": "at+jwt"}, claims={**CLAIMS, "aud": ["other", "agents"]})
    token.make_signed_token(key)
    return token.serialize()


def by_joserfc(alg, key):
    private = import_key(json.loads(key.export_private()))
    return joserfc_jwt.encode({"alg": alg, "kid": alg}, CLAIMS, private, algorithms=[alg])


def main():
    keys = {alg: JWK.generate(kid=alg, **options) for alg, options in FAMILIES.items()}
    makers = {"PyJWT": by_pyjwt, "jwcrypto": by_jwcrypto, "joserfc": by_joserfc}
    tokens = [
        {"by": version(name), "alg": alg, "token": make(alg, key)}
        for name, make in makers.items()
        for alg, key in keys.items()
    ]
    private = json.dumps({"claims": CLAIMS, "keys": {alg: json.loads(key.export_private()) for alg, key in keys.items()}})
    script = Path(__file__).with_suffix(".mjs")
    more = subprocess.run(["node", script], input=private, text=True, check=True, capture_output=True).stdout
    tokens += json.loads(more)
    public = [json.loads(key.export_public()) for key in keys.values()]
    json.dump({"jwks": {"keys": public}, "tokens": tokens}, sys.stdout, indent=1)


main()
