//! A House whose clients come with tokens, and the issuer of those.

use cloakroom::clock::Time;
use serde_json::{Value as Json, json};

use crate::house::{Ask, House, Issuer, Plan, Reply, Says, Signer};

pub const AUDIENCE: &str = "agents";

/// An issuer with one key of each of the usual kinds.
pub struct Login {
    pub issuer: Issuer,
    pub rsa: Signer,
    pub ec: Signer,
    pub ed: Signer,
}

impl Login {
    pub fn new() -> Self {
        let login = Self {
            issuer: Issuer::open(),
            rsa: Signer::new("RS256", "rsa-1"),
            ec: Signer::new("ES256", "ec-1"),
            ed: Signer::new("EdDSA", "ed-1"),
        };
        login.issuer.publishes(&[&login.rsa, &login.ec, &login.ed]);
        login
    }

    /// The issuer's name.
    pub fn name(&self) -> String {
        self.issuer.url("")
    }

    /// Members of `identity.jwt[0]`, but for those given.
    pub fn entry(&self, members: &str) -> String {
        let defaults = [
            ("issuer", format!("issuer: '{}'", self.name())),
            ("audience", format!("audience: [{AUDIENCE}]")),
            ("jwks", format!("jwks: {{ url: '{}' }}", self.issuer.url("/keys"))),
            ("algorithms", "algorithms: [RS256, PS256, ES256, EdDSA]".into()),
            ("session_claim", "session_claim: [sid, sub]".into()),
        ];
        let kept = defaults.iter().filter(|(key, _)| !members.contains(&format!("{key}:")));
        let mut all: Vec<String> = kept.map(|(_, text)| text.clone()).collect();
        all.extend((!members.is_empty()).then(|| members.to_owned()));
        all.join(", ")
    }

    pub fn plan(&self, members: &str) -> Plan {
        plan_of(&[self.entry(members)])
    }

    pub fn open(&self) -> House {
        self.plan("").open()
    }

    /// What a good token says, at the time that a House begins.
    pub fn claims(&self) -> Json {
        claims_at(&self.name(), crate::house::BEGIN)
    }

    pub fn token(&self) -> String {
        self.ec.token(&self.claims())
    }

    /// A good token but for some claims; null takes one away.
    pub fn token_saying(&self, changes: Json) -> String {
        self.ec.token(&changed(self.claims(), changes))
    }
}

pub fn plan_of(entries: &[String]) -> Plan {
    let entries: Vec<String> = entries.iter().map(|entry| format!("{{ {entry} }}")).collect();
    Plan::new().section(&format!("identity: {{ bad_credentials: null, jwt: [{}] }}", entries.join(", ")))
}

pub fn claims_at(issuer: &str, now: Time) -> Json {
    let now = now.seconds();
    json!({ "iss": issuer, "aud": AUDIENCE, "sub": "u-456", "iat": now, "exp": now + 600 })
}

pub fn changed(mut claims: Json, changes: Json) -> Json {
    let members = claims.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Json::Null => drop(members.remove(name)),
            value => drop(members.insert(name.clone(), value.clone())),
        }
    }
    claims
}

impl House {
    /// A request with a token, which is to stay a secret if it is one.
    pub fn with_token(&self, target: &str, token: &str) -> Ask<'_> {
        if token.len() > 100 && token.len() < 4096 {
            self.sensitive(token);
        }
        self.get(target).header("authorization", &format!("Bearer {token}"))
    }

    #[track_caller]
    pub fn verified(&self, token: &str) -> Reply {
        let reply = self.with_token("/chat", token).send();
        reply.passed();
        reply
    }

    #[track_caller]
    pub fn unverified(&self, token: &str) {
        self.with_token("/chat", token).send().is(401, "credential-invalid");
    }

    pub fn rejected(&self, reason: &str) -> u64 {
        self.metric(&format!("cloakroom_credentials_rejected_total{{reason=\"{reason}\"}}"))
    }
}

pub fn key_set(keys: &[&Signer]) -> Says {
    let keys: Vec<Json> = keys.iter().map(|key| key.jwk()).collect();
    Says::Json(json!({ "keys": keys }), None)
}
