use std::net::IpAddr;

use super::address::Address;
use super::telemetry::log_level;
use crate::config::kubernetes::{is_image, is_object_name, is_port_name, is_repository};
use crate::config::{Injector, KubernetesVersion, Problems, Quantity, Sidecar, SidecarMode, below};

/// The first version in which an init container may keep running without a feature gate.
const NATIVE: (u32, u32) = (1, 29);

pub fn validate(config: &Injector, problems: &mut Problems) {
    if config.version != 1 {
        problems.error_with_help("/version", "this version of the format is not known", "the only one is 1");
    }
    addresses(config, problems);
    log_level("/log/level", &config.log.level, problems);
    match KubernetesVersion::parse(&config.kubernetes) {
        None => {
            let help = "it is what `kubectl version` calls the server, such as \"1.33\"";
            problems.error_with_help("/kubernetes", "this is not a version of Kubernetes", help);
        }
        Some(version) if config.sidecar.mode == SidecarMode::Native && !version.is_at_least(NATIVE.0, NATIVE.1) => {
            let help = "leave the key out: `auto` takes what the cluster has";
            problems.error_with_help("/sidecar/mode", "native sidecars need Kubernetes 1.29 or later", help);
        }
        Some(_) => {}
    }
    sidecar(&config.sidecar, problems);
    bounds(config, problems);
}

fn addresses(config: &Injector, problems: &mut Problems) {
    let both = [("/address", &config.address), ("/status/address", &config.status.address)];
    let mut read = both.map(|(path, text)| {
        let address = Address::parse(text);
        if address.is_none() {
            let help = "an address is HOST:PORT, such as 0.0.0.0:8443 or [::]:8443";
            problems.error_with_help(path, "this is not an address to listen on", help);
        }
        address
    });
    if let [Some(webhook), Some(status)] = &mut read
        && webhook.clashes(status)
    {
        problems.error("/status/address", "the webhook has this address already");
    }
}

fn sidecar(sidecar: &Sidecar, problems: &mut Problems) {
    if !is_image(&sidecar.image) {
        let help = "an image is REPOSITORY:TAG or REPOSITORY@DIGEST, such as ghcr.io/acme/cloakroom:0.1.0";
        problems.error_with_help("/sidecar/image", "this is not an image", help);
    }
    if !is_port_name(&sidecar.app_port) {
        let help = "a port's name has 1 to 15 lower-case letters, digits and `-`, a letter among them";
        problems.error_with_help("/sidecar/app_port", "this is not the name of a port", help);
    }
    if sidecar.address.parse::<IpAddr>().is_err() {
        problems.error_with_help("/sidecar/address", "this is not an IP address", "it is 0.0.0.0 or ::");
    }
    names(sidecar, problems);
    ports(sidecar, problems);
    log_level("/sidecar/log_level", &sidecar.log_level, problems);
    if sidecar.user == Some(0) {
        problems.error("/sidecar/user", "the sidecar does not run as root");
    }
    quantity("/sidecar/data", Some(&sidecar.data), problems);
}

fn names(sidecar: &Sidecar, problems: &mut Problems) {
    let named = [("config_map", Some(&sidecar.config_map)), ("secret", sidecar.secret.as_ref())];
    for (key, name) in named {
        if name.is_some_and(|name| !is_object_name(name)) {
            let help = "it has lower-case letters, digits, `-` and `.`, and begins and ends with a letter or digit";
            problems.error_with_help(below("/sidecar", key), "this is not the name of an object", help);
        }
    }
}

fn ports(sidecar: &Sidecar, problems: &mut Problems) {
    let all = [("port", sidecar.port), ("status_port", sidecar.status_port), ("admin_port", sidecar.admin_port)];
    for (index, (key, port)) in all.iter().enumerate() {
        if *port == 0 {
            problems.error(below("/sidecar", key), "a port is 1 to 65535");
        } else if all.iter().take(index).any(|(_, earlier)| earlier == port) {
            problems.error(below("/sidecar", key), "another of the sidecar's ports has this number already");
        }
    }
}

fn bounds(config: &Injector, problems: &mut Problems) {
    for (index, repository) in config.bounds.images.iter().enumerate() {
        if !is_repository(repository) {
            let help = "it is an image without tag and digest, such as ghcr.io/acme/cloakroom";
            problems.error_with_help(format!("/bounds/images/{index}"), "this is not a repository of images", help);
        }
    }
    let (resources, most) = (&config.sidecar.resources, &config.bounds);
    let kinds = [
        ("cpu", &most.cpu, &resources.cpu_request, &resources.cpu_limit),
        ("memory", &most.memory, &resources.memory_request, &resources.memory_limit),
    ];
    for (kind, most, request, limit) in kinds {
        let most = quantity(&format!("/bounds/{kind}"), Some(most), problems);
        let path = |part| format!("/sidecar/resources/{kind}_{part}");
        let request = quantity(&path("request"), request.as_ref(), problems);
        let limit = quantity(&path("limit"), limit.as_ref(), problems);
        if limit.is_some() && request > limit {
            problems.error(path("request"), "the request is larger than the limit");
        }
        for (part, amount) in [("request", request), ("limit", limit)] {
            if most.is_some() && amount > most {
                problems.error(path(part), format_args!("this is more than `bounds.{kind}` allows"));
            }
        }
    }
}

fn quantity(path: &str, text: Option<&String>, problems: &mut Problems) -> Option<Quantity> {
    let text = text?;
    let read = Quantity::parse(text);
    if read.is_none() {
        problems.error_with_help(path, "this is not an amount", "an amount is such as 50m, 2, 64Mi or 1Gi");
    }
    read
}
