//! Whose word is taken for where a request came from: a proxy's on this machine, and those that
//! `trusted_proxies` names.

use std::net::IpAddr;

use ipnet::IpNet;

/// Proxies that are believed, besides those on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Reads addresses and networks, e.g. `10.0.0.7` and `172.16.0.0/12`.
    ///
    /// # Errors
    /// Which of them is neither.
    pub fn parse(names: &[String]) -> Result<Self, String> {
        let network = |name: &String| {
            let one = name.parse().map(IpAddr::into).ok();
            one.or_else(|| name.parse().ok()).ok_or_else(|| name.clone())
        };
        names.iter().map(network).collect::<Result<_, _>>().map(Self)
    }

    /// Whether what comes from `address` is believed about others.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback() || self.0.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_are_proxies_and_names_are_not() {
        assert!(Proxies::parse(&["10.0.0.0/8".into(), "fd00::/8".into(), "::1".into()]).is_ok());
        for wrong in ["proxy.internal", "10.0.0.0/33", ""] {
            assert_eq!(Proxies::parse(&[wrong.into()]), Err(wrong.to_owned()));
        }
    }
}
