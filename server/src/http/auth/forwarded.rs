//! Where a request came from, as proxies that are trusted say it. What anybody else says of others
//! (`X-Forwarded-*`) is not read.

use std::net::IpAddr;

use axum::http::HeaderMap;

use crate::config::Proxies;

impl Proxies {
    /// Where a request came from that came in over a connection of `peer`'s: `peer`, or the last
    /// address that a trusted proxy names and that is no trusted proxy itself.
    #[must_use]
    pub fn client(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        let named = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
        let mut client = peer;
        for name in named {
            if !self.trusts(client) {
                break;
            }
            let Ok(address) = name.trim().parse() else { break };
            client = address;
        }
        client.to_canonical()
    }

    /// Whether a proxy that is trusted says that it was reached by https.
    #[must_use]
    pub fn is_https(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> bool {
        let says_so = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        says_so && peer.is_some_and(|peer| self.trusts(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn proxies(names: &[&str]) -> Proxies {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        Proxies::parse(&names).unwrap()
    }

    #[test]
    fn only_a_trusted_proxy_says_where_a_request_came_from() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "198.51.100.7, 203.0.113.9".parse().unwrap());
        headers.append("x-forwarded-proto", "https".parse().unwrap());
        let near = proxies(&["10.0.0.1"]);
        for (peer, client) in [
            ("127.0.0.1", "203.0.113.9"),
            ("::1", "203.0.113.9"),
            ("::ffff:127.0.0.1", "203.0.113.9"),
            ("10.0.0.1", "203.0.113.9"),
            ("10.0.0.2", "10.0.0.2"),
            ("192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(near.client(&headers, ip(peer)), ip(client), "{peer}");
            assert_eq!(near.is_https(&headers, Some(ip(peer))), peer != client, "{peer}");
        }
        assert_eq!(near.client(&HeaderMap::new(), ip("10.0.0.1")), ip("10.0.0.1"));
        assert!(!near.is_https(&HeaderMap::new(), Some(ip("10.0.0.1"))));
        assert!(!near.is_https(&headers, None));
    }

    #[test]
    fn a_chain_of_proxies_is_followed_to_the_first_that_is_not_trusted() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "1.1.1.1, 198.51.100.7".parse().unwrap());
        headers.append("x-forwarded-for", "10.0.0.9".parse().unwrap());
        let all = proxies(&["10.0.0.0/8"]);
        assert_eq!(all.client(&headers, ip("10.0.0.1")), ip("198.51.100.7"));
        headers.append("x-forwarded-for", "unknown".parse().unwrap());
        assert_eq!(all.client(&headers, ip("10.0.0.1")), ip("10.0.0.1"), "no address");
    }
}
