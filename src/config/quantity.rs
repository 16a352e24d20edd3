//! Kubernetes' amounts of CPU and memory.

use std::fmt;

/// An amount such as `50m`, `2`, `64Mi` or `1Gi`, as Kubernetes writes it.
///
/// Ordered by size: two spellings of one amount are equal.
#[derive(Debug, Clone)]
pub struct Quantity {
    /// In thousandths.
    thousandths: u64,
    text: String,
}

/// What may stand behind the number, and what it is times, in thousandths.
const UNITS: [(&str, u64); 10] = [
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("Ki", 1_000 << 10),
    ("Mi", 1_000 << 20),
    ("Gi", 1_000 << 30),
    ("Ti", 1_000 << 40),
    ("", 1_000),
];

impl Quantity {
    /// Reads an amount above zero: a number with at most three decimals, and a unit. Exponents are not read.
    pub fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || decimals.len() > 3 || decimals.contains('.') || number.ends_with('.') {
            return None;
        }
        let parts: u64 = format!("{whole}{decimals:0<3}").parse().ok()?;
        let product = parts.checked_mul(*scale)?;
        let exact = product.is_multiple_of(1_000) && product > 0;
        exact.then(|| Self { thousandths: product / 1_000, text: text.to_owned() })
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.thousandths == other.thousandths
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.thousandths.cmp(&other.thousandths)
    }
}

/// As it was written.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn one_amount_in_two_spellings_is_equal() {
        for (a, b) in [("500m", "0.5"), ("1", "1000m"), ("1Gi", "1024Mi"), ("1k", "1000"), ("1.5Gi", "1536Mi")] {
            assert_eq!(quantity(a), quantity(b));
        }
        assert!(quantity("64Mi") > quantity("64M") && quantity("100m") < quantity("0.2"));
    }

    #[test]
    fn what_is_no_amount_is_not_read() {
        let huge = "9".repeat(30);
        for text in ["", "m", "0", "0m", "-1", "1e3", "1 Gi", "1gi", "1.2.3", ".5", "1.", "0.0001", "0.5m", "١", &huge]
        {
            assert!(Quantity::parse(text).is_none(), "{text}");
        }
    }
}
