use proptest::prelude::*;

use super::*;

/// Pieces of which configurations, and what is nearly one, are made.
fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "version: 1",
        "session:",
        "schema",
        ": ",
        "\n",
        "\n  ",
        "\n    - ",
        "{ ",
        " }",
        "[",
        "]",
        ", ",
        "&a ",
        "*a",
        "!!str ",
        "\"",
        "'",
        "|\n",
        "# x",
        "---\n",
        "routes:",
        "name: a",
        "upstream: http://127.0.0.1:1",
        "token: hunter2",
        "admin:",
        "${env:TOKEN}",
        "${env:",
        "${file:x}",
        "${",
        "}",
        "fields: {}",
        "? ",
        "é",
        "\u{feff}",
        "\r\n",
        "\t",
        "~",
        "0x",
        "<<",
        "listeners:",
        "match: { path: /a }",
        "store: { kind: redis }",
        "tls:",
        "null",
        "1e999",
        "%YAML",
        "😀",
        "\u{0}",
        "\u{85}",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..40).prop_map(|parts| parts.concat())
}

fn holds(text: &str) -> Result<(), TestCaseError> {
    let Err(diagnostics) = read(text) else { return Ok(()) };
    let lines = text.split('\n').count();
    prop_assert!(diagnostics.has_errors());
    for diagnostic in diagnostics.iter() {
        prop_assert!((1..=lines).contains(&diagnostic.line), "{diagnostic:?}");
        let line = text.split('\n').nth(diagnostic.line - 1).unwrap_or_default();
        prop_assert!(diagnostic.column <= line.chars().count() + 1, "{diagnostic:?}");
    }
    let shown = diagnostics.render(false);
    prop_assert!(!shown.contains(TOKEN));
    diagnostics.to_json();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_loads_or_is_refused_at_a_line_that_it_has(text in any::<String>()) {
        holds(&text)?;
    }

    #[test]
    fn anything_like_a_configuration_loads_or_is_refused_at_a_line_that_it_has(text in pieces()) {
        holds(&text)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_sound_file_with_a_piece_cut_out_loads_or_is_refused(from in 0..400usize, length in 0..40usize) {
        let text = include_str!("../../../config/reference.yaml");
        let cut: String = text.chars().enumerate().filter(|(i, _)| !(from * 20..from * 20 + length).contains(i)).map(|(_, c)| c).collect();
        holds(&cut)?;
    }
}
