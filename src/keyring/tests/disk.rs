use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const NAME: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
const SECRET: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8";

fn folder() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keyring.json");
    (folder, path)
}

fn key(id: &str, created_at: &str) -> String {
    format!(r#"{{"id":"{id}","created_at":"{created_at}","secret":"{SECRET}"}}"#)
}

fn document(keys: &str) -> String {
    format!(r#"{{"name_key":"{NAME}","sealing_keys":[{keys}]}}"#)
}

fn load_text(text: impl AsRef<[u8]>) -> Result<Keyring, KeyringError> {
    let (_folder, path) = folder();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    Keyring::load(&path, Duration::ZERO)
}

fn fault(text: &str) -> Fault {
    match load_text(text) {
        Err(KeyringError::Unsound { fault, .. }) => fault,
        other => panic!("{other:?} for {text}"),
    }
}

fn names(keys: &Keyring) -> (FieldHandle, Handle, UserKey, String) {
    let Place { session, birth, path, .. } = place();
    let token = keys.token_handle("https://idp.example", "sub", "u-456");
    (
        keys.field_handle(session, birth, path),
        token,
        keys.user_key(None, "u-456"),
        keys.fingerprint(session, path, EMAIL),
    )
}

#[test]
fn the_documented_file_is_read() {
    let keys = load_text(document(&key("k1", "2026-11-23T07:15:02Z"))).unwrap();
    assert_eq!(names(&keys), names(&fixed()));
    assert_eq!(keys.mac(b"record", NOW), fixed().mac(b"record", NOW));
    assert_eq!(keys.sealing_key_ids().collect::<Vec<_>>(), [("k1", NOW.minus(60 * MINUTE))]);
}

#[test]
fn age_orders_the_keys_and_place_decides_a_tie() {
    let keys = [key("b", "2026-11-23T08:00:00Z"), key("c", "2026-11-23T09:00:00Z"), key("a", "2026-11-23T08:00:00Z")];
    let keys = load_text(document(&keys.join(","))).unwrap();
    assert_eq!(keys.sealing_key_ids().map(|(id, _)| id).collect::<Vec<_>>(), ["c", "b", "a"]);
}

#[test]
fn what_is_not_a_keyring_is_refused() {
    let one = key("k1", "2026-11-23T07:15:02Z");
    let whole = document(&one);
    let mut malformed = vec![
        String::new(),
        "null".into(),
        "[]".into(),
        "{}".into(),
        format!("{whole}{whole}"),
        whole.replace("name_key", "name-key"),
        whole.replacen('{', r#"{"comment":"","#, 1),
        whole.replace(r#""id""#, r#""use":"sig","id""#),
        whole.replace(r#""id""#, r#""id":"k0","id""#),
        whole.replace(r#""k1""#, "1"),
        whole.replace(r#""2026-11-23T07:15:02Z""#, "1795421702"),
        format!(r#"{{"name_key":"{NAME}"}}"#),
        format!(r#"{{"name_key":null,"sealing_keys":[{one}]}}"#),
        format!(r#"{{"name_key":"{NAME}","sealing_keys":{one}}}"#),
        "[".repeat(10_000),
    ];
    malformed.extend((1..whole.len()).map(|at| whole[..at].to_owned()));
    for text in malformed {
        assert!(matches!(load_text(&text), Err(KeyringError::Malformed { .. })), "{text}");
    }
    assert!(matches!(load_text([0xff, 0xfe]), Err(KeyringError::Malformed { .. })));
}

#[test]
fn a_keyring_with_a_fault_is_refused_by_its_name() {
    let time = "2026-11-23T07:15:02Z";
    let one = key("k1", time);
    assert_eq!(fault(&document("")), Fault::NoSealingKey);
    assert_eq!(fault(&document(&format!("{one},{one}"))), Fault::DuplicateId(2));
    for id in ["", "k:1", "k 1", "ключ", &"k".repeat(33)] {
        assert_eq!(fault(&document(&format!("{one},{}", key(id, time)))), Fault::KeyId(2), "{id}");
    }
    for time in ["", "yesterday", "2026-11-23", "2026-11-23T07:15:02+01:00", "1969-12-31T23:59:59Z"] {
        assert_eq!(fault(&document(&key("k1", time))), Fault::CreatedAt(1), "{time}");
    }
    for secret in
        ["", &SECRET[1..], &format!("{SECRET}A"), &format!("{SECRET}="), &SECRET.replace('I', "+"), &"A".repeat(200)]
    {
        assert_eq!(fault(&document(&one).replace(SECRET, secret)), Fault::Secret(1), "{secret}");
        assert_eq!(fault(&document(&one).replace(NAME, secret)), Fault::NameKey, "{secret}");
    }
    assert_eq!(fault(&document(&one).replace('{', &format!("{{{}", " ".repeat(40_000)))), Fault::TooLarge);
}

#[test]
fn no_error_shows_what_the_file_holds() {
    let whole = document(&key("k1", "2026-11-23T07:15:02Z"));
    let leaky = [
        whole.replace("\"name_key\":", ""),
        whole.replace("\"id\":\"k1\"", &format!("\"id\":\"{SECRET}{SECRET}\"")),
        whole.replace("\"id\"", &format!("\"{SECRET}\":1,\"id\"")),
        whole.replace("2026-11-23T07:15:02Z", SECRET),
        whole.replace("[", &format!("\"{SECRET}\",[")),
        format!("\"{SECRET}\""),
        whole.replace(SECRET, &SECRET[1..]),
    ];
    for text in leaky {
        let error = load_text(&text).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(&SECRET[1..]) && !shown.contains(NAME), "{shown}");
        assert!(error.to_string().contains("keyring.json") && error.to_string().lines().count() == 1, "{error}");
    }
}

#[test]
fn a_keyring_that_others_can_access_is_refused() {
    let (_folder, path) = folder();
    Keyring::create(&path, NOW).unwrap();
    for mode in [0o400, 0o600, 0o440, 0o640, 0o700, 0o750] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(Keyring::load(&path, Duration::ZERO).is_ok(), "{mode:o}");
    }
    for mode in [0o604, 0o602, 0o601, 0o620, 0o660, 0o644, 0o666, 0o777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let refused = Keyring::load(&path, Duration::ZERO);
        assert!(matches!(refused, Err(KeyringError::Exposed { mode: m, .. }) if m == mode), "{mode:o}");
        let refused = rotate(&path, NOW);
        assert!(matches!(refused, Err(KeyringError::Exposed { .. })), "{mode:o}");
    }
}

#[test]
fn what_is_no_file_is_refused_without_waiting_for_it() {
    let (folder, path) = folder();
    assert!(matches!(Keyring::load(&path, Duration::ZERO), Err(KeyringError::Missing { .. })));
    assert!(matches!(rotate(&path, NOW), Err(KeyringError::Missing { .. })));
    let refused = Keyring::load(folder.path(), Duration::ZERO);
    assert!(matches!(refused, Err(KeyringError::Unsound { fault: Fault::NotAFile, .. })));
    let below = folder.path().join("absent/keyring.json");
    assert!(matches!(Keyring::create(&below, NOW), Err(KeyringError::File { .. })));
}

#[test]
fn a_new_keyring_is_private_and_never_overwrites() {
    let (folder, path) = folder();
    Keyring::create(&path, NOW).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let before = fs::read(&path).unwrap();
    assert!(matches!(Keyring::create(&path, NOW), Err(KeyringError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
    let dangling = folder.path().join("link.json");
    symlink(folder.path().join("elsewhere"), &dangling).unwrap();
    assert!(matches!(Keyring::create(&dangling, NOW), Err(KeyringError::Exists { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left behind");
}

#[test]
fn a_keyring_is_made_once_and_then_found() {
    let (_folder, path) = folder();
    let made = Keyring::load_or_create(&path, Duration::ZERO, NOW).unwrap();
    let found = Keyring::load_or_create(&path, Duration::ZERO, NOW.plus(MINUTE)).unwrap();
    assert_eq!(names(&made), names(&found));
    fs::write(&path, "{").unwrap();
    assert!(matches!(Keyring::load_or_create(&path, Duration::ZERO, NOW), Err(KeyringError::Malformed { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"{");
}

#[test]
fn two_new_keyrings_share_nothing() {
    let (first, second) = (Keyring::ephemeral(NOW).unwrap(), Keyring::ephemeral(NOW).unwrap());
    assert_ne!(names(&first), names(&second));
    let sealed = first.seal(&place(), EMAIL, NOW).unwrap();
    assert_eq!(second.open(&place(), &sealed).unwrap_err(), OpenError::Damaged);
}

#[test]
fn rotation_keeps_names_and_opens_what_was_sealed() {
    let (folder, path) = folder();
    Keyring::create(&path, NOW).unwrap();
    let before = Keyring::load(&path, 10 * MINUTE).unwrap();
    let sealed = before.seal(&place(), EMAIL, NOW).unwrap();
    let rotated = NOW.plus(60 * MINUTE);
    assert_eq!(rotate(&path, rotated).unwrap(), "k2");
    let after = Keyring::load(&path, 10 * MINUTE).unwrap();
    assert_eq!(after.sealing_key_ids().collect::<Vec<_>>(), [("k2", rotated), ("k1", NOW)]);
    assert_eq!(names(&after), names(&before));
    assert_eq!(&after.open(&place(), &sealed).unwrap()[..], EMAIL);
    assert_eq!((after.active(rotated), after.active(rotated.plus(10 * MINUTE))), ("k1", "k2"));
    let newer = after.seal(&place(), EMAIL, rotated.plus(10 * MINUTE)).unwrap();
    assert_eq!(before.open(&place(), &newer).unwrap_err(), OpenError::UnknownKey("k2".into()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
}

#[test]
fn a_second_rotation_within_the_second_is_the_newer() {
    let (_folder, path) = folder();
    Keyring::create(&path, NOW).unwrap();
    rotate(&path, NOW).unwrap();
    rotate(&path, NOW).unwrap();
    let keys = Keyring::load(&path, Duration::ZERO).unwrap();
    assert_eq!(keys.sealing_key_ids().map(|(id, _)| id).collect::<Vec<_>>(), ["k3", "k2", "k1"]);
}

#[test]
fn a_rotation_never_takes_an_id_that_was_used() {
    let (_folder, path) = folder();
    for (ids, next) in [("k7", "k8"), ("spring", "k1"), ("k4294967295", "k4294967296"), ("k99999999999999999999", "k1")]
    {
        fs::write(&path, document(&key(ids, "2026-11-23T07:15:02Z"))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(rotate(&path, NOW).unwrap(), next, "{ids}");
        let again = rotate(&path, NOW).unwrap();
        assert!(Keyring::load(&path, Duration::ZERO).is_ok() && again != next);
    }
}

#[test]
fn a_rotation_by_a_clock_that_is_behind_changes_nothing() {
    let (_folder, path) = folder();
    Keyring::create(&path, NOW).unwrap();
    let before = fs::read(&path).unwrap();
    let refused = rotate(&path, NOW.minus(MINUTE));
    assert!(matches!(refused, Err(KeyringError::ClockBehind { newest: NOW, .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_rotation_keeps_mode_owner_and_link() {
    let (folder, path) = folder();
    Keyring::create(&path, NOW).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
    let owned = chown(&path, Some(65_532), Some(65_532)).is_ok();
    let before = fs::metadata(&path).unwrap();
    let link = folder.path().join("link.json");
    symlink("keyring.json", &link).unwrap();
    rotate(&link, NOW).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!(after.mode(), before.mode());
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()), "given to another user first: {owned}");
    assert_ne!(after.ino(), before.ino(), "replaced as a whole");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn rotations_stop_before_the_file_is_too_large_to_read() {
    let (_folder, path) = folder();
    let keys: Vec<_> = (0..500).map(|n| key(&format!("k{n}"), "2026-11-23T07:15:02Z")).collect();
    fs::write(&path, document(&keys.join(","))).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let refused = rotate(&path, NOW);
    assert!(matches!(refused, Err(KeyringError::Unsound { fault: Fault::TooLarge, .. })), "{refused:?}");
    assert!(Keyring::load(&path, Duration::ZERO).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_makes_the_reader_fall(text in "\\PC*|[\\[\\]{}:,\"a-z0-9_ ]{0,200}") {
        prop_assert!(load_text(text).is_err());
    }
}
