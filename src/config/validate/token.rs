//! Whose tokens count, and what is asked of them.

use std::collections::HashSet;

use super::{above_zero, url};
use crate::config::finding::meant;
use crate::config::{Config, Introspection, Issuer, KeySource, Names, Period, Problems, below};

/// Clocks that are further apart want mending (RFC 7519, section 4.1.4: no more than a few minutes).
const LONGEST_LEEWAY: Period = Period::secs(300);

pub(super) fn validate(config: &Config, problems: &mut Problems) {
    let mut names = HashSet::new();
    for (at, issuer) in config.identity.issuers().iter().enumerate() {
        let base = format!("/identity/jwt/{at}");
        if issuer.issuer.is_empty() {
            problems.error(format!("{base}/issuer"), "this is nobody");
        } else if !names.insert(&issuer.issuer) {
            let help = "a token's issuer picks one entry; list every audience in one";
            problems.error_with_help(format!("{base}/issuer"), "this issuer is there already", help);
        }
        audience(&base, issuer, problems);
        key_source(&format!("{base}/jwks"), issuer, problems);
        algorithms(&base, issuer, problems);
        if issuer.leeway > LONGEST_LEEWAY {
            problems.warning(format!("{base}/leeway"), "expired tokens count for more than five minutes longer");
        }
        session_claim(&base, &issuer.session_claim, problems);
        claims(&base, issuer.claims.iter(), config, problems);
    }
    for (at, server) in config.identity.introspections().iter().enumerate() {
        introspection(&format!("/identity/introspection/{at}"), server, config, problems);
    }
}

fn audience(base: &str, issuer: &Issuer, problems: &mut Problems) {
    let names = issuer.audience.as_slice();
    if names.is_empty() {
        let help = "name your own service in `audience`, as its tokens do";
        let path = format!("{base}/issuer");
        problems.warning_with_help(path, "tokens that were meant for any other service count here too", help);
    }
    if names.iter().any(String::is_empty) {
        problems.error(format!("{base}/audience"), "this is nobody");
    }
}

fn key_source(path: &str, issuer: &Issuer, problems: &mut Problems) {
    let KeySource { url, discovery, file, keys, refresh, ca } = &issuer.jwks;
    let given = [url.is_some(), *discovery, file.is_some(), keys.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        let help = "give one of `url`, `discovery: true`, `file` and `keys`";
        problems.error_with_help(path, "keys come from one place", help);
        return;
    }
    let help = "it is https://HOST/…, or http://HOST/… on this host";
    if url.as_deref().is_some_and(|url| !url::is_server(url)) {
        problems.error_with_help(format!("{path}/url"), "keys cannot come from here", help);
    }
    if *discovery && !url::is_server(&issuer.issuer) {
        problems.error_with_help(format!("{path}/discovery"), "the issuer's name is no URL to ask", help);
    }
    if keys.as_ref().is_some_and(Vec::is_empty) {
        problems.error(format!("{path}/keys"), "without a key no token counts");
    }
    if ca.is_some() && url.is_none() && !discovery {
        problems.error(format!("{path}/ca"), "nothing is fetched here");
    }
    above_zero(path, [("refresh", *refresh)], problems);
}

fn algorithms(base: &str, issuer: &Issuer, problems: &mut Problems) {
    let all = &issuer.algorithms;
    if all.is_empty() {
        problems.error(format!("{base}/algorithms"), "without an algorithm no token counts");
    }
    let has_secret = issuer.jwks.keys.iter().flatten().any(|key| key.kty == "oct");
    for (at, algorithm) in all.iter().enumerate() {
        let path = format!("{base}/algorithms/{at}");
        if all.iter().take(at).any(|other| other == algorithm) {
            problems.error(path, "this algorithm is in the list already");
        } else if algorithm.is_shared() && !has_secret {
            let help = "give the secret by reference: jwks: { keys: [{ kty: oct, k: \"${file:PATH}\" }] }";
            problems.error_with_help(path, "this algorithm needs a secret that is shared with the issuer", help);
        }
    }
    if has_secret && !all.iter().any(|algorithm| algorithm.is_shared()) {
        problems.error(format!("{base}/jwks/keys"), "a shared secret is among the keys, and no algorithm uses it");
    }
}

fn session_claim(base: &str, names: &Names, problems: &mut Problems) {
    let names = names.as_slice();
    if names.is_empty() || names.iter().any(String::is_empty) {
        let help = "name the claim whose value names the session, such as `sid` or `sub`";
        problems.error_with_help(format!("{base}/session_claim"), "no claim has this name", help);
    }
}

fn claims<'c>(
    base: &str,
    claims: impl Iterator<Item = (&'c String, &'c String)>,
    config: &Config,
    problems: &mut Problems,
) {
    let fields = &config.session.schema.fields;
    for (field, claim) in claims {
        let path = below(&format!("{base}/claims"), field);
        if !fields.contains_key(field) {
            let near = meant(field, fields.keys().map(String::as_str));
            let help = near.map(|word| format!("did you mean `{word}`?"));
            problems.error_at_key(path, "the schema has no field of this name", help);
        } else if claim.is_empty() {
            problems.error(path, "no claim has this name");
        }
    }
}

fn introspection(base: &str, server: &Introspection, config: &Config, problems: &mut Problems) {
    if !url::is_server(&server.url) {
        let help = "it is https://HOST/…, or http://HOST/… on this host";
        problems.error_with_help(format!("{base}/url"), "tokens and the client's secret cannot go here", help);
    }
    if server.client_id.is_empty() {
        problems.error(format!("{base}/client_id"), "this is nobody");
    }
    above_zero(base, [("cache", server.cache)], problems);
    session_claim(base, &server.session_claim, problems);
    claims(base, server.claims.iter(), config, problems);
}
