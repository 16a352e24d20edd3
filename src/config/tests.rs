use std::path::Path;

use super::*;

fn no_environment(_: &str) -> Option<String> {
    None
}

#[test]
fn an_almost_empty_file_loads_with_the_defaults() {
    let text = "version: 1\nsession: { schema: { version: 1, fields: {} } }\nroutes:\n  - { name: a, upstream: \"http://127.0.0.1:9000\" }\n";
    let loaded = parse(text, Path::new("cloakroom.yaml"), &no_environment).unwrap();
    assert_eq!(loaded.config.environment, "prod");
    assert_eq!(loaded.config.routes[0].timeouts.idle, Period::secs(600));
}
