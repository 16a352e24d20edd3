//! What holds values does not show them.

use serde_json::json;

use crate::house::leak::Leaks;

const EMAIL: &str = "jane.kQ7xTzWm2v@example.org";

#[test]
fn what_holds_values_does_not_show_them_when_it_is_debugged() {
    use cloakroom::handle::SessionId;
    use cloakroom::secret::Secret;
    use cloakroom::structured::Value;
    let leaks = Leaks::default();
    leaks.forbid(EMAIL);
    let id = SessionId::random().unwrap();
    leaks.credential(&id.reveal());
    let value = Value::from_json(&json!(EMAIL)).unwrap();
    let list = Value::from_json(&json!([EMAIL, 1])).unwrap();
    let stored = cloakroom::store::Stored { json: json!(EMAIL).to_string().into(), revision: 3 };
    let shown = format!("{id:?} {:?} {value:?} {list:?} {stored:?} {:#?}", Secret::new(EMAIL.into()), value);
    leaks.search("debug output", shown.as_bytes());
    assert!(shown.contains("String(…)"), "{shown}");
}
