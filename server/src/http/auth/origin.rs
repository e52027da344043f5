//! Where a browser's request comes from, and whether a session's cookie can live there.
//!
//! The cookie is `Secure`: browsers keep it where they reach the server by https, or on their own
//! machine, and drop it without a word everywhere else.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

use crate::config::split_url as split;

/// Whether a request comes from a page of this server. Browsers send `Origin` with every unsafe
/// request; without one, only `Sec-Fetch-Site` can tell. `url`: where people reach the server.
#[must_use]
pub fn is_own(headers: &HeaderMap, url: &str) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else {
        let site = headers.get("sec-fetch-site").and_then(|v| v.to_str().ok());
        return site == Some("same-origin");
    };
    let host = text(header::HOST).unwrap_or_default();
    if let Some((scheme, public, _)) = split(url) {
        // A proxy may pass on another `Host` than browsers see.
        if same(origin, scheme, public) {
            return true;
        }
        // Whoever can change what comes by http must not act through https.
        if scheme == "https" && public.eq_ignore_ascii_case(host) {
            return false;
        }
    }
    !host.is_empty() && (same(origin, "https", host) || same(origin, "http", host))
}

fn same(origin: &str, scheme: &str, host: &str) -> bool {
    split(origin).is_some_and(|(s, h, rest)| {
        s.eq_ignore_ascii_case(scheme) && h.eq_ignore_ascii_case(host) && rest.is_empty()
    })
}

/// Whether no browser sent it, or one from a page of this server.
#[must_use]
pub fn is_own_or_no_browsers(headers: &HeaderMap, url: &str) -> bool {
    let browser = headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
    !browser || is_own(headers, url)
}

/// Whether browsers keep the cookie of a session that begins with this request. `is_https`: a proxy
/// that is trusted says so.
#[must_use]
pub fn keeps_cookies(headers: &HeaderMap, url: &str, is_https: bool) -> bool {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    if let Some(origin) = text("origin").filter(|origin| *origin != "null") {
        return can_hold_sessions(origin);
    }
    let host = text("host").unwrap_or_default();
    let public = split(url)
        .is_some_and(|(scheme, public, _)| scheme == "https" && public.eq_ignore_ascii_case(host));
    // Browsers send the fetch metadata only to where they trust the connection.
    public || is_https || is_loopback(host) || headers.contains_key("sec-fetch-site")
}

/// Whether browsers that reach the server at `url` keep the cookie of a session.
#[must_use]
pub fn can_hold_sessions(url: &str) -> bool {
    split(url).is_some_and(|(scheme, host, _)| scheme == "https" || is_loopback(host))
}

/// Whether `host`, with or without a port, is this machine to whoever says so.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let local = name.eq_ignore_ascii_case("localhost") || name.ends_with(".localhost");
    local || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_page_of_this_server_is_one_at_its_host_or_its_public_address() {
        let url = "https://exile.example/chat";
        let cases: [(&[(&str, &str)], bool); 11] = [
            (&[("origin", "https://exile.example"), ("host", "10.0.0.5:8080")], true),
            (&[("origin", "http://exile.example"), ("host", "10.0.0.5:8080")], false),
            (&[("origin", "https://exile.example"), ("host", "exile.example")], true),
            (&[("origin", "http://exile.example"), ("host", "exile.example")], false),
            (&[("origin", "https://evil.example"), ("host", "10.0.0.5:8080")], false),
            (&[("origin", "http://10.0.0.5:8080"), ("host", "10.0.0.5:8080")], true),
            (&[("origin", "http://10.0.0.5"), ("host", "10.0.0.5:8080")], false),
            (&[("origin", "null"), ("host", "10.0.0.5:8080")], false),
            (&[("host", "10.0.0.5:8080")], false),
            (&[("host", "a"), ("sec-fetch-site", "same-origin")], true),
            (&[("host", "a"), ("sec-fetch-site", "same-site")], false),
        ];
        for (given, own) in cases {
            let given: Vec<(&'static str, &str)> = given.to_vec();
            assert_eq!(is_own(&headers(&given), url), own, "{given:?}");
        }
        assert!(is_own_or_no_browsers(&headers(&[("host", "a")]), url), "no browser");
    }

    #[test]
    fn sessions_live_on_https_and_on_ones_own_machine() {
        for url in
            ["https://a.example", "http://localhost:1", "http://127.8.0.1:80", "http://[::1]"]
        {
            assert!(can_hold_sessions(url), "{url}");
        }
        for url in ["http://a.example", "http://10.0.0.1:8080", "http://localhost.example", "x"] {
            assert!(!can_hold_sessions(url), "{url}");
        }
        let url = "https://exile.example";
        let kept = |pairs: &[(&'static str, &str)]| keeps_cookies(&headers(pairs), url, false);
        assert!(kept(&[("host", "exile.example")]));
        assert!(kept(&[("host", "10.0.0.1"), ("sec-fetch-site", "none")]));
        assert!(!kept(&[("host", "10.0.0.1:8080")]));
        assert!(!kept(&[("host", "10.0.0.1"), ("x-forwarded-proto", "https")]), "anybody says so");
        assert!(keeps_cookies(&headers(&[("host", "10.0.0.1:8080")]), url, true));
        assert!(!kept(&[("host", "exile.example"), ("origin", "http://exile.example")]));
    }
}
