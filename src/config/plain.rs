//! What an unquoted word is, by YAML 1.2's core schema.

use serde_json::{Number, Value};

/// Reads a plain scalar: null, boolean, number, else text. `yes`, `on` and their like are text.
pub(super) fn value(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::String(text.into()), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    if let Some(octal) = text.strip_prefix("0o") {
        return radix(octal, 8);
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return radix(hex, 16);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return whole(text);
    }
    decimal(digits).then(|| text.parse().ok().and_then(Number::from_f64)).flatten()
}

fn radix(digits: &str, radix: u32) -> Option<Number> {
    let signed = digits.starts_with(['+', '-']);
    (!signed).then(|| u64::from_str_radix(digits, radix).ok()).flatten().map(Number::from)
}

/// A whole number too large for 64 bits is one all the same: what takes it says that it is too large.
fn whole(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    unsigned
        .parse::<u64>()
        .map(Number::from)
        .or_else(|_| unsigned.parse::<i64>().map(Number::from))
        .ok()
        .or_else(|| text.parse().ok().and_then(Number::from_f64))
}

/// `[0-9]* (. [0-9]*)? ([eE] [-+]? [0-9]+)?` with a digit before the exponent.
fn decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let some = |part: &str| !part.is_empty() && digits(part);
    digits(before) && digits(after) && (some(before) || some(after)) && exponent.is_none_or(some)
}
