mod disk;

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const EMAIL: &[u8] = b"ada@example.com";

/// 2026-11-23T08:15:02Z
const NOW: Time = Time(1_795_421_702_000);

fn bytes(first: u8) -> file::KeyBytes {
    Zeroizing::new(std::array::from_fn(|i| first + i as u8))
}

fn generation(id: &str, created_at: Time, first: u8) -> file::Generation {
    file::Generation { id: id.into(), created_at, secret: bytes(first) }
}

/// The name key 00…1f and sealing keys of the given ages, newest first: the oldest is `k1`, 20…3f.
fn keyring(ages: &[Duration], activate_after: Duration) -> Keyring {
    let keys = ages.iter().rev().zip(1u8..).map(|(age, n)| generation(&format!("k{n}"), NOW.minus(*age), n * 32));
    let mut keys: Vec<_> = keys.collect();
    let newest = keys.pop().unwrap();
    keys.reverse();
    Keyring::compile(Keys { name: bytes(0), newest, older: keys }, activate_after).unwrap()
}

fn fixed() -> Keyring {
    keyring(&[60 * MINUTE], Duration::ZERO)
}

fn place() -> Place<'static> {
    Place { environment: "prod", session: Handle([0xa1; 16]), birth: Birth([0xb2; 16]), path: "profile.email" }
}

// The expected values were computed with Python's hmac and hashlib, and pyca/cryptography's AESGCMSIV, from the
// documented constructions. One that changes orphans every handle and sealed value in existing stores.

#[test]
fn names_are_derived_as_documented() {
    let keys = fixed();
    let Place { session, birth, path, .. } = place();
    assert_eq!(keys.field_handle(session, birth, path).to_string(), "hdl_egtOzYK9oQo5cR6KA25P5Q");
    let token = keys.token_handle("https://idp.example", "sid", "s-123");
    assert_eq!(token.to_string(), "ses_hgq1PtGOGrEaGTejaojdKg");
    assert_eq!(keys.fingerprint(session, path, EMAIL), "fp:3bd1a48ff2bd90f8");
    assert_eq!(keys.user_key(None, "u-456").to_string(), "usr_ZCkPfr3ahFb2-j_eIAJZvA");
    assert_eq!(keys.user_key(Some("https://idp.example"), "u-456").to_string(), "usr_RyitTkYIfY8dq-6p6rzW8Q");
    assert_eq!(keys.user_key(Some(""), "u-456").to_string(), "usr_asYmFzU5WYWNw8GdDk4Apg");
}

#[test]
fn macs_are_derived_as_documented() {
    let mac = fixed().mac(b"record", NOW);
    assert_eq!((mac.key.as_str(), mac.mac.as_str()), ("k1", "47HVwtOAejH7jozdtbldjELSU35FP1K3BsSd91ljQpk"));
}

#[test]
fn a_value_sealed_elsewhere_by_the_documented_construction_opens() {
    let sealed = "seal:v1:k1:BwcHBwcHBwcHBwcHVqoEYBQx09nkXt9X8LUUy4md-FSH1CgA70RIvUUw5A";
    assert_eq!(&fixed().open(&place(), sealed).unwrap()[..], EMAIL);
}

#[test]
fn a_sealed_value_opens_in_its_own_place() {
    let keys = Keyring::ephemeral(NOW).unwrap();
    for plain in [&b""[..], EMAIL, &[0; 4096]] {
        let sealed = keys.seal(&place(), plain, NOW).unwrap();
        assert_eq!(&keys.open(&place(), &sealed).unwrap()[..], plain);
        assert_eq!(Keyring::sealed_under(&sealed), Some("k1"));
    }
}

#[test]
fn a_sealed_value_cannot_be_moved() {
    let keys = fixed();
    let sealed = keys.seal(&place(), EMAIL, NOW).unwrap();
    let elsewhere = [
        Place { environment: "test", ..place() },
        Place { session: Handle([0xa2; 16]), ..place() },
        Place { birth: Birth([0xb3; 16]), ..place() },
        Place { path: "profile.phone", ..place() },
        // The same bytes, cut in other places.
        Place { environment: "pro", path: "dprofile.email", ..place() },
    ];
    for place in elsewhere {
        assert_eq!(keys.open(&place, &sealed).unwrap_err(), OpenError::Damaged, "{place:?}");
    }
}

#[test]
fn two_seals_of_one_value_differ() {
    let keys = fixed();
    let seals = [keys.seal(&place(), EMAIL, NOW).unwrap(), keys.seal(&place(), EMAIL, NOW).unwrap()];
    assert_ne!(seals[0], seals[1]);
}

#[test]
fn no_character_of_a_sealed_value_can_be_changed() {
    let keys = fixed();
    let sealed = keys.seal(&place(), EMAIL, NOW).unwrap();
    for at in 0..sealed.len() {
        let other = if sealed.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut altered = sealed.clone();
        altered.replace_range(at..=at, other);
        assert!(keys.open(&place(), &altered).is_err(), "character {at}");
        assert!(keys.open(&place(), &sealed[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn an_unknown_key_is_told_apart_from_damage() {
    let keys = fixed();
    let sealed = keys.seal(&place(), EMAIL, NOW).unwrap();
    let unknown = sealed.replace(":k1:", ":k9:");
    assert_eq!(keys.open(&place(), &unknown).unwrap_err(), OpenError::UnknownKey("k9".into()));
    assert_eq!(Keyring::sealed_under(&unknown), Some("k9"));
    for damaged in ["", "seal:v1:", "seal:v1:k1", "seal:v1:k1:", "seal:v2:k1:AAAA", "seal:v1::AAAA", "seal:v1:k 1:AAAA"]
    {
        assert_eq!(keys.open(&place(), damaged).unwrap_err(), OpenError::Damaged, "{damaged}");
    }
}

#[test]
fn the_newest_key_old_enough_seals() {
    let keys = keyring(&[MINUTE, 11 * MINUTE, 60 * MINUTE], 10 * MINUTE);
    assert_eq!(keys.active(NOW), "k2");
    assert_eq!(keys.active(NOW.plus(9 * MINUTE)), "k3", "reached to the millisecond");
    assert_eq!(keys.active(NOW.plus(9 * MINUTE).minus(Duration::from_millis(1))), "k2");
    let sealed = keys.seal(&place(), EMAIL, NOW).unwrap();
    assert_eq!(Keyring::sealed_under(&sealed), Some("k2"));
    assert_eq!(keys.mac(b"record", NOW).key, "k2");
}

#[test]
fn the_oldest_key_seals_while_none_is_old_enough() {
    let keys = keyring(&[MINUTE, 2 * MINUTE, 3 * MINUTE], 10 * MINUTE);
    assert_eq!(keys.active(NOW), "k1");
    let only = keyring(&[Duration::ZERO], 10 * MINUTE);
    assert_eq!(only.active(NOW), "k1");
    assert_eq!(only.active(Time(0)), "k1", "a clock far behind");
}

#[test]
fn every_generation_opens_and_verifies() {
    let sealed = fixed().seal(&place(), EMAIL, NOW).unwrap();
    let mac = fixed().mac(b"record", NOW);
    let later = keyring(&[20 * MINUTE, 60 * MINUTE], 10 * MINUTE);
    assert_eq!(later.active(NOW), "k2");
    assert_eq!(&later.open(&place(), &sealed).unwrap()[..], EMAIL);
    assert_eq!(later.verify_mac(&mac.key, &mac.mac, b"record"), Ok(()));
}

#[test]
fn a_mac_fits_its_bytes_and_key_only() {
    let keys = keyring(&[20 * MINUTE, 60 * MINUTE], 10 * MINUTE);
    let mac = keys.mac(b"record", NOW);
    assert_eq!(keys.verify_mac("k2", &mac.mac, b"record"), Ok(()));
    assert_eq!(keys.verify_mac("k2", &mac.mac, b"Record"), Err(MacError::Mismatch));
    assert_eq!(keys.verify_mac("k1", &mac.mac, b"record"), Err(MacError::Mismatch));
    assert_eq!(keys.verify_mac("k9", &mac.mac, b"record"), Err(MacError::UnknownKey));
    for malformed in ["", "=", &mac.mac[..42], &format!("{}A", mac.mac)] {
        assert_eq!(keys.verify_mac("k2", malformed, b"record"), Err(MacError::Mismatch), "{malformed}");
    }
}

#[test]
fn handles_differ_by_session_birth_and_path() {
    let keys = fixed();
    let Place { session, birth, path, .. } = place();
    let handle = keys.field_handle(session, birth, path);
    assert_eq!(handle, keys.field_handle(session, birth, path));
    assert_ne!(handle, keys.field_handle(Handle([0; 16]), birth, path));
    assert_ne!(handle, keys.field_handle(session, Birth([0; 16]), path));
    assert_ne!(handle, keys.field_handle(session, birth, "profile.phone"));
    assert_ne!(keys.token_handle("a", "sub", "x"), keys.token_handle("a", "sid", "x"));
    assert_ne!(keys.token_handle("a", "sub", "x"), keys.token_handle("b", "sub", "x"));
}

#[test]
fn fingerprints_are_equal_for_equal_values_of_one_field_only() {
    let keys = fixed();
    let Place { session, path, .. } = place();
    let print = keys.fingerprint(session, path, EMAIL);
    assert_eq!(print, keys.fingerprint(session, path, EMAIL));
    assert_ne!(print, keys.fingerprint(session, path, b"bob@example.com"));
    assert_ne!(print, keys.fingerprint(session, "profile.phone", EMAIL));
    assert_ne!(print, keys.fingerprint(Handle([0; 16]), path, EMAIL));
    assert_ne!(print, Keyring::ephemeral(NOW).unwrap().fingerprint(session, path, EMAIL));
}

#[test]
fn no_two_users_share_a_key() {
    let keys = fixed();
    let pairs = [(None, "ab"), (Some(""), "ab"), (Some("a"), "b"), (Some("ab"), ""), (None, "b"), (Some("a\0"), "b")];
    let found: std::collections::BTreeSet<_> =
        pairs.iter().map(|(issuer, user)| keys.user_key(*issuer, user)).collect();
    assert_eq!(found.len(), pairs.len());
}

#[test]
fn debug_shows_ids_and_no_key() {
    let keys = keyring(&[MINUTE, 60 * MINUTE], 10 * MINUTE);
    let expected = r#"Keyring {"k2": "2026-11-23T08:14:02Z", "k1": "2026-11-23T07:15:02Z"}"#;
    assert_eq!(format!("{keys:?}"), expected);
}

#[test]
fn a_keyring_is_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Keyring>();
}

proptest! {
    #[test]
    fn what_was_never_sealed_does_not_open(text in "(seal:v1:)?(k1|[a-z]{0,3}):?[A-Za-z0-9_-]{0,80}|\\PC*") {
        prop_assert!(fixed().open(&place(), &text).is_err());
    }

    #[test]
    fn any_value_opens_as_it_was_sealed(plain: Vec<u8>, environment: String, path: String) {
        let keys = fixed();
        let place = Place { environment: &environment, path: &path, ..place() };
        let sealed = keys.seal(&place, &plain, NOW).unwrap();
        prop_assert_eq!(&keys.open(&place, &sealed).unwrap()[..], &plain[..]);
    }
}
