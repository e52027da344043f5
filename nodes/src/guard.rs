//! Which addresses may be connected to: pure policy, no I/O.
//!
//! Invariants:
//! - An address is public or refused; there is no third answer. A range that carries an IPv4
//!   address inside an IPv6 one is refused whole, so that no spelling reaches a private address.
//! - What an operator's configuration names is allowed, whatever its address: [`Allow`] compares
//!   the host as it is written in the URL, never the address it resolves to.
//!
//! Ranges: IANA's special-purpose registries (RFC 6890, as of 2026), and the addresses at which
//! clouds serve credentials to their machines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Why `ip` may not be connected to, as in `a private address`; `None` if it is public.
#[must_use]
pub fn refusal(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => {
            let bits = ip.to_bits();
            V4.iter().find(|(net, len, _)| same(bits, net.to_bits(), 32 - len)).map(|r| r.2)
        }
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            V6.iter().find(|(net, len, _)| same(bits, net.to_bits(), 128 - len)).map(|r| r.2)
        }
    }
}

/// Why a written host may not be looked up at all (RFC 6761): whatever a resolver says, it means
/// this machine.
#[must_use]
pub fn refused_name(host: &str) -> Option<&'static str> {
    let host = plain(host);
    (host == "localhost" || host.ends_with(".localhost")).then_some("a loopback name")
}

/// Whether two addresses agree but for their last `free` bits.
fn same<T: std::ops::BitXor<Output = T> + Into<u128>>(a: T, b: T, free: u32) -> bool {
    (a ^ b).into().checked_shr(free).unwrap_or(0) == 0
}

const V4: &[(Ipv4Addr, u32, &str)] = &[
    (Ipv4Addr::UNSPECIFIED, 8, "an unspecified address"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "a private address"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "a carrier-grade NAT address"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "a loopback address"),
    (Ipv4Addr::new(168, 63, 129, 16), 32, "a cloud metadata address"),
    (Ipv4Addr::new(169, 254, 169, 254), 32, "a cloud metadata address"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "a link-local address"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "a private address"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "a protocol assignment address"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "a documentation address"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "a 6to4 relay address"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "a private address"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "a benchmarking address"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "a documentation address"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "a documentation address"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "a multicast address"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "a reserved address"),
];

const V6: &[(Ipv6Addr, u32, &str)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, "an unspecified address"),
    (Ipv6Addr::LOCALHOST, 128, "a loopback address"),
    (Ipv6Addr::UNSPECIFIED, 96, "an IPv4-compatible address"),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "an IPv4-mapped address"),
    (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96, "an IPv4-translated address"),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, "a NAT64 address"),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, "a NAT64 address"),
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64, "a discard address"),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "a protocol assignment address"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "a documentation address"),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "a 6to4 address"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "a documentation address"),
    (Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16, "a segment routing address"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, "a private address"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "a link-local address"),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, "a site-local address"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "a multicast address"),
];

/// One entry of `outbound.allow`: a host or an address, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    host: String,
    port: Option<u16>,
}

impl Allow {
    /// Reads `host`, `host:port`, an address, `address:port` or `[address]:port`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Self { host: ip.to_string(), port: None };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Self { host: address.ip().to_string(), port: Some(address.port()) };
        }
        match text.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => Self { host: plain(host), port: Some(port) },
            _ => Self { host: plain(text), port: None },
        }
    }

    /// Exactly this host and port.
    #[must_use]
    pub fn exactly(host: &str, port: u16) -> Self {
        Self { host: plain(host), port: Some(port) }
    }

    /// Whether it names this host, as written in a URL, at this port.
    #[must_use]
    pub fn names(&self, host: &str, port: u16) -> bool {
        self.host == plain(host) && self.port.is_none_or(|p| p == port)
    }
}

/// Lower case, without brackets and the dot of a full name.
fn plain(host: &str) -> String {
    host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
