//! The injector's figures for Prometheus.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::review::Outcome;

#[derive(Clone)]
pub struct Figures {
    registry: Arc<Registry>,
    pods: Family<Pods, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Pods {
    outcome: &'static str,
}

impl Default for Figures {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("cloakroom");
        let pods = Family::<Pods, Counter>::default();
        // There from the start, so that a first refusal is an increase.
        for outcome in [Outcome::Injected, Outcome::Untouched, Outcome::Refused, Outcome::Admitted] {
            drop(pods.get_or_create(&Pods { outcome: outcome.word() }));
        }
        registry.register(
            "injector_pods",
            "Pods that the API server has asked about, by what became of them",
            pods.clone(),
        );
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", version);
        Self { registry: Arc::new(registry), pods }
    }
}

impl Figures {
    pub fn count(&self, outcome: Outcome) {
        self.pods.get_or_create(&Pods { outcome: outcome.word() }).inc();
    }

    /// In OpenMetrics' text; none if it cannot be written.
    pub fn encode(&self) -> Option<String> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).ok()?;
        Some(text)
    }
}
