use serde_json::Value;

use super::Config;

/// The JSON Schema (draft 2020-12) of the file, for editors; and for the loader, which walks the file along it.
///
/// What is not supported yet is not in it.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(Config);
    schema.insert("title".into(), "cloakroom".into());
    schema.to_value()
}
