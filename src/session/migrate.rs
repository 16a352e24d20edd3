//! Brings a session of an older schema to the current one, in memory.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::Value as Json;

use crate::config::{self, FieldType, Problems};
use crate::store::Record;
use crate::structured::{Scalar, Value};

use super::delta::Delta;
use super::schema::{self, Schema};
use super::vault::{self, Closed, Plain, Vault};

/// What brings a session to version `to`.
#[derive(Debug)]
pub struct Migration {
    to: u32,
    rename: Vec<(Arc<str>, Arc<str>)>,
    convert: Vec<(Arc<str>, FieldType)>,
    set: Vec<(Arc<str>, Arc<str>)>,
    drop: Vec<Arc<str>>,
}

impl Migration {
    /// Compiles all migrations, noting every problem.
    pub(super) fn compile_all(raw: &config::Schema, schema: &Schema, problems: &mut Problems) -> Vec<Self> {
        let mut before = 1;
        for (at, migration) in raw.migrations.iter().enumerate() {
            let place = format!("/session/schema/migrations/{at}");
            if migration.to <= before || migration.to > raw.version {
                problems.error(
                    format!("{place}/to"),
                    format!(
                        "migrations rise one after the other from above 1 to the schema's version, {}",
                        raw.version
                    ),
                );
            }
            before = before.max(migration.to);
            check(migration, &place, raw.migrations.get(at..).unwrap_or_default(), schema, problems);
        }
        if before != raw.version.max(1) && !raw.migrations.is_empty() || (raw.migrations.is_empty() && raw.version > 1)
        {
            problems.error(
                "/session/schema/version",
                format!(
                    "no migration reaches version {}: older sessions would be read as if they were of it",
                    raw.version
                ),
            );
        }
        check_types(&raw.migrations, schema, problems);
        raw.migrations.iter().map(compile).collect()
    }
}

/// What the migrations so far say of a field's values.
#[derive(Clone, Copy)]
enum Known<'a> {
    Kind(FieldType),
    Value(&'a Json),
}

/// Refuses renames that bring a field values which earlier steps made to be of another type: nobody could read them.
fn check_types(raw: &[config::Migration], schema: &Schema, problems: &mut Problems) {
    // With the rename that they came by.
    let mut known: BTreeMap<&str, (Known<'_>, Option<String>)> = BTreeMap::new();
    for (at, migration) in raw.iter().enumerate() {
        for (old, new) in &migration.rename {
            if let Some((what, _)) = known.remove(&**old) {
                known.insert(new, (what, Some(format!("/session/schema/migrations/{at}/rename/{old}"))));
            }
        }
        migration.convert.iter().for_each(|(path, kind)| drop(known.insert(path, (Known::Kind(*kind), None))));
        for (path, value) in &migration.set {
            known.entry(path).or_insert((Known::Value(value), None));
        }
        migration.drop.iter().for_each(|path| drop(known.remove(&**path)));
    }
    for (path, (what, came_by)) in known {
        let (Some(place), Some((_, field))) = (came_by, schema.find(path)) else { continue };
        let fits = match what {
            Known::Kind(kind) => kind == field.kind,
            Known::Value(value) => Value::from_json(value).is_some_and(|value| field.fit(value).is_ok()),
        };
        if !fits {
            problems.error(place, format!("what an earlier step makes of it is no value of '{path}': convert it"));
        }
    }
}

fn compile(raw: &config::Migration) -> Migration {
    Migration {
        to: raw.to,
        rename: raw.rename.iter().map(|(old, new)| (old.as_str().into(), new.as_str().into())).collect(),
        convert: raw.convert.iter().map(|(path, kind)| (path.as_str().into(), *kind)).collect(),
        set: raw.set.iter().map(|(path, json)| (path.as_str().into(), json.to_string().into())).collect(),
        drop: raw.drop.iter().map(|path| path.as_str().into()).collect(),
    }
}

/// Checks one migration against the schema; `rest` is it and those after it, which may take its fields further.
fn check(raw: &config::Migration, at: &str, rest: &[config::Migration], schema: &Schema, problems: &mut Problems) {
    let taken_further = |path: &str| {
        rest.iter().skip(1).any(|later| later.rename.contains_key(path) || later.drop.iter().any(|gone| gone == path))
    };
    for (old, new) in &raw.rename {
        let place = format!("{at}/rename/{old}");
        if !schema::is_path(old) {
            problems.error(&place, format!("'{old}' is not a field path"));
        }
        if schema.find(old).is_some() {
            problems
                .error(&place, format!("'{old}' is a field of this schema: a rename would take it away on every load"));
        }
        if schema.find(new).is_none() && !taken_further(new) {
            problems.error(&place, format!("the schema has no field '{new}'"));
        }
    }
    let mut targets = HashSet::new();
    for (old, new) in &raw.rename {
        if !targets.insert(new) {
            problems.error(format!("{at}/rename/{old}"), format!("two fields cannot both become '{new}'"));
        }
    }
    let converted_later = |path: &str| rest.iter().skip(1).any(|later| later.convert.contains_key(path));
    for (path, kind) in &raw.convert {
        let place = format!("{at}/convert/{path}");
        match schema.find(path) {
            Some((_, field)) if field.kind != *kind && !converted_later(path) => {
                problems.error(place, format!("'{path}' is converted to another type than the schema gives it"));
            }
            None if !taken_further(path) => problems.error(place, format!("the schema has no field '{path}'")),
            _ => {}
        }
    }
    for (path, json) in &raw.set {
        let place = format!("{at}/set/{path}");
        match schema.find(path) {
            Some((_, field)) => match Value::from_json(json).map(|value| field.fit(value)) {
                Some(Ok(_)) => {}
                Some(Err(misfit)) => problems.error(place, format!("the value {misfit}")),
                None => problems.error(place, "is no value that a field can have"),
            },
            None if !taken_further(path) => problems.error(place, format!("the schema has no field '{path}'")),
            None => {}
        }
    }
    for (n, path) in raw.drop.iter().enumerate() {
        let set_again =
            rest.iter().any(|later| later.set.contains_key(path) || later.rename.values().any(|new| new == path));
        if schema.find(path).is_some() && !set_again {
            problems.warning(
                format!("{at}/drop/{n}"),
                format!("'{path}' is a field of this schema; sessions lose it once"),
            );
        }
    }
}

/// A value on its way: where it came from and when it was changed.
struct Moving {
    plain: Plain,
    revision: u64,
    /// Whether it was sealed, and so must be where it arrives.
    sealed: bool,
}

impl Moving {
    fn copy(&self) -> Self {
        Self { plain: self.plain.clone(), revision: self.revision, sealed: self.sealed }
    }
}

/// What the migrations make of a record: nothing if it needs none.
///
/// Renames apply whenever the old path is present, and conversions whenever a value is not of the type that they lead to,
/// because an older sidecar may have written it during a rolling deploy; the rest only to records of an older version.
pub fn migrate(record: &Record, schema: &Schema, vault: &Vault<'_>) -> Result<Option<Vec<Delta>>, Closed> {
    let renamed = |migration: &Migration| migration.rename.iter().any(|(old, _)| record.fields.contains_key(old));
    let outgrown = |(path, kind): &(Arc<str>, FieldType)| is_outgrown(record, schema, path, *kind);
    let asked = |migration: &Migration| renamed(migration) || migration.convert.iter().any(outgrown);
    if record.schema >= schema.version && !schema.migrations.iter().any(asked) {
        return Ok(None);
    }
    let mut fields = Fields { record, vault, moved: BTreeMap::new() };
    for migration in &schema.migrations {
        let mut arrived = HashSet::new();
        for (old, new) in &migration.rename {
            if fields.rename(old, new)? {
                arrived.insert(new);
            }
        }
        let due = record.schema < migration.to;
        for step @ (path, kind) in &migration.convert {
            if due || arrived.contains(path) || outgrown(step) {
                fields.convert(path, *kind)?;
            }
        }
        if due {
            for (path, json) in &migration.set {
                fields.set_where_absent(path, json);
            }
            for path in &migration.drop {
                fields.moved.insert(path.clone(), None);
            }
        }
    }
    if record.schema < schema.version {
        fields.seal_what_became_sensitive(schema)?;
    }
    let deltas = fields.deltas(schema)?;
    // What cannot be read cannot be moved, and is no reason to try for ever.
    Ok((record.schema < schema.version || !deltas.is_empty()).then_some(deltas))
}

/// Whether a record of the current version holds a value that only an older sidecar can have written.
fn is_outgrown(record: &Record, schema: &Schema, path: &str, kind: FieldType) -> bool {
    let Some((_, field)) = schema.find(path).filter(|(_, field)| field.kind == kind && !field.sensitive) else {
        return false;
    };
    let reads = |json: &str| field.read(json).is_some();
    record.schema == schema.version && record.fields.get(path).is_some_and(|stored| !reads(&stored.json))
}

/// The record's fields with what the migrations made of them laid over.
struct Fields<'a> {
    record: &'a Record,
    vault: &'a Vault<'a>,
    /// None: gone.
    moved: BTreeMap<Arc<str>, Option<Moving>>,
}

impl Fields<'_> {
    /// Takes a field's value out; a damaged one stays where it is, and is no value.
    fn read(&self, path: &str) -> Result<Option<Moving>, Closed> {
        if let Some(moving) = self.moved.get(path) {
            return Ok(moving.as_ref().map(Moving::copy));
        }
        let Some(stored) = self.record.fields.get(path) else { return Ok(None) };
        match self.vault.open(path, &stored.json) {
            Ok(plain) => Ok(Some(Moving { plain, revision: stored.revision, sealed: vault::is_sealed(&stored.json) })),
            Err(Closed::Damaged) => Ok(None),
            Err(unknown @ Closed::UnknownKey(_)) => Err(unknown),
        }
    }

    /// Whether a value arrived at the new path.
    fn rename(&mut self, old: &Arc<str>, new: &Arc<str>) -> Result<bool, Closed> {
        let Some(moving) = self.read(old)? else { return Ok(false) };
        self.moved.insert(old.clone(), None);
        // A new path that was unset later than the old one was set stays unset.
        let standing = self.read(new)?.map_or_else(|| self.record.changed_at(new), |other| other.revision);
        if standing >= moving.revision {
            return Ok(false);
        }
        self.moved.insert(new.clone(), Some(moving));
        Ok(true)
    }

    fn convert(&mut self, path: &Arc<str>, kind: FieldType) -> Result<(), Closed> {
        let Some(moving) = self.read(path)? else { return Ok(()) };
        let value = serde_json::from_str(&moving.plain).ok().and_then(|json: Json| Value::from_json(&json));
        match value.and_then(|value| converted(value, kind)) {
            Some(value) => {
                let plain = Plain::new(value.json());
                if *plain != *moving.plain {
                    self.moved.insert(path.clone(), Some(Moving { plain, ..moving }));
                }
            }
            None => {
                self.moved.insert(path.clone(), None);
            }
        }
        Ok(())
    }

    fn set_where_absent(&mut self, path: &Arc<str>, json: &str) {
        let present = match self.moved.get(path) {
            Some(moving) => moving.is_some(),
            None => self.record.fields.contains_key(path),
        };
        if !present {
            self.moved
                .insert(path.clone(), Some(Moving { plain: Plain::new(json.to_owned()), revision: 0, sealed: false }));
        }
    }

    /// Has values in clear of fields that are sensitive by now be written anew, which seals them.
    fn seal_what_became_sensitive(&mut self, schema: &Schema) -> Result<(), Closed> {
        for (_, field) in schema.fields().filter(|(_, field)| field.sensitive) {
            if stands_in_clear(self.record, &field.path)
                && !self.moved.contains_key(&field.path)
                && let Some(moving) = self.read(&field.path)?
            {
                self.moved.insert(field.path.clone(), Some(moving));
            }
        }
        Ok(())
    }

    /// What differs from the record.
    fn deltas(self, schema: &Schema) -> Result<Vec<Delta>, Closed> {
        let mut deltas = Vec::new();
        for (path, moving) in self.moved {
            let before = match self.record.fields.get(&path) {
                Some(stored) => Some(match self.vault.open(&path, &stored.json) {
                    Ok(plain) => plain,
                    Err(Closed::Damaged) => Plain::new(stored.json.to_string()),
                    Err(unknown @ Closed::UnknownKey(_)) => return Err(unknown),
                }),
                None => None,
            };
            let field = schema.find(&path).map(|(_, field)| field);
            let seals = field.is_some_and(|field| field.sensitive);
            // What was sealed is lost rather than laid open by a schema that forgot to say so.
            let after = moving.filter(|moving| seals || !moving.sealed).map(|moving| moving.plain);
            if before == after && !(seals && stands_in_clear(self.record, &path)) {
                continue;
            }
            deltas.push(Delta {
                path,
                before,
                after,
                sensitive: seals,
                shown: field.is_some_and(|field| field.audit_value),
            });
        }
        Ok(deltas)
    }
}

fn stands_in_clear(record: &Record, path: &str) -> bool {
    record.fields.get(path).is_some_and(|stored| !vault::is_sealed(&stored.json))
}

/// The value as another type, where nothing is lost by it.
fn converted(value: Value, kind: FieldType) -> Option<Value> {
    if let Some(same) = schema::typed(kind, value.clone()) {
        return Some(same);
    }
    match (kind, value) {
        (FieldType::List, Value::Scalar(scalar)) => Some(Value::List(vec![scalar])),
        (_, Value::List(_)) => None,
        (FieldType::String, Value::Scalar(scalar)) => Some(Value::Scalar(Scalar::String(text_of(&scalar)))),
        (kind, Value::Scalar(Scalar::String(text))) => {
            let json: Json = serde_json::from_str(text.trim()).ok()?;
            schema::typed(kind, Value::from_json(&json)?)
        }
        (FieldType::Integer, Value::Scalar(Scalar::Decimal(decimal))) => {
            let thousandths = i64::from(decimal.as_integer_scaled_1000());
            let whole = (thousandths % 1000 == 0).then_some(thousandths / 1000)?;
            Some(Value::Scalar(Scalar::Integer(sfv::Integer::try_from(whole).ok()?)))
        }
        _ => None,
    }
}

fn text_of(scalar: &Scalar) -> String {
    match scalar {
        Scalar::String(text) => text.clone(),
        Scalar::Integer(integer) => integer.to_string(),
        Scalar::Decimal(decimal) => decimal.to_string(),
        Scalar::Boolean(flag) => flag.to_string(),
    }
}
