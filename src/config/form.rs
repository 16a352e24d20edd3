//! What the schema allows at a place, read off the JSON Schema of the structs.

use serde_json::{Map, Value};

use super::{Period, Rate, Size};

/// The forms that a value may have.
#[derive(Debug, Default)]
pub(super) struct Forms<'s> {
    pub nullable: bool,
    pub choices: Vec<&'s str>,
    pub text: Option<Format>,
    pub boolean: bool,
    pub integer: Option<(i128, i128)>,
    pub number: bool,
    pub list: Option<&'s Value>,
    pub map: Option<MapForm<'s>>,
    pub anything: bool,
}

#[derive(Debug)]
pub(super) struct MapForm<'s> {
    pub properties: Option<&'s Map<String, Value>>,
    pub required: Vec<&'s str>,
    /// What keys of the user's own choice lead to.
    pub rest: Option<&'s Value>,
}

/// How a text is read further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Plain,
    Period,
    Size,
    Rate,
    Network,
    Secret,
}

impl Format {
    fn of(definition: &str) -> Self {
        match definition {
            "Period" => Self::Period,
            "Size" => Self::Size,
            "Rate" => Self::Rate,
            "Network" => Self::Network,
            "Secret" => Self::Secret,
            _ => Self::Plain,
        }
    }

    /// Why the text cannot be read so.
    pub fn refusal(self, text: &str) -> Option<String> {
        match self {
            Self::Plain | Self::Secret => None,
            Self::Period => Period::try_from(text.to_owned()).err(),
            Self::Size => Size::try_from(text.to_owned()).err(),
            Self::Rate => Rate::try_from(text.to_owned()).err(),
            Self::Network => text
                .parse::<ipnet::IpNet>()
                .err()
                .map(|_| "a network is an address and the length of its prefix, such as 10.0.0.0/8".into()),
        }
    }

    /// Something that can be read so, to go on with where the file has nothing that can.
    pub fn stand_in(self) -> &'static str {
        match self {
            Self::Plain | Self::Secret => "",
            Self::Period => "1s",
            Self::Size => "1KiB",
            Self::Rate => "1/s",
            Self::Network => "127.0.0.1/32",
        }
    }
}

impl<'s> Forms<'s> {
    pub fn of(schema: &'s Value, definitions: &'s Value) -> Self {
        let mut forms = Self::default();
        forms.add(schema, definitions, Format::Plain);
        forms
    }

    fn add(&mut self, schema: &'s Value, definitions: &'s Value, format: Format) {
        let Value::Object(object) = schema else {
            self.anything = schema != &Value::Bool(false);
            return;
        };
        if let Some(name) = object.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/")) {
            return definitions.get(name).into_iter().for_each(|d| self.add(d, definitions, Format::of(name)));
        }
        let alternatives = ["anyOf", "oneOf"].iter().filter_map(|k| object.get(*k)?.as_array()).flatten();
        let mut any = false;
        for alternative in alternatives {
            any = true;
            self.add(alternative, definitions, format);
        }
        if !any {
            self.add_one(object, format);
        }
    }

    fn add_one(&mut self, object: &'s Map<String, Value>, format: Format) {
        if let Some(word) = object.get("const").and_then(Value::as_str) {
            return self.choices.push(word);
        }
        if let Some(words) = object.get("enum").and_then(Value::as_array) {
            self.nullable |= words.contains(&Value::Null);
            return self.choices.extend(words.iter().filter_map(Value::as_str));
        }
        match object.get("type") {
            Some(Value::String(kind)) => self.add_kind(kind, object, format),
            Some(Value::Array(kinds)) => {
                kinds.iter().filter_map(Value::as_str).for_each(|kind| self.add_kind(kind, object, format));
            }
            _ => self.anything = true,
        }
    }

    fn add_kind(&mut self, kind: &str, object: &'s Map<String, Value>, format: Format) {
        match kind {
            "null" => self.nullable = true,
            "boolean" => self.boolean = true,
            "integer" => self.integer = Some(bounds(object)),
            "number" => self.number = true,
            "array" => self.list = Some(object.get("items").unwrap_or(&Value::Bool(true))),
            "object" => self.map = Some(MapForm::of(object)),
            _ => self.text = Some(format),
        }
    }

    /// The forms in words, for a sentence such as "… is expected here".
    pub fn in_words(&self) -> String {
        let mut words: Vec<&str> = Vec::new();
        let mut say = |allowed: bool, said: &[&'static str]| words.extend(said.iter().filter(|_| allowed));
        say(self.boolean, &["true", "false"]);
        say(self.integer.is_some(), &["a whole number"]);
        say(self.number, &["a number"]);
        say(self.text.is_some() || !self.choices.is_empty(), &["text"]);
        say(self.list.is_some(), &["a list"]);
        say(self.map.is_some(), &["a mapping"]);
        say(self.nullable, &["null"]);
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        }
    }
}

impl<'s> MapForm<'s> {
    fn of(object: &'s Map<String, Value>) -> Self {
        let required = object.get("required").and_then(Value::as_array);
        Self {
            properties: object.get("properties").and_then(Value::as_object),
            required: required.into_iter().flatten().filter_map(Value::as_str).collect(),
            rest: object.get("additionalProperties").filter(|rest| *rest != &Value::Bool(false)),
        }
    }

    /// How such a mapping is written, in short.
    pub fn in_short(&self) -> String {
        let keys: Vec<&str> = self.required.clone();
        format!("`{{ {}: … }}`", keys.join(": …, "))
    }

    pub fn property(&self, key: &str) -> Option<&'s Value> {
        self.properties?.get(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &'s str> + Clone {
        self.properties.into_iter().flat_map(Map::keys).map(String::as_str)
    }
}

/// The least and the greatest that fit the number's type.
fn bounds(object: &Map<String, Value>) -> (i128, i128) {
    let most = match object.get("format").and_then(Value::as_str) {
        Some("uint8") => u8::MAX.into(),
        Some("uint16") => u16::MAX.into(),
        Some("uint32") => u32::MAX.into(),
        _ => i64::MAX.into(),
    };
    let said = |key| object.get(key).and_then(Value::as_i64).map(i128::from);
    (said("minimum").unwrap_or(i64::MIN.into()), said("maximum").unwrap_or(most))
}
