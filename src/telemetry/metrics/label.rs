//! What figures are told apart by: names of the configuration, and closed lists.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Request {
    pub route: Arc<str>,
    pub code: u16,
    pub outcome: Ended,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Route {
    pub route: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WriteBacks {
    pub route: Arc<str>,
    pub outcome: WriteBack,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RateLimited {
    pub route: Arc<str>,
    pub per: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    pub reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SinkName {
    pub sink: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Op {
    pub op: StoreOp,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reloads {
    pub outcome: Reload,
}

/// A closed list of words, the same in figures, logs and traces.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$note:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
        pub enum $name { $($(#[$note])* $variant,)+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
                EncodeLabelValue::encode(&self.name(), encoder)
            }
        }
    };
}

words! {
    /// How an exchange ended.
    Ended {
        /// The backend's response, to its end.
        Passed = "passed",
        /// With an answer of cloakroom's own.
        Refused = "refused",
        /// Before the response was whole, by whomever.
        Aborted = "aborted",
    }
}

words! {
    /// What became of a write-back.
    WriteBack {
        Committed = "committed",
        Unchanged = "unchanged",
        Rejected = "rejected",
        Conflict = "conflict",
        Gone = "gone",
        StoreError = "store_error",
        Started = "started",
        /// In trailers that do not count.
        Ignored = "ignored",
    }
}

words! {
    /// What a store is asked for.
    StoreOp {
        Load = "load",
        Commit = "commit",
        Touch = "touch",
        /// A page of an audit trail.
        Trail = "trail",
        /// The sessions of a user.
        List = "list",
        /// A page of all sessions.
        Walk = "walk",
        /// An addition to the feed of revocations.
        Revoke = "revoke",
        /// The whole feed.
        Feed = "feed",
        /// Of a rate that sidecars share.
        Take = "take",
        /// Whether it answers at all; asked every second.
        Probe = "probe",
    }
}

words! {
    /// What became of a new configuration.
    Reload {
        Applied = "applied",
        /// It is the one that holds already.
        Unchanged = "unchanged",
        Refused = "refused",
    }
}
