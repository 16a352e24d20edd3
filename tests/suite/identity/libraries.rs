//! Tokens that other people's libraries have made (`tokens.py`): the usual ones, in every family.

use serde_json::Value as Json;

use super::login::plan_of;
use crate::house::{Issuer, Says};

#[test]
fn tokens_of_other_libraries_pass() {
    let made: Json = serde_json::from_str(include_str!("tokens.json")).unwrap();
    let issuer = Issuer::open();
    issuer.says("/keys", Says::Json(made["jwks"].clone(), None));
    let entry = format!(
        "issuer: 'https://login.example', audience: [agents], jwks: {{ url: '{}' }}, session_claim: sub, \
         algorithms: [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519]",
        issuer.url("/keys")
    );
    let house = plan_of(&[entry]).open();
    let tokens = made["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 41);
    for token in tokens {
        let text = token["token"].as_str().unwrap();
        let reply = house.with_token("/chat", text).send();
        assert_eq!(reply.status, 200, "{} by {}", token["alg"], token["by"]);
        // The same bytes but for the last of the payload.
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let (header, payload) = signed.split_once('.').unwrap();
        house.unverified(&format!("{header}.{}.{signature}", &payload[..payload.len() - 4]));
    }
    assert_eq!(issuer.times_asked("/keys"), 1);
    house.close();
}
