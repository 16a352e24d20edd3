use std::fmt;

/// How bad a problem is: a warning alone does not fail the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    /// As it is written in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong with the configuration, at a place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// JSON pointer to the value, such as `/routes/0/match/path`; empty for the whole file.
    pub path: String,
    pub severity: Severity,
    /// True where the key itself is wrong rather than its value.
    pub at_key: bool,
    /// What is wrong, in one sentence without the value of any secret.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    fn new(path: impl Into<String>, severity: Severity, message: impl fmt::Display, help: Option<String>) -> Self {
        Self { path: path.into(), severity, at_key: false, message: message.to_string(), help }
    }
}

/// Gathers problems, so that all are reported at once.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn error(&mut self, path: impl Into<String>, message: impl fmt::Display) {
        self.push(path, Severity::Error, message, None);
    }

    pub fn error_with_help(&mut self, path: impl Into<String>, message: impl fmt::Display, help: impl Into<String>) {
        self.push(path, Severity::Error, message, Some(help.into()));
    }

    /// Marks the key that the path ends in, where it is the key that names nothing.
    pub fn error_at_key(&mut self, path: impl Into<String>, message: impl fmt::Display, help: Option<String>) {
        let problem = Problem { at_key: true, ..Problem::new(path, Severity::Error, message, help) };
        self.0.push(problem);
    }

    pub fn warning(&mut self, path: impl Into<String>, message: impl fmt::Display) {
        self.push(path, Severity::Warning, message, None);
    }

    pub fn warning_with_help(&mut self, path: impl Into<String>, message: impl fmt::Display, help: impl Into<String>) {
        self.push(path, Severity::Warning, message, Some(help.into()));
    }

    fn push(&mut self, path: impl Into<String>, severity: Severity, message: impl fmt::Display, help: Option<String>) {
        self.0.push(Problem::new(path, severity, message, help));
    }

    /// Adds all of another's.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|p| p.severity == Severity::Error)
    }

    pub fn into_vec(self) -> Vec<Problem> {
        self.0
    }
}
