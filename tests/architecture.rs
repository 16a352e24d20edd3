//! Holds the house to its plan: who may import whom.
//!
//! The plan is `src/lib.rs` itself, read from top to bottom: assembly, the rooms in the order in which a request walks
//! through them, the store, the ground floor, and what stands beside the corridor.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a module stands, and so what it may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Ground,
    Store,
    /// Known to all above the ground floor: what they report to, or what serves those who are no clients.
    Beside,
    /// By its place on the way, the first being 0.
    Room(usize),
    /// Knows every room, and no room knows it.
    Corridor,
    Assembly,
}

/// A breach of the plan.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Breach {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

struct File {
    path: String,
    /// The top-level module that it belongs to.
    module: String,
    /// Numbered from 1, without comments, strings and tests.
    lines: Vec<(usize, String)>,
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files() -> Vec<File> {
    let mut paths = Vec::new();
    collect(&source(), &mut paths);
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn read(path: &Path) -> File {
    let within = path.strip_prefix(source()).expect("a source");
    let first = within.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).expect("a source");
    // A module's tests may stand in any room, since they belong to no build.
    let tests = within.file_stem().is_some_and(|stem| stem == "tests")
        || within.components().any(|part| part.as_os_str() == "tests");
    let text = if tests { String::new() } else { text };
    File {
        path: format!("src/{}", within.display()),
        module: first.trim_end_matches(".rs").to_owned(),
        lines: code(&text),
    }
}

/// The lines of code: no comments, no inline tests.
fn code(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut skipping: Option<usize> = None;
    let mut attribute = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split("//").next().unwrap_or_default();
        let indent = line.len() - line.trim_start().len();
        match skipping {
            Some(depth) if indent == depth && line.trim() == "}" => skipping = None,
            Some(_) => {}
            None if line.trim() == "#[cfg(test)]" => attribute = true,
            None if attribute => {
                attribute = false;
                if line.trim_end().ends_with('{') {
                    skipping = Some(indent);
                }
            }
            None => lines.push((number, line.to_owned())),
        }
    }
    lines
}

/// The modules of `src/lib.rs` with their ranks.
fn ranks() -> BTreeMap<String, Rank> {
    let text = std::fs::read_to_string(source().join("lib.rs")).expect("the map");
    let mut ranks = BTreeMap::new();
    let mut room = 0;
    let mut part = "";
    for line in text.lines() {
        if line.starts_with("// The ground floor") {
            part = "ground";
        } else if line.starts_with("// Beside the corridor") {
            part = "beside";
        }
        let Some(name) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) else { continue };
        let rank = match (part, name) {
            ("ground", _) => Rank::Ground,
            ("beside", _) => Rank::Beside,
            (_, "cli" | "app") => Rank::Assembly,
            (_, "exchange") => Rank::Corridor,
            (_, "store") => Rank::Store,
            _ => {
                room += 1;
                Rank::Room(room - 1)
            }
        };
        ranks.insert(name.to_owned(), rank);
    }
    ranks
}

/// The modules that a line of code names by `crate::`, and what of them.
fn named(line: &str) -> Vec<(String, String)> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group.split(',').map(|part| (word(part.trim()), String::new()))),
            None => {
                let module = word(rest);
                let item = rest[module.len()..].strip_prefix("::").unwrap_or_default();
                found.push((module, item.to_owned()));
            }
        }
    }
    found
}

/// Every import from one top-level module to another.
fn imports(files: &[File]) -> Vec<(&File, usize, String, String)> {
    let mut imports = Vec::new();
    for file in files.iter().filter(|file| !["lib", "main"].contains(&file.module.as_str())) {
        for (number, line) in &file.lines {
            for (module, item) in named(line).into_iter().filter(|(module, _)| *module != file.module) {
                imports.push((file, *number, module, item));
            }
        }
    }
    imports
}

fn rank_of(ranks: &BTreeMap<String, Rank>, module: &str) -> Rank {
    *ranks.get(module).unwrap_or_else(|| panic!("src/lib.rs does not name {module}"))
}

#[track_caller]
fn none(mut breaches: Vec<Breach>) {
    breaches.sort();
    let told: Vec<String> = breaches.iter().map(Breach::to_string).collect();
    assert!(told.is_empty(), "\n{}\n", told.join("\n"));
}

fn breach(file: &File, line: usize, rule: impl Into<String>) -> Breach {
    Breach { file: file.path.clone(), line, rule: rule.into() }
}

#[test]
fn every_module_has_a_place_in_the_map() {
    let ranks = ranks();
    let modules: BTreeSet<String> = files().into_iter().map(|file| file.module).collect();
    let placed: BTreeSet<String> = ranks.keys().cloned().collect();
    let expected: BTreeSet<String> = modules.into_iter().filter(|name| name != "lib" && name != "main").collect();
    assert_eq!(placed, expected);
    assert!(ranks.values().any(|rank| *rank == Rank::Room(5)), "the rooms were not recognised: {ranks:?}");
}

#[test]
fn the_ground_floor_knows_nothing_above_it() {
    let (files, ranks) = (files(), ranks());
    let above = |(file, line, module, _): (&File, usize, String, String)| {
        (rank_of(&ranks, &file.module) == Rank::Ground && rank_of(&ranks, &module) != Rank::Ground)
            .then(|| breach(file, line, format!("the ground floor ({}) imports {module}", file.module)))
    };
    none(imports(&files).into_iter().filter_map(above).collect());
}

#[test]
fn a_room_knows_only_the_rooms_before_it() {
    let (files, ranks) = (files(), ranks());
    let later = |(file, line, module, _): (&File, usize, String, String)| {
        let (own, other) = (rank_of(&ranks, &file.module), rank_of(&ranks, &module));
        let wrong = match own {
            Rank::Room(_) => !matches!(other, Rank::Beside | Rank::Store | Rank::Ground) && other >= own,
            Rank::Store => other != Rank::Ground,
            _ => false,
        };
        wrong.then(|| breach(file, line, format!("{} imports {module}, which comes later on the way", file.module)))
    };
    none(imports(&files).into_iter().filter_map(later).collect());
}

#[test]
fn nobody_imports_the_corridor_but_those_who_assemble_the_house() {
    let (files, ranks) = (files(), ranks());
    let wrong = |(file, line, module, _): (&File, usize, String, String)| {
        let (own, other) = (rank_of(&ranks, &file.module), rank_of(&ranks, &module));
        let allowed = own >= other || other < Rank::Corridor;
        (!allowed).then(|| breach(file, line, format!("{} imports {module}", file.module)))
    };
    none(imports(&files).into_iter().filter_map(wrong).collect());
}

#[test]
fn only_those_who_assemble_the_house_import_the_admin_listener() {
    let (files, ranks) = (files(), ranks());
    let wrong = |(file, line, module, _): (&File, usize, String, String)| {
        (module == "admin" && rank_of(&ranks, &file.module) != Rank::Assembly)
            .then(|| breach(file, line, format!("{} imports admin, which no request reaches", file.module)))
    };
    none(imports(&files).into_iter().filter_map(wrong).collect());
}

#[test]
fn no_two_modules_import_each_other() {
    let files = files();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let imports = imports(&files);
    for (file, _, module, _) in &imports {
        edges.entry(file.module.clone()).or_default().insert(module.clone());
    }
    let reaches = |from: &str, to: &str| {
        let mut open = vec![from.to_owned()];
        let mut seen = BTreeSet::new();
        while let Some(module) = open.pop() {
            if module == to {
                return true;
            }
            if seen.insert(module.clone()) {
                open.extend(edges.get(&module).into_iter().flatten().cloned());
            }
        }
        false
    };
    let cycle = |(file, line, module, _): &(&File, usize, String, String)| {
        reaches(module, &file.module)
            .then(|| breach(file, *line, format!("{} and {module} import each other, by some way", file.module)))
    };
    none(imports.iter().filter_map(cycle).collect());
}

#[test]
fn only_respond_knows_statuses() {
    // The admin listener and the injector answer for themselves, and commands read what they say.
    let allowed = ["respond", "admin", "injector", "cli"];
    let mut breaches = Vec::new();
    for file in files().iter().filter(|file| !allowed.contains(&file.module.as_str())) {
        for (number, line) in &file.lines {
            for (at, _) in line.match_indices("StatusCode::") {
                let constant: String = line[at + "StatusCode::".len()..]
                    .chars()
                    .take_while(|c| *c != ',' && *c != ')' && *c != ' ' && *c != ';')
                    .collect();
                let is_constant = constant.chars().next().is_some_and(char::is_uppercase);
                let upgrades = file.module == "exchange" && constant.starts_with("SWITCHING_PROTOCOLS");
                if is_constant && !upgrades {
                    breaches.push(breach(
                        file,
                        *number,
                        format!("{} names the status {constant}; respond does that", file.module),
                    ));
                }
            }
        }
    }
    none(breaches);
}

#[test]
fn comments_strings_and_tests_are_not_taken_for_code() {
    let text = "use crate::a;\n// use crate::b;\n#[cfg(test)]\nmod tests {\n    use crate::c;\n}\nuse crate::{d, e::F};\n#[cfg(test)]\nmod tests;\n";
    let found: Vec<_> = code(text).iter().flat_map(|(_, line)| named(line)).map(|(module, _)| module).collect();
    assert_eq!(found, ["a", "d", "e"]);
}
