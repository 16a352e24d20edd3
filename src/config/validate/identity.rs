use super::{header, limit, some, url};
use crate::config::{Config, Problems, SameSite, SessionUse};

pub(super) fn validate(config: &Config, problems: &mut Problems) {
    carriers(config, problems);
    cookie(config, problems);
    if let Some(bad) = &config.identity.bad_credentials {
        some("/identity/bad_credentials", [("burst", bad.burst.into())], problems);
        if let Some(burst) = std::num::NonZeroU32::new(bad.burst) {
            limit::quota("/identity/bad_credentials", bad.rate, burst, problems);
        }
    }
    for (index, origin) in config.origins.iter().enumerate() {
        if !url::is_origin(origin) {
            let help = "an origin is SCHEME://HOST[:PORT] in lower case, without a path and without the default port";
            problems.error_with_help(format!("/origins/{index}"), "no browser sends this origin", help);
        }
    }
    prefix(config, problems);
}

fn carriers(config: &Config, problems: &mut Problems) {
    let ids = &config.identity.session_id;
    let tokens = !config.identity.issuers().is_empty() || !config.identity.introspections().is_empty();
    let needed = !tokens && config.routes.iter().any(|r| r.session != SessionUse::None);
    if needed && ids.cookie.is_none() && !ids.bearer && ids.header.is_none() {
        let help = "allow a cookie, bearer or a header";
        problems.error_with_help("/identity/session_id", "no session id can arrive, and a route needs one", help);
    }
    let Some(name) = &ids.header else { return };
    if let Some(refusal) = header::refusal(name) {
        problems.error("/identity/session_id/header", refusal);
    }
}

fn cookie(config: &Config, problems: &mut Problems) {
    let attributes = &config.cookie;
    if attributes.same_site == SameSite::None && !attributes.secure {
        let help = "browsers drop such a cookie; set `secure: true`";
        problems.error_with_help("/cookie/same_site", "`none` needs a secure cookie", help);
    }
    if attributes.domain.as_deref().is_some_and(|d| !super::address::is_host(d.strip_prefix('.').unwrap_or(d))) {
        problems.error("/cookie/domain", "this is not a domain");
    }
    let Some(name) = &config.identity.session_id.cookie else { return };
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        problems.error("/identity/session_id/cookie", "this is not a cookie name");
    }
    // Without `secure` the name is used without `__Host-`, so that a domain does no harm.
    if attributes.domain.is_some() && attributes.secure && name.starts_with("__Host-") {
        let help = "name the cookie otherwise in `identity.session_id.cookie`, for instance `__Secure-session`";
        problems.error_with_help("/cookie/domain", "browsers drop a `__Host-` cookie that has a domain", help);
    }
    if name.starts_with("__Secure-") && !attributes.secure {
        let message = "browsers drop a `__Secure-` cookie that is not secure";
        problems.error("/identity/session_id/cookie", message);
    }
}

fn prefix(config: &Config, problems: &mut Problems) {
    const PATH: &str = "/headers/prefix";
    let prefix = &config.headers.prefix;
    let token = http::HeaderName::from_bytes(prefix.as_bytes()).is_ok();
    let lower = !prefix.bytes().any(|b| b.is_ascii_uppercase());
    if !token || !lower || !prefix.ends_with('-') || prefix.len() < 2 {
        let help = "a prefix is the beginning of a header name in lower case and ends in `-`, such as `cloakroom-`";
        problems.error_with_help(PATH, "this is not a prefix", help);
    } else if let Some(name) = header::swallowed(prefix) {
        problems.error(PATH, format_args!("the header `{name}` begins so too, and nobody could send it any more"));
    }
}
