//! A request as it is written on the command line.

use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri};

/// Where a request without a host goes.
const HOST_BY_DEFAULT: &str = "localhost";

/// What a request asks for, not parsed yet: the listener, too, has to make do with anything.
#[derive(Debug, Clone)]
pub struct Target {
    pub secure: bool,
    host: Option<String>,
    /// From the path on, as it is sent.
    rest: String,
}

pub fn method(text: &str) -> Result<Method, &'static str> {
    Method::from_bytes(text.as_bytes()).map_err(|_| "it is no HTTP method")
}

pub fn target(text: &str) -> Result<Target, &'static str> {
    let (secure, after) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(after), _) => (true, after),
        (None, Some(after)) => (false, after),
        (None, None) if text.starts_with('/') || text == "*" => {
            return Ok(Target { secure: false, host: None, rest: text.to_owned() });
        }
        (None, None) => return Err("it begins with http://, https:// or /"),
    };
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let (host, rest) = after.split_at(end);
    // As every client does.
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    if host.is_empty() { Err("it has no host") } else { Ok(Target { secure, host: Some(host.to_owned()), rest }) }
}

pub fn header(text: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let (name, value) = text.split_once(':').ok_or("it is 'Name: value'")?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| "it has no header's name")?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| "its value cannot stand in a header")?;
    Ok((name, value))
}

impl Target {
    pub fn shown(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        match &self.host {
            Some(host) => format!("{scheme}://{host}{}", self.rest),
            None => self.rest.clone(),
        }
    }

    /// Whether there is a fragment, which no parsed target shows.
    pub fn has_fragment(&self) -> bool {
        self.rest.contains('#')
    }

    /// The head as a listener would parse it, or why it could not.
    pub fn head(&self, method: &Method, headers: &[(HeaderName, HeaderValue)]) -> Result<Parts, String> {
        let uri = Uri::try_from(&self.rest).map_err(|error| format!("the target cannot be parsed: {error}"))?;
        let mut request = Request::new(());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        let set = request.headers_mut();
        for (name, value) in headers {
            set.append(name, value.clone());
        }
        if !set.contains_key(HOST) {
            let host = self.host.as_deref().unwrap_or(HOST_BY_DEFAULT);
            set.insert(HOST, HeaderValue::from_str(host).map_err(|_| "the host cannot stand in a header".to_owned())?);
        }
        Ok(request.into_parts().0)
    }
}
