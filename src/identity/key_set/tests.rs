use super::*;
use crate::config::{InlineKey, KeySource, Problems};

fn inline(x: &str) -> KeySource {
    let key = InlineKey { kty: "OKP".into(), crv: Some("Ed25519".into()), x: Some(x.into()), ..InlineKey::default() };
    KeySource { keys: Some(vec![key]), ..KeySource::default() }
}

/// RFC 8037, appendix A.2, and another.
const ONE: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const OTHER: &str = "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw";

#[test]
fn an_unchanged_source_keeps_its_keys_and_one_that_nobody_uses_goes() {
    let sets = KeySets::default();
    let of = |issuer: &str, raw: &KeySource| sets.of(issuer, raw, "/x", &mut Problems::default()).unwrap();
    let first = of("i", &inline(ONE));
    assert!(Arc::ptr_eq(&first, &of("i", &inline(ONE))));
    assert!(!Arc::ptr_eq(&first, &of("i", &inline(OTHER))));
    assert!(!Arc::ptr_eq(&first, &of("j", &inline(ONE))));
    drop(first);
    // It was made anew, so that nothing had held it.
    assert!(of("i", &inline(ONE)).is_loaded());
}

#[test]
fn a_key_that_is_of_no_use_is_a_problem_of_the_configuration() {
    let mut problems = Problems::default();
    assert!(KeySets::default().of("i", &inline("AAAA"), "/identity/jwt/0/jwks", &mut problems).is_none());
    let problem = problems.into_vec().remove(0);
    assert_eq!(problem.path, "/identity/jwt/0/jwks/keys/0");
}

#[test]
fn waits_are_jittered_between_half_and_all() {
    for _ in 0..100 {
        let wait = jittered(Duration::from_secs(60));
        assert!((Duration::from_secs(30)..=Duration::from_secs(60)).contains(&wait), "{wait:?}");
    }
}
