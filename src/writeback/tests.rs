use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::headers::{Names, Reserved};

const SESSION: &str = r#"{ "schema": { "version": 1, "fields": {
    "step": { "type": "integer", "section": "task" },
    "note": { "type": "string", "section": "task", "max": "64B" },
    "tags": { "type": "list", "section": "task" },
    "role": { "type": "string", "section": "auth", "writable": false } } } }"#;
const ROUTE: &str = r#"{ "name": "a", "upstream": "http://127.0.0.1:1", "session": "optional", "start": true,
    "read": ["task"], "write": ["task"] }"#;

struct Desk {
    names: Names,
    reserved: Reserved,
    schema: Schema,
    permissions: Permissions,
    route: RouteIndex,
}

fn desk() -> Desk {
    let mut problems = Problems::default();
    let schema = Schema::compile(&serde_json::from_str(SESSION).unwrap(), &mut problems).unwrap();
    let routes = [serde_json::from_str::<config::Route>(ROUTE).unwrap()];
    let permissions = Permissions::compile(&routes, &schema, &mut problems);
    let route = crate::route::Table::compile(&routes, &mut problems).routes()[0].index;
    assert!(!problems.has_errors());
    let names = Names::new("cloakroom-").unwrap();
    Desk { reserved: Reserved::new(&names, std::iter::empty()), names, schema, permissions, route }
}

impl Desk {
    fn check(&self, lines: &[(&'static str, &str)]) -> Result<Wish, Rejection> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let collected = Collected::take(&mut headers, &self.names, &self.reserved);
        assert!(headers.is_empty(), "something of ours was left: {headers:?}");
        let (names, schema, permissions) = (&self.names, &self.schema, &self.permissions);
        Checker { names, schema, permissions, route: self.route, by_token: false, keep_all: false }.check(
            &collected,
            Part::Head,
            None,
        )
    }
}

#[test]
fn a_start_takes_fields_of_any_kind_and_nothing_else() {
    let desk = desk();
    let started = desk.check(&[("cloakroom-start", "role=\"admin\", step=1"), ("cloakroom-start", "step=2")]);
    let Ok(Wish::Start(values)) = started else { panic!("{started:?}") };
    assert_eq!(values.len(), 2);
    assert!(matches!(desk.check(&[("cloakroom-start", "no=1")]), Err(Rejection::Unknown(name)) if name == "no"));
    assert!(matches!(desk.check(&[("cloakroom-start", "step")]), Err(Rejection::Misfit { .. })));
    assert!(matches!(
        desk.check(&[("cloakroom-start", "step=1"), ("cloakroom-rotate", "?1")]),
        Err(Rejection::StartAndChange)
    ));
}

#[test]
fn spellings_that_only_look_like_ours_are_stripped_and_not_read() {
    assert!(matches!(desk().check(&[("cloakroom_start", "step=1"), ("cloakroom.set", "step=1")]), Ok(Wish::Nothing)));
}

proptest! {
    /// Any bytes that a header can hold are judged, never a panic, and nothing of ours is passed on.
    #[test]
    fn any_write_back_is_judged(set in "[ -~]{0,60}", unset in "[ -~]{0,40}", start in "[ -~]{0,60}", flag in "[ -~]{0,4}") {
        let desk = desk();
        for lines in [
            vec![("cloakroom-set", set.as_str()), ("cloakroom-unset", unset.as_str()), ("cloakroom-if-match", flag.as_str())],
            vec![("cloakroom-start", start.as_str())],
            vec![("cloakroom-rotate", flag.as_str()), ("cloakroom-end", flag.as_str())],
        ] {
            // Without a session only a start can be permissible.
            let judged = desk.check(&lines);
            prop_assert!(!matches!(judged, Ok(Wish::Change(_))), "{:?}", judged);
        }
    }

    /// What a start permits fits the schema.
    #[test]
    fn a_permitted_start_fits_the_schema(note in "[a-z ]{0,80}", step in proptest::num::i64::ANY) {
        let desk = desk();
        let value = format!("note=\"{note}\", step={step}");
        let fits = note.len() + "note=\"\"".len() <= 64 && step.unsigned_abs() < 1_000_000_000_000_000;
        prop_assert_eq!(desk.check(&[("cloakroom-start", &value)]).is_ok(), fits);
    }
}
