use super::address::Address;
use super::{above_zero, some};
use crate::config::{Caller, Config, ListenerLimits, Problems};
use crate::secret::Secret;

/// Fewer characters than these are worth a warning: they can be guessed.
const TOKEN: usize = 16;
/// What the kernel has room for, its ending zero aside.
const SOCKET_PATH: usize = 107;

pub(super) fn validate(config: &Config, problems: &mut Problems) {
    if config.listeners.is_empty() {
        problems.error("/listeners", "without a listener nothing can arrive");
    }
    addresses(config, problems);
    for (index, listener) in config.listeners.iter().enumerate() {
        limits(&format!("/listeners/{index}/limits"), &listener.limits, problems);
    }
    for (index, network) in config.trusted_proxies.iter().enumerate() {
        if network.prefix_len() == 0 {
            problems.warning(format!("/trusted_proxies/{index}"), "forwarding headers are believed from everybody");
        }
    }
    tokens(config, problems);
}

fn addresses(config: &Config, problems: &mut Problems) {
    let listeners = config.listeners.iter().enumerate();
    let mut all: Vec<(String, &str)> =
        listeners.map(|(i, l)| (format!("/listeners/{i}/address"), l.address.as_str())).collect();
    all.push(("/admin/address".into(), &config.admin.address));
    all.push(("/status/address".into(), &config.status.address));
    let mut taken: Vec<Address> = Vec::new();
    let mut sockets: Vec<&str> = Vec::new();
    for (path, text) in all {
        if let Some(file) = text.strip_prefix("unix:").filter(|_| path.starts_with("/listeners/")) {
            socket(&path, file, &sockets, problems);
            sockets.push(file);
            continue;
        }
        let Some(address) = Address::parse(text) else {
            let help = "an address is HOST:PORT, such as 0.0.0.0:8080 or [::]:8080, or unix:/path for a listener";
            problems.error_with_help(path, "this is not an address to listen on", help);
            continue;
        };
        if taken.iter().any(|t| t.clashes(&address)) {
            problems.error(path.clone(), "another listener has this address already");
        }
        if path == "/admin/address" && !address.is_loopback() {
            let message = "the admin listener can be reached from other hosts";
            problems.warning_with_help(path, message, "listen on 127.0.0.1 and let tools come to it");
        }
        taken.push(address);
    }
}

fn socket(path: &str, file: &str, taken: &[&str], problems: &mut Problems) {
    if file.is_empty() || file.ends_with('/') {
        problems.error_with_help(path, "this names no socket", "unix:/path/to/file");
    } else if file.len() > SOCKET_PATH {
        problems.error(path, format_args!("the path of a Unix socket has at most {SOCKET_PATH} bytes"));
    } else if taken.contains(&file) {
        problems.error(path, "another listener has this address already");
    }
}

fn limits(base: &str, limits: &ListenerLimits, problems: &mut Problems) {
    let bounds = [
        ("connections", limits.connections as u64),
        ("connections_per_peer", limits.connections_per_peer.map_or(1, |n| n as u64)),
        ("head", limits.head.0),
        ("headers", limits.headers as u64),
        ("streams", limits.streams.into()),
    ];
    some(base, bounds, problems);
    let periods = [
        ("first_byte", limits.first_byte),
        ("head_time", limits.head_time),
        ("keep_alive", limits.keep_alive),
        ("stall", limits.stall),
    ];
    above_zero(base, periods, problems);
}

fn tokens(config: &Config, problems: &mut Problems) {
    let mut known: Vec<&Secret> = Vec::new();
    if let Some(admin) = &config.admin.token {
        token("/admin/token", admin, &known, problems);
        known.push(admin);
    }
    let callers = &config.admin.callers;
    for (index, Caller { name, token: secret, resolve }) in callers.iter().enumerate() {
        let base = format!("/admin/callers/{index}");
        if name.trim().is_empty() {
            problems.error(format!("{base}/name"), "a caller needs a name, for the audit trail");
        }
        if callers.iter().take(index).any(|c| c.name == *name) {
            problems.error(format!("{base}/name"), "another caller has this name already");
        }
        if resolve.is_empty() {
            problems.error(format!("{base}/resolve"), "a caller that may resolve no field has no use");
        }
        token(&format!("{base}/token"), secret, &known, problems);
        known.push(secret);
    }
}

fn token(path: &str, token: &Secret, known: &[&Secret], problems: &mut Problems) {
    let text = token.reveal();
    if text.chars().count() < TOKEN {
        problems.warning(path, format_args!("this token has fewer than {TOKEN} characters and can be guessed"));
    }
    if text.is_empty() {
        problems.error(path, "this token is empty");
    } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
        problems.error(path, "this token cannot be sent: it has spaces, line breaks or characters outside ASCII");
    } else if known.iter().any(|k| k.matches(text.as_bytes())) {
        problems.error(path, "this token is somebody else's already");
    }
}
