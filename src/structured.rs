//! Field values, as JSON in the store and as Structured Fields (RFC 9651) on the wire.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value as Json;
use sfv::{BareItem, InnerList, Item, ListEntry, RefBareItem};

/// A value that a session field may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Scalar(Scalar),
    List(Vec<Scalar>),
}

/// A value that is not a list.
#[derive(Clone, PartialEq, Eq)]
pub enum Scalar {
    String(String),
    /// At most 15 digits.
    Integer(sfv::Integer),
    /// At most 12 digits and 3 decimals.
    Decimal(sfv::Decimal),
    Boolean(bool),
}

/// Its kind alone: any value may be a sensitive one.
impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String(_) => "String(…)",
            Self::Integer(_) => "Integer(…)",
            Self::Decimal(_) => "Decimal(…)",
            Self::Boolean(_) => "Boolean(…)",
        })
    }
}

impl Scalar {
    /// Reads a JSON scalar; none for null, nested values, and numbers that no structured field can carry.
    pub fn from_json(json: &Json) -> Option<Self> {
        match json {
            Json::String(text) => Some(Self::String(text.clone())),
            Json::Bool(flag) => Some(Self::Boolean(*flag)),
            Json::Number(number) => match number.as_i64() {
                Some(integer) => sfv::Integer::try_from(integer).ok().map(Self::Integer),
                None => decimal(number.as_f64()?).map(Self::Decimal),
            },
            Json::Null | Json::Array(_) | Json::Object(_) => None,
        }
    }

    fn from_item(item: Item) -> Result<Self, Unfit> {
        match item.bare_item {
            BareItem::String(text) => Ok(Self::String(text.into())),
            BareItem::DisplayString(text) => Ok(Self::String(text)),
            BareItem::Integer(integer) => Ok(Self::Integer(integer)),
            BareItem::Decimal(decimal) => Ok(Self::Decimal(decimal)),
            BareItem::Boolean(flag) => Ok(Self::Boolean(flag)),
            BareItem::Token(_) => Err(Unfit::Token),
            BareItem::ByteSequence(_) | BareItem::Date(_) => Err(Unfit::Type),
        }
    }

    /// The structured form; a string outside printable ASCII is a Display String.
    fn bare_item(&self) -> RefBareItem<'_> {
        match self {
            Self::String(text) => match sfv::StringRef::from_str(text) {
                Ok(plain) => RefBareItem::String(plain),
                Err(_) => RefBareItem::DisplayString(text),
            },
            Self::Integer(integer) => RefBareItem::Integer(*integer),
            Self::Decimal(decimal) => RefBareItem::Decimal(*decimal),
            Self::Boolean(flag) => RefBareItem::Boolean(*flag),
        }
    }
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::String(text) => serializer.serialize_str(text),
            Self::Integer(integer) => serializer.serialize_i64(i64::from(*integer)),
            // A double holds 15 significant digits, so the thousandths come back exactly.
            Self::Decimal(decimal) => serializer.serialize_f64(f64::from(*decimal)),
            Self::Boolean(flag) => serializer.serialize_bool(*flag),
        }
    }
}

fn decimal(number: f64) -> Option<sfv::Decimal> {
    let thousandths = (number * 1000.0).round();
    // More than three decimals would be lost without a word.
    if thousandths.abs() >= 1e15 || (number - thousandths / 1000.0).abs() > number.abs() * f64::EPSILON {
        return None;
    }
    sfv::Integer::try_from(thousandths as i64).ok().map(sfv::Decimal::from_integer_scaled_1000)
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Scalar(scalar) => scalar.serialize(serializer),
            Self::List(members) => members.serialize(serializer),
        }
    }
}

impl Value {
    pub fn text(text: &str) -> Self {
        Self::Scalar(Scalar::String(text.to_owned()))
    }

    /// Reads a JSON scalar or an array of scalars.
    pub fn from_json(json: &Json) -> Option<Self> {
        match json {
            Json::Array(members) => members.iter().map(Scalar::from_json).collect::<Option<_>>().map(Self::List),
            scalar => Scalar::from_json(scalar).map(Self::Scalar),
        }
    }

    pub fn to_json(&self) -> Json {
        // Neither a scalar nor a list of them fails to be written.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The text of its JSON, made without a copy of the value in between.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a member of a dictionary. Parameters mean nothing to us and are passed over, as the RFC advises.
    pub fn from_member(member: ListEntry) -> Result<Self, Unfit> {
        match member {
            ListEntry::Item(item) => Scalar::from_item(item).map(Self::Scalar),
            ListEntry::InnerList(InnerList { items, .. }) => {
                items.into_iter().map(Scalar::from_item).collect::<Result<_, _>>().map(Self::List)
            }
        }
    }

    fn scalars(&self) -> &[Scalar] {
        match self {
            Self::Scalar(scalar) => std::slice::from_ref(scalar),
            Self::List(members) => members,
        }
    }

    /// The strings in it.
    pub fn strings(&self) -> impl Iterator<Item = &str> {
        self.scalars().iter().filter_map(|scalar| match scalar {
            Scalar::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Whether the value is `wanted`, or a list that holds it.
    pub fn is_or_holds(&self, wanted: &Value) -> bool {
        match (self, wanted) {
            (Self::List(members), Self::Scalar(one)) => members.contains(one),
            _ => self == wanted,
        }
    }

    /// The bytes of `name=value` as it would be sent.
    pub fn size(&self, name: &str) -> usize {
        if let Some(parts) = plain(Shown::Value(self), &mut itoa::Buffer::new()) {
            return name.len() + parts.iter().map(|part| part.len()).sum::<usize>();
        }
        member(name, Shown::Value(self)).len()
    }
}

/// What stands for a field in the context.
#[derive(Clone, Copy)]
pub enum Shown<'a> {
    Value(&'a Value),
    /// A token: the handle of a sensitive field.
    Handle(&'a str),
}

/// Appends a member to the text of a dictionary, with what separates it from the one before.
pub fn append(dictionary: &mut String, member: &str) {
    if !dictionary.is_empty() && !member.is_empty() {
        dictionary.push_str(", ");
    }
    dictionary.push_str(member);
}

/// A member of a dictionary.
///
/// A name that is no key, or a handle that is no token, makes none; schema and handles are made so that this does not
/// happen.
pub fn member(name: &str, shown: Shown<'_>) -> String {
    let Ok(key) = sfv::KeyRef::from_str(name) else { return String::new() };
    if let Some([sign, value, end]) = plain(shown, &mut itoa::Buffer::new()) {
        return [name, sign, value, end].concat();
    }
    let mut member = String::new();
    let mut serializer = sfv::DictSerializer::with_buffer(&mut member);
    match shown {
        Shown::Value(Value::Scalar(scalar)) => {
            serializer.bare_item(key, scalar.bare_item());
        }
        Shown::Value(Value::List(members)) => {
            let mut list = serializer.inner_list(key);
            for scalar in members {
                list.bare_item(scalar.bare_item());
            }
            let _ = list.finish();
        }
        Shown::Handle(handle) => {
            let Ok(token) = sfv::TokenRef::from_str(handle) else { return String::new() };
            serializer.bare_item(key, token);
        }
    }
    member
}

/// What follows the name of most members, in parts: by the library, which looks at each character anew, they take five
/// times as much. None of what is left to it.
fn plain<'a>(shown: Shown<'a>, digits: &'a mut itoa::Buffer) -> Option<[&'a str; 3]> {
    match shown {
        Shown::Value(Value::Scalar(Scalar::String(text))) if is_plain(text) => Some(["=\"", text, "\""]),
        Shown::Value(Value::Scalar(Scalar::Integer(number))) => Some(["=", digits.format(i64::from(*number)), ""]),
        Shown::Value(Value::Scalar(Scalar::Boolean(flag))) => Some([if *flag { "" } else { "=?0" }, "", ""]),
        Shown::Handle(handle) if sfv::TokenRef::from_str(handle).is_ok() => Some(["=", handle, ""]),
        Shown::Value(_) | Shown::Handle(_) => None,
    }
}

/// Whether a text stands between quotes as it is. All of it is looked at, and so many bytes at once.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |so_far, byte| so_far & (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\'))
}

/// Why a structured value cannot be a field's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Tokens stand for handles, which are never written back.
    Token,
    /// Byte sequences and dates are no field types.
    Type,
}

/// The bare value, for a header of its own: percent-encoded where it is not visible ASCII or is `%`, and in a
/// list also where it is the comma that separates the members.
pub struct Bare<'a>(pub &'a Value);

impl fmt::Display for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = if matches!(self.0, Value::List(_)) { MEMBER } else { HIDDEN };
        for (at, scalar) in self.0.scalars().iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match scalar {
                Scalar::String(text) => write!(f, "{}", percent_encoding::utf8_percent_encode(text, escaped))?,
                Scalar::Integer(integer) => write!(f, "{integer}")?,
                Scalar::Decimal(decimal) => write!(f, "{decimal}")?,
                Scalar::Boolean(flag) => write!(f, "{flag}")?,
            }
        }
        Ok(())
    }
}

/// All that is not visible ASCII, and the escape character itself.
const HIDDEN: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b' ').add(b'%');
const MEMBER: &percent_encoding::AsciiSet = &HIDDEN.add(b',');

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(json: Json) -> String {
        member("f", Shown::Value(&Value::from_json(&json).unwrap()))
    }

    #[test]
    fn values_are_written_as_their_structured_types() {
        assert_eq!(of(json!("a \"b\" \\")), r#"f="a \"b\" \\""#);
        assert_eq!(of(json!("fü")), "f=%\"f%c3%bc\"");
        assert_eq!(of(json!(4)), "f=4");
        assert_eq!(of(json!(1.25)), "f=1.25");
        assert_eq!(of(json!(true)), "f");
        assert_eq!(of(json!(false)), "f=?0");
        assert_eq!(of(json!(["a", 1, true])), r#"f=("a" 1 ?1)"#);
        assert_eq!(of(json!([])), "f=()");
    }

    #[test]
    fn numbers_that_no_field_can_carry_are_refused() {
        for number in [json!(1_000_000_000_000_000_i64), json!(1e15), json!(0.0001), json!(f64::MAX), json!(u64::MAX)] {
            assert_eq!(Value::from_json(&number), None, "{number}");
        }
        assert!(Value::from_json(&json!(999_999_999_999.999)).is_some());
    }

    #[test]
    fn bare_values_are_visible_ascii() {
        let bare = |json| Bare(&Value::from_json(&json).unwrap()).to_string();
        assert_eq!(bare(json!("50% fü\r\n")), "50%25%20f%C3%BC%0D%0A");
        assert_eq!(bare(json!(["a", true, 2])), "a,true,2");
        assert_eq!(bare(json!(["a,b", "c"])), "a%2Cb,c");
        assert_eq!(bare(json!("a,b")), "a,b");
    }

    fn scalar() -> impl Strategy<Value = Scalar> {
        prop_oneof![
            ".{0,20}".prop_map(Scalar::String),
            (-999_999_999_999_999_i64..=999_999_999_999_999)
                .prop_map(|i| Scalar::Integer(sfv::Integer::try_from(i).unwrap())),
            (-999_999_999_999_999_i64..=999_999_999_999_999)
                .prop_map(|i| Scalar::Decimal(sfv::Decimal::from_integer_scaled_1000(i.try_into().unwrap()))),
            any::<bool>().prop_map(Scalar::Boolean),
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![scalar().prop_map(Value::Scalar), prop::collection::vec(scalar(), 0..5).prop_map(Value::List)]
    }

    proptest! {
        #[test]
        fn what_is_written_on_the_wire_reads_back(value in value()) {
            let text = member("f", Shown::Value(&value));
            prop_assert!(text.is_ascii());
            prop_assert_eq!(value.size("f"), text.len());
            let mut parsed = sfv::Parser::new(&text).parse::<sfv::Dictionary>().unwrap();
            prop_assert_eq!(Value::from_member(parsed.swap_remove("f").unwrap()), Ok(value));
        }

        #[test]
        fn what_is_stored_as_json_reads_back(value in value()) {
            let text = value.json();
            prop_assert_eq!(&text, &value.to_json().to_string());
            let again = Value::from_json(&serde_json::from_str(&text).unwrap()).unwrap();
            // A whole decimal is still one in JSON: 4.0, not 4.
            prop_assert_eq!(again, value);
        }

        #[test]
        fn bare_values_carry_no_control(value in value()) {
            prop_assert!(Bare(&value).to_string().bytes().all(|b| (0x21..0x7f).contains(&b)));
        }
    }
}
