//! The three kinds of text that stand for numbers: periods, sizes, rates.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

/// A length of time: `250ms`, `30s`, `15m`, `12h`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Period(pub Duration);

impl Period {
    pub const fn millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }
    pub const fn secs(s: u64) -> Self {
        Self(Duration::from_secs(s))
    }
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl TryFrom<String> for Period {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let (number, unit) = split(&text);
        let scale = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err("a duration is a whole number with ms, s, m, h or d behind it, such as 30s".into()),
        };
        scaled(number, scale).map(Self::millis).ok_or_else(|| "the duration is too large or not a whole number".into())
    }
}

/// A number of bytes: `512B`, `4KiB`, `1MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

impl Size {
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl TryFrom<String> for Size {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let (number, unit) = split(&text);
        let scale = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err("a size is a whole number with B, KiB, MiB or GiB behind it, such as 4KiB".into()),
        };
        scaled(number, scale).map(Self).ok_or_else(|| "the size is too large or not a whole number".into())
    }
}

/// So many per second or minute: `10/s`, `600/m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    pub count: std::num::NonZeroU32,
    pub per: Duration,
}

impl Rate {
    pub const fn per_second(count: std::num::NonZeroU32) -> Self {
        Self { count, per: Duration::from_secs(1) }
    }
}

impl TryFrom<String> for Rate {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        const SHAPE: &str = "a rate is a whole number above 0 with /s, /m or /h behind it, such as 10/s";
        let (count, unit) = text.split_once('/').ok_or(SHAPE)?;
        let per = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return Err(SHAPE.into()),
        };
        let count = count.parse().map_err(|_| SHAPE)?;
        Ok(Self { count, per: Duration::from_secs(per) })
    }
}

/// As it would be written in the file: in the largest unit that it is a whole number of.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        written(f, self.as_millis(), &units, "ms")
    }
}

/// As it would be written in the file.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        written(f, self.0, &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")], "B")
    }
}

/// As it would be written in the file.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

fn written(f: &mut fmt::Formatter<'_>, number: u64, units: &[(u64, &str)], smallest: &str) -> fmt::Result {
    match units.iter().find(|(scale, _)| number > 0 && number.is_multiple_of(*scale)) {
        Some((scale, unit)) => write!(f, "{}{unit}", number / scale),
        None => write!(f, "{number}{smallest}"),
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn scaled(number: &str, scale: u64) -> Option<u64> {
    number.parse::<u64>().ok()?.checked_mul(scale)
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "examples": ["250ms", "30s", "15m", "12h"] })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$", "examples": ["4KiB", "1MiB"] })
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+/(s|m|h)$", "examples": ["10/s", "600/m"] })
    }
}

/// How `ipnet::IpNet` stands in the schema.
pub(super) struct Network;

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["10.0.0.0/8", "fd00::/8"] })
    }
}
