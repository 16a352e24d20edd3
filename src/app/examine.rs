//! A configuration file, as every room sees it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{self, Config, Diagnostics, Problems};
use crate::exchange::Rooms;
use crate::listener::Terms;
use crate::session::Schema;

/// A configuration without errors, and its rooms.
pub struct Examined {
    pub config: Config,
    pub rooms: Rooms,
    pub schema: Arc<Schema>,
    /// Of its listeners, in the order of the file.
    pub terms: Vec<Terms>,
    pub warnings: Diagnostics,
    /// The files whose contents stand in it.
    pub referred: Vec<PathBuf>,
}

/// Everything that is wrong with a configuration file.
pub struct Refused {
    pub diagnostics: Diagnostics,
    /// The files whose contents stand in it, as far as it could be read.
    pub referred: Vec<PathBuf>,
}

/// Reads a configuration and has every room look at its part. What the rooms of the one before it have open or have
/// counted, these take over.
pub fn examine(path: &Path, before: Option<&Rooms>) -> Result<Examined, Refused> {
    let inspected = config::inspect_file(path).map_err(|diagnostics| Refused { diagnostics, referred: Vec::new() })?;
    let mut problems = Problems::default();
    let rooms = inspected.config.as_ref().and_then(|config| Rooms::compile_after(config, before, &mut problems));
    let terms = inspected.config.as_ref().and_then(|config| Terms::compile(&config.listeners, &mut problems));
    let diagnostics = inspected.source.diagnose(problems);
    let referred = inspected.source.referred().to_vec();
    match (inspected.config, rooms.zip(terms)) {
        (Some(config), Some(((rooms, schema), terms))) if !diagnostics.has_errors() => {
            Ok(Examined { config, rooms, schema, terms, warnings: diagnostics, referred })
        }
        _ => Err(Refused { diagnostics, referred }),
    }
}
