//! What a pod says about its sidecar.

use std::num::NonZeroU16;

use crate::config::kubernetes::{is_image, is_object_name, is_port_name, repository_of};
use crate::config::{Quantity, below};

use super::pod::Pod;
use super::policy::{Amounts, Policy, Settings};
use super::{DOMAIN, Refusal};

/// Whether a pod itself wants a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Yes,
    No,
    Unsaid,
}

/// All that a pod may say, beside `status`, which the injector says itself.
const KNOWN: [&str; 11] = [
    "inject",
    "port",
    "listen-port",
    "config-map",
    "secret",
    "image",
    "log-level",
    "cpu-request",
    "cpu-limit",
    "memory-request",
    "memory-limit",
];
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

pub fn choice(pod: &Pod) -> Result<Choice, Refusal> {
    let said = ours(pod).find(|(key, _)| *key == "inject");
    match said {
        None => Ok(Choice::Unsaid),
        Some((_, "true")) => Ok(Choice::Yes),
        Some((_, "false")) => Ok(Choice::No),
        Some((key, value)) => Err(refused(key, value, "is \"true\" or \"false\"")),
    }
}

/// The annotations of our domain.
fn ours(pod: &Pod) -> impl Iterator<Item = (&str, &str)> {
    pod.annotations().filter_map(|(key, value)| Some((key.strip_prefix(DOMAIN)?, value)))
}

/// Takes on what the pod says, as far as the bounds go.
pub fn apply(pod: &Pod, policy: &Policy, settings: &mut Settings) -> Result<(), Refusal> {
    for (key, value) in ours(pod) {
        let taken = match key {
            "inject" | "status" => Ok(()),
            "port" => port_name(value).map(|name| {
                settings.app_port = name;
                settings.names_port = true;
            }),
            "listen-port" => listen_port(value, policy).map(|port| settings.port = port),
            "config-map" => object_name(value).map(|name| settings.config_map = name),
            "secret" => object_name(value).map(|name| settings.secret = Some(name)),
            "image" => image(value, policy).map(|image| settings.image = image),
            "log-level" => level(value).map(|level| settings.log_level = level),
            "cpu-request" => amount(value, &policy.most_cpu).map(|cpu| settings.cpu.request = Some(cpu)),
            "cpu-limit" => amount(value, &policy.most_cpu).map(|cpu| settings.cpu.limit = Some(cpu)),
            "memory-request" => amount(value, &policy.most_memory).map(|size| settings.memory.request = Some(size)),
            "memory-limit" => amount(value, &policy.most_memory).map(|size| settings.memory.limit = Some(size)),
            _ => Err(unknown(key)),
        };
        taken.map_err(|problem| refused(key, value, &problem))?;
    }
    consistent("cpu", &settings.cpu)?;
    consistent("memory", &settings.memory)
}

fn refused(key: &str, value: &str, problem: &str) -> Refusal {
    const LONGEST: usize = 60;
    let shown: String = value.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    let more = if value.chars().count() > LONGEST { "…" } else { "" };
    let known = KNOWN.contains(&key);
    let problem = if known { format!("{problem}, not \"{shown}{more}\"") } else { problem.to_owned() };
    Refusal::Annotation { key: key.to_owned(), problem }
}

fn unknown(key: &str) -> String {
    let near = KNOWN.iter().map(|known| (strsim::damerau_levenshtein(key, known), known));
    match near.min_by_key(|(distance, _)| *distance).filter(|(distance, _)| *distance <= 2) {
        Some((_, known)) => format!("is not known; did you mean {}?", below("", known).replacen('/', DOMAIN, 1)),
        None => format!("is not known; there are {}", KNOWN.join(", ")),
    }
}

fn port_name(value: &str) -> Result<String, String> {
    match is_port_name(value) {
        true => Ok(value.to_owned()),
        false => Err("names a port, as services do: up to 15 lower-case letters, digits and -, with a letter".into()),
    }
}

fn listen_port(value: &str, policy: &Policy) -> Result<u16, String> {
    // The sidecar has no capability that a port below 1024 might need.
    let port = value.parse::<NonZeroU16>().ok().map(NonZeroU16::get).filter(|port| *port >= 1024);
    let port = port.ok_or("is a port from 1024 to 65535")?;
    match port == policy.status_port || port == policy.admin_port {
        true => Err("is none of the sidecar's status and admin ports".into()),
        false => Ok(port),
    }
}

fn object_name(value: &str) -> Result<String, String> {
    match is_object_name(value) {
        true => Ok(value.to_owned()),
        false => Err("names an object of the pod's namespace".into()),
    }
}

fn image(value: &str, policy: &Policy) -> Result<String, String> {
    let repositories = &policy.repositories;
    match is_image(value) && repositories.iter().any(|allowed| allowed == repository_of(value)) {
        true => Ok(value.to_owned()),
        false => Err(format!("is an image of {}", repositories.join(" or "))),
    }
}

fn level(value: &str) -> Result<String, String> {
    match LEVELS.contains(&value) {
        true => Ok(value.to_owned()),
        false => Err(format!("is one of {}", LEVELS.join(", "))),
    }
}

fn amount(value: &str, most: &Quantity) -> Result<Quantity, String> {
    let amount = Quantity::parse(value).ok_or("is an amount such as 50m, 2, 64Mi or 1Gi")?;
    if amount > *most { Err(format!("is at most {most}")) } else { Ok(amount) }
}

fn consistent(kind: &str, amounts: &Amounts) -> Result<(), Refusal> {
    match (&amounts.request, &amounts.limit) {
        (Some(request), Some(limit)) if request > limit => {
            let problem = format!("is at least the request, which is {request}; it is {limit}");
            Err(Refusal::Annotation { key: format!("{kind}-limit"), problem })
        }
        _ => Ok(()),
    }
}
